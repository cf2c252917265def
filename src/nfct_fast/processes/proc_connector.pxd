"""The kernel's proc connector: subscribe to its messages, and parse them."""
from libc.stdint cimport uint32_t

from linux_cn_proc cimport proc_event

from nfct_fast.kernel.netlink cimport NetlinkSocket

# Parse a datagram. Return False if it is not an event.
cdef bint connector_event(const void *data, size_t size, proc_event *event, uint32_t *ack) noexcept nogil

# Open a socket and subscribe to the events of processes, without those of other threads. OSError.
cdef NetlinkSocket connector_open(int slots, int receive_buffer)
# Unsubscribe and close the socket.
cdef connector_close(NetlinkSocket sock)
