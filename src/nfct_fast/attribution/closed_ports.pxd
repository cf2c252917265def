"""Which local ports nobody serves, or one socket alone: known of all at once, and as long as no socket comes to them."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from nfct_fast.namespaces.namespace_index cimport NamespaceIndex
from nfct_fast.sockets.socket_notes cimport SocketNotes

cdef enum:
    VACANCIES = 16           # namespaces and protocols, 264 KiB each once it is of use

cdef struct vacancy_t:
    uint64_t netns           # cookie; 0: nothing is here
    int64_t until            # CLOCK_MONOTONIC ns
    int64_t paid             # and not before that it is listed again
    int64_t counted          # since when `misses` are
    uint32_t misses
    uint8_t proto
    uint8_t *taken           # what diag_ports says; NULL: they were never listed
    uint32_t *changes        # of all ports when they were listed

# One caller at a time.
cdef class ClosedPorts:
    cdef SocketNotes _owners
    cdef NamespaceIndex _directory
    cdef vacancy_t _at[VACANCIES]
    cdef readonly uint64_t hits, listings

    cdef vacancy_t *_slot(self, uint64_t netns, uint8_t proto) noexcept nogil
    # True: no socket of TCP or UDP is at this port of the namespace, whatever its address. False: there may be one.
    cdef bint is_vacant(self, uint64_t netns, uint8_t proto, uint16_t port, int64_t now) noexcept nogil
    # True: one socket has it to itself.
    cdef bint is_sole(self, uint64_t netns, uint8_t proto, uint16_t port, int64_t now) noexcept nogil
    # A port of member `index` of the directory had to be asked for: of many all are listed.
    cdef void missed(self, int index, uint64_t netns, uint8_t proto) noexcept nogil
    cdef vacancy_t *_listed(self, uint64_t netns, uint8_t proto, uint16_t port, int64_t now) noexcept nogil
    cdef int _list(self, int index, vacancy_t *at) noexcept nogil
