"""List at once which local ports have no socket, and which have exactly one: a port scan hits a new port each time.

Looking up a single port takes a sock_diag request, about 3 us, and finding out whether a socket shares its port takes
two walks through all sockets. After MISSES such look-ups all sockets are listed once. A port without a socket then
counts as vacant until the kernel's notes show that a socket was added to it. A listing takes 1 us per socket: it is
given up if there are too many, and the longer it took, the longer the next one has to wait.
"""
cimport cython
from libc.errno cimport ENOMEM, ENOSPC
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from nfct_fast.namespaces.namespace_index cimport NamespaceIndex
from nfct_fast.sockets.socket_notes cimport SocketNotes
from nfct_fast.kernel.clock cimport monotonic_ns, thread_cpu_ns
from nfct_fast.sockets.sock_diag cimport PORT_BYTES

cdef enum:
    PORTS = 65536
    MISSES = 64                      # look-ups of single ports within MISSES_NS that cause a listing
    MISSES_NS = 1_000_000_000
    # How long a listing is valid: the notes do not show a UDP socket that was connected and has not sent anything yet.
    TTL_NS = 1_000_000_000
    MAX_SOCKETS = 8192               # most sockets in a listing; if there are more, it is given up
    TOO_MANY_NS = 600_000_000_000    # time for which it is given up, since the kernel walks through all sockets even so
    PAY_FACTOR = 50                  # a listing that took t ns of processor time is repeated after PAY_FACTOR * t: 2 %


cdef inline bint is_set(const uint8_t *bits, uint16_t port) noexcept nogil:
    return bits[port >> 3] >> (port & 7) & 1


@cython.final
@cython.auto_pickle(False)
cdef class ClosedPorts:
    """A cache of port lists, for up to PORT_LISTS pairs of namespace and protocol."""

    def __cinit__(self, SocketNotes notes not None, NamespaceIndex namespaces not None):
        self._notes, self._namespaces = notes, namespaces

    def __dealloc__(self):
        cdef int i
        for i in range(PORT_LISTS):
            free(self._at[i].taken)
            free(self._at[i].changes)

    cdef port_list_t *_slot(self, uint64_t netns, uint8_t proto) noexcept nogil:
        return &self._at[(netns * 2 + (proto & 1)) & (PORT_LISTS - 1)]

    cdef port_list_t *_current(self, uint64_t netns, uint8_t proto, uint16_t port, int64_t now) noexcept nogil:
        cdef port_list_t *at = self._slot(netns, proto)
        if (at.netns != netns or at.proto != proto or now > at.expires_at
                or at.changes[port] != self._notes.port_changes(netns, proto, port)):
            return NULL
        return at

    cdef bint is_vacant(self, uint64_t netns, uint8_t proto, uint16_t port, int64_t now) noexcept nogil:
        cdef port_list_t *at = self._current(netns, proto, port, now)
        if at == NULL or is_set(at.taken, port):
            return False
        self.hits += 1
        return True

    cdef bint has_one_socket(self, uint64_t netns, uint8_t proto, uint16_t port, int64_t now) noexcept nogil:
        cdef port_list_t *at = self._current(netns, proto, port, now)
        return at != NULL and is_set(at.taken, port) and not is_set(at.taken + PORT_BYTES, port)

    cdef void count_miss(self, int index, uint64_t netns, uint8_t proto) noexcept nogil:
        cdef port_list_t *at = self._slot(netns, proto)
        cdef int64_t now = monotonic_ns()
        cdef int64_t spent
        cdef int rc
        if not self._notes.covers_all:
            return
        if at.netns != netns or at.proto != proto:
            if now <= at.expires_at:
                return
            at.netns, at.proto, at.expires_at, at.misses = netns, proto, 0, 0
        if now - at.misses_since > MISSES_NS:
            at.misses_since, at.misses = now, 0
        at.misses += 1
        if at.misses < MISSES or now < at.next_at or now <= at.expires_at:
            return
        spent = thread_cpu_ns()
        rc = self._read(index, at)
        spent = thread_cpu_ns() - spent
        at.expires_at = now + TTL_NS if rc == 0 else 0
        at.next_at = monotonic_ns() + (PAY_FACTOR * spent if rc != -ENOSPC else <int64_t>TOO_MANY_NS)

    cdef int _read(self, int index, port_list_t *at) noexcept nogil:
        self.listings += 1
        if at.taken == NULL:
            at.taken = <uint8_t *>malloc(2 * PORT_BYTES)
        if at.changes == NULL:
            at.changes = <uint32_t *>malloc(PORTS * sizeof(uint32_t))
        if at.taken == NULL or at.changes == NULL:
            return -ENOMEM
        # Read the counters first, so that a socket added during the listing counts as a change.
        self._notes.all_port_changes(at.netns, at.proto, at.changes)
        memset(at.taken, 0, 2 * PORT_BYTES)
        return self._namespaces.ports_at(index, at.proto, at.taken, MAX_SOCKETS)
