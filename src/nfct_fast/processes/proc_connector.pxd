"""The kernel's proc connector: asking for its messages, and what one of them says."""
from libc.stdint cimport uint32_t

from linux_cn_proc cimport proc_event

from nfct_fast.kernel.netlink cimport NetlinkSocket

# One datagram as an event; False if it is none.
cdef bint connector_event(const void *data, size_t size, proc_event *event, uint32_t *ack) noexcept nogil

# Hears what concerns processes and not single threads. OSError.
cdef NetlinkSocket connector_open(int slots, int receive_buffer)
# No more messages, and closes the socket.
cdef connector_close(NetlinkSocket sock)
