"""Which local ports nobody serves, or one socket alone: what a scan meets, each time another one.

To ask for each takes a request to sock_diag, some 3 us, and whether a socket shares its port two walks over all. After
SOME of them all sockets are listed once, and a port without one stays vacant until the kernel's notes tell that a
socket came to it. A listing takes 1 us for each socket: where there are too many it is given up, and it is paid for
before the next.
"""
cimport cython
from libc.errno cimport ENOMEM, ENOSPC
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from nfct_fast.namespaces.namespace_index cimport NamespaceIndex
from nfct_fast.sockets.socket_notes cimport SocketNotes
from nfct_fast.kernel.clock cimport monotonic_ns
from nfct_fast.sockets.sock_diag cimport PORT_BYTES

cdef enum:
    PORTS = 65536
    SOME = 64                    # that were asked for
    SOME_NS = 1_000_000_000      # within this time
    TTL_NS = 1_000_000_000       # what no note tells of: a UDP socket that was connected and has sent nothing yet
    MOST = 8192                  # sockets that are listed
    TOO_MANY_NS = 600_000_000_000    # until it is tried again where there were more: the kernel ends no listing before its end
    PAY_FACTOR = 50


cdef inline bint is_set(const uint8_t *bits, uint16_t port) noexcept nogil:
    return bits[port >> 3] >> (port & 7) & 1


@cython.final
@cython.auto_pickle(False)
cdef class ClosedPorts:
    """Of the VACANCIES namespaces and protocols that were asked for last, of those that have one place."""

    def __cinit__(self, SocketNotes owners not None, NamespaceIndex directory not None):
        self._owners, self._directory = owners, directory

    def __dealloc__(self):
        cdef int i
        for i in range(VACANCIES):
            free(self._at[i].taken)
            free(self._at[i].changes)

    cdef vacancy_t *_slot(self, uint64_t netns, uint8_t proto) noexcept nogil:
        return &self._at[(netns * 2 + (proto & 1)) & (VACANCIES - 1)]

    cdef vacancy_t *_listed(self, uint64_t netns, uint8_t proto, uint16_t port, int64_t now) noexcept nogil:
        cdef vacancy_t *at = self._slot(netns, proto)
        if (at.netns != netns or at.proto != proto or now > at.until
                or at.changes[port] != self._owners.port_changes(netns, proto, port)):
            return NULL
        return at

    cdef bint is_vacant(self, uint64_t netns, uint8_t proto, uint16_t port, int64_t now) noexcept nogil:
        cdef vacancy_t *at = self._listed(netns, proto, port, now)
        if at == NULL or is_set(at.taken, port):
            return False
        self.hits += 1
        return True

    cdef bint is_sole(self, uint64_t netns, uint8_t proto, uint16_t port, int64_t now) noexcept nogil:
        cdef vacancy_t *at = self._listed(netns, proto, port, now)
        return at != NULL and is_set(at.taken, port) and not is_set(at.taken + PORT_BYTES, port)

    cdef void missed(self, int index, uint64_t netns, uint8_t proto) noexcept nogil:
        cdef vacancy_t *at = self._slot(netns, proto)
        cdef int64_t now = monotonic_ns()
        cdef int rc
        if not self._owners.whole:
            return
        if at.netns != netns or at.proto != proto:
            if now <= at.until:
                return
            at.netns, at.proto, at.until, at.misses = netns, proto, 0, 0
        if now - at.counted > SOME_NS:
            at.counted, at.misses = now, 0
        at.misses += 1
        if at.misses < SOME or now < at.paid or now <= at.until:
            return
        rc = self._list(index, at)
        at.until = now + TTL_NS if rc == 0 else 0
        at.paid = monotonic_ns()
        at.paid += PAY_FACTOR * (at.paid - now) if rc != -ENOSPC else <int64_t>TOO_MANY_NS

    cdef int _list(self, int index, vacancy_t *at) noexcept nogil:
        self.listings += 1
        if at.taken == NULL:
            at.taken = <uint8_t *>malloc(2 * PORT_BYTES)
        if at.changes == NULL:
            at.changes = <uint32_t *>malloc(PORTS * sizeof(uint32_t))
        if at.taken == NULL or at.changes == NULL:
            return -ENOMEM
        # Who comes meanwhile is counted after this.
        self._owners.all_port_changes(at.netns, at.proto, at.changes)
        memset(at.taken, 0, 2 * PORT_BYTES)
        return self._directory.ports_at(index, at.proto, at.taken, MOST)
