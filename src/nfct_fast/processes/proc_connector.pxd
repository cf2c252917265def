"""The kernel's proc connector: subscribing to its messages, and parsing them."""
from libc.stdint cimport uint32_t

from linux_cn_proc cimport proc_event

from nfct_fast.kernel.netlink cimport NetlinkSocket

# Parse a datagram; False if it is no event.
cdef bint connector_event(const void *data, size_t size, proc_event *event, uint32_t *ack) noexcept nogil

# Subscribe to the events of processes, not of single threads. OSError.
cdef NetlinkSocket connector_open(int slots, int receive_buffer)
# Unsubscribe and close the socket.
cdef connector_close(NetlinkSocket sock)
