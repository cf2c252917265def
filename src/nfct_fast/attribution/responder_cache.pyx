"""Cache which process serves a local port, as long as nothing changes there, so that a server is looked up only once.

An entry holds the result of an exact look-up, which takes a sock_diag request and a scan of /proc. The kernel's notes
count how often a socket is added to a port, and show when a known socket is closed. The history knows which program
each process runs. As long as none of this changes, another look-up would find the same socket. The notes do not show
that a process passed the socket on (by fork, or over a UNIX socket). Therefore the entry is checked again once
TRUSTED_NS have passed since the process was last seen to hold the socket. Other changes that they do not show
(SO_BINDTODEVICE after bind, a further process that holds the socket) take effect a second later.
"""
cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memset

from nfct_fast.events.flow cimport tuple_t
from nfct_fast.sockets.socket_holders cimport holder_t
from nfct_fast.attribution.bpf_lookup cimport BpfLookup
from nfct_fast.records.owner cimport REASON_BUDGET, owner_copy, owner_drop, owner_t

cdef enum:
    TTL_NS = 1_000_000_000
    BUDGET_NS = 20_000_000       # TTL if the scanning budget was exhausted: try again soon
    # Each server that has flows is checked by one readlink (4 us) every TRUSTED_NS. If there are hundreds of servers,
    # only one is checked every RECHECK_INTERVAL_NS, and the others up to OVERDUE_NS later.
    TRUSTED_NS = 50_000_000
    OVERDUE_NS = 500_000_000
    RECHECK_INTERVAL_NS = 1_000_000
    # Look-ups that only refresh an expired entry may use 2 % of the time, for all servers together, since finding the
    # holders of a server with a thousand processes takes a millisecond. DEBT_NS: how long one look-up can delay others.
    PAY_FACTOR = 50
    DEBT_NS = 10_000_000_000


@cython.final
@cython.auto_pickle(False)
cdef class ResponderCache:
    """A cache of the responders of 4,096 local addresses and ports; a new entry evicts the old one in its slot."""

    def __cinit__(self, BpfLookup bpf_lookup not None):
        self._bpf_lookup = bpf_lookup
        self._at = <responder_t *>calloc(RESPONDERS, sizeof(responder_t))
        if self._at == NULL:
            raise MemoryError

    def __dealloc__(self):
        cdef int i
        if self._at != NULL:
            for i in range(RESPONDERS):
                owner_drop(&self._at[i].owner)
        free(self._at)

    cdef responder_t *_slot(self, const tuple_t *end, uint64_t netns) noexcept nogil:
        cdef const uint64_t *address = <const uint64_t *>&end.src[0]
        cdef uint64_t hash = (address[0] ^ address[1] * 3 ^ netns << 20 ^ end.proto) * <uint64_t>0x9e3779b97f4a7c15
        return &self._at[((hash >> 40) + end.sport) & (RESPONDERS - 1)]

    cdef int find(self, const tuple_t *end, uint64_t netns, int64_t now, responder_t **out) noexcept nogil:
        cdef responder_t *at = self._slot(end, netns)
        out[0] = at
        if (at.netns != netns or at.end.sport != end.sport or at.end.proto != end.proto or at.end.family != end.family
                or now > at.expires_at and (now > self._refresh_after or at.reason == REASON_BUDGET)
                or memcmp(at.end.src, end.src, 16) != 0
                or at.changes != self._bpf_lookup.notes.port_changes(netns, end.proto, end.sport)
                or at.owner.cookie and not self._bpf_lookup.notes.is_watched(at.owner.cookie, at.watch_id)
                or at.owner.process != NULL and not self._bpf_lookup.history.runs(at.owner.process, at.exec_id)):
            self.misses += 1
            return RESPONDER_UNKNOWN
        self.hits += 1
        if (at.owner.process == NULL or now <= at.trusted_until
                or now <= at.trusted_until + OVERDUE_NS and now < self._recheck_after):
            return RESPONDER_KNOWN
        return RESPONDER_UNSURE

    cdef void confirm(self, responder_t *found, int64_t now) noexcept nogil:
        found.trusted_until = now + TRUSTED_NS
        self._recheck_after = max(self._recheck_after, now - TRUSTED_NS) + RECHECK_INTERVAL_NS

    cdef responder_t *put(self, const tuple_t *end, uint64_t netns, uint32_t changes, int64_t now, int64_t cost,
                          const owner_t *owner, const holder_t *holder, int reason) noexcept nogil:
        cdef responder_t *at = self._slot(end, netns)
        cdef uint32_t exec_id = 0
        self._refresh_after = min(max(self._refresh_after, now) + PAY_FACTOR * cost, now + DEBT_NS)
        if owner.process != NULL and not self._bpf_lookup.history.running(owner.process, &exec_id):
            return NULL
        self.forget(at)
        owner_copy(owner, &at.owner)
        at.end, at.netns, at.changes, at.trusted_until = end[0], netns, changes, now + TRUSTED_NS
        at.expires_at = now + (BUDGET_NS if reason == REASON_BUDGET else TTL_NS)
        at.exec_id, at.reason, at.holder = exec_id, reason, holder[0]
        if owner.cookie:
            at.watch_id = self._bpf_lookup.notes.watch(owner.cookie)
        return at

    cdef void forget(self, responder_t *found) noexcept nogil:
        owner_drop(&found.owner)
        memset(found, 0, sizeof(found[0]))
