"""List at once which local ports have no socket, and which have exactly one, until a socket is added to them."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from nfct_fast.namespaces.namespace_index cimport NamespaceIndex
from nfct_fast.sockets.socket_notes cimport SocketNotes

cdef enum:
    PORT_LISTS = 16          # lists, each for a namespace and a protocol; one takes 272 KiB once it has been read

# The ports of one protocol in one network namespace.
cdef struct port_list_t:
    uint64_t netns           # cookie of the namespace; 0: unused list
    int64_t expires_at       # CLOCK_MONOTONIC ns at which the list expires; 0: not read
    int64_t next_at          # CLOCK_MONOTONIC ns before which the list is not read again
    int64_t misses_since     # CLOCK_MONOTONIC ns from which `misses` are counted
    uint32_t misses          # number of ports that had to be looked up one by one
    uint8_t proto            # IPPROTO_TCP or IPPROTO_UDP
    uint8_t *taken           # the two bitmaps of diag_ports(); NULL: never read
    uint32_t *changes        # value of SocketNotes.port_changes() of each port when the list was read; NULL: never read

# One caller at a time.
cdef class ClosedPorts:
    cdef SocketNotes _notes
    cdef NamespaceIndex _namespaces
    cdef port_list_t _at[PORT_LISTS]
    cdef readonly uint64_t hits, listings

    cdef port_list_t *_slot(self, uint64_t netns, uint8_t proto) noexcept nogil
    # Whether no TCP or UDP socket is at this port of the namespace, whatever its address. False: there may be one.
    cdef bint is_vacant(self, uint64_t netns, uint8_t proto, uint16_t port, int64_t now) noexcept nogil
    # Whether exactly one socket is at the port. False: there may be none or several.
    cdef bint has_one_socket(self, uint64_t netns, uint8_t proto, uint16_t port, int64_t now) noexcept nogil
    # Count a port that had to be looked up, in the namespace at `index`. After MISSES of them all ports are read.
    cdef void count_miss(self, int index, uint64_t netns, uint8_t proto) noexcept nogil
    # The list if it is still valid for this port, else NULL.
    cdef port_list_t *_current(self, uint64_t netns, uint8_t proto, uint16_t port, int64_t now) noexcept nogil
    cdef int _read(self, int index, port_list_t *at) noexcept nogil
