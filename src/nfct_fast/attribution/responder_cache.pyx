"""Who serves a local port, remembered as long as nothing there changes: a server's flows all have the same answer.

It is what the exact look-up said, which took a request to sock_diag and a look into /proc. The kernel's notes count how
often sockets come to a port, and tell when the one that was found is closed; and of each process the program is known
that it runs. As long as none of it changes, the look-up would find the same socket. That its process gave it away to
another one (by fork, or over a UNIX socket) no note tells: SURE_NS after it was last seen to hold the socket, that is
looked at again. What else none tells (SO_BINDTODEVICE after bind, a further process that has it) is seen a second
later.
"""
cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from nfct_fast.events.flow cimport tuple_t
from nfct_fast.sockets.socket_holders cimport holder_t
from nfct_fast.attribution.bpf_lookup cimport BpfLookup
from nfct_fast.records.owner cimport REASON_BUDGET, owner_drop, owner_t
from nfct_fast.processes.process cimport process_take, process_t

cdef enum:
    TTL_NS = 1_000_000_000
    BUDGET_NS = 20_000_000       # whoever could not be looked for is soon looked for again
    SURE_NS = 50_000_000         # one readlink in that time, 4 us, for each server with flows; with hundreds of them
    UNSURE_NS = 500_000_000      # up to so much later,
    LOOK_NS = 1_000_000          # one in this time
    # What it cost to ask, all servers together, is paid for before one that is only old is asked again: 2 %. The
    # holders of a server with a thousand processes take a millisecond.
    PAY_FACTOR = 50
    DEBT_NS = 10_000_000_000


cdef bint owner_copy(const owner_t *owner, owner_t *out) noexcept nogil:
    """With references of its own; False without memory."""
    cdef int i
    out[0] = owner[0]
    if owner.other_count:
        out.others = <process_t **>malloc(owner.other_count * sizeof(process_t *))
        if out.others == NULL:
            memset(out, 0, sizeof(out[0]))
            return False
        memcpy(out.others, owner.others, owner.other_count * sizeof(process_t *))
        for i in range(out.other_count):
            process_take(out.others[i])
    process_take(out.process)
    process_take(out.cgroup)
    return True


@cython.final
@cython.auto_pickle(False)
cdef class ResponderCache:
    """4,096 local addresses and ports, the latest that took their place."""

    def __cinit__(self, BpfLookup notes not None):
        self._notes = notes
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
                or now > at.until and (now > self._paid or at.reason == REASON_BUDGET) or memcmp(at.end.src, end.src, 16) != 0
                or at.changes != self._notes.owners.port_changes(netns, end.proto, end.sport)
                or at.owner.cookie and not self._notes.owners.is_watched(at.owner.cookie, at.turn)
                or at.owner.process != NULL and not self._notes.programs.runs(at.owner.process, at.program)):
            self.misses += 1
            return RESPONDER_UNKNOWN
        self.hits += 1
        if at.owner.process == NULL or now <= at.sure or now <= at.sure + UNSURE_NS and now < self._looked:
            return RESPONDER_KNOWN
        return RESPONDER_UNSURE

    cdef bint take(self, const responder_t *found, owner_t *out) noexcept nogil:
        return owner_copy(&found.owner, out)

    cdef void confirm(self, responder_t *found, int64_t now) noexcept nogil:
        found.sure = now + SURE_NS
        self._looked = max(self._looked, now - SURE_NS) + LOOK_NS

    cdef responder_t *put(self, const tuple_t *end, uint64_t netns, uint32_t changes, int64_t now, int64_t cost,
                          const owner_t *owner, const holder_t *holder, int reason) noexcept nogil:
        cdef responder_t *at = self._slot(end, netns)
        cdef owner_t copy
        cdef uint32_t program = 0
        self._paid = min(max(self._paid, now) + PAY_FACTOR * cost, now + DEBT_NS)
        if owner.process != NULL and not self._notes.programs.running(owner.process, &program):
            return NULL
        if not owner_copy(owner, &copy):
            return NULL
        self.forget(at)
        at.owner = copy
        at.end, at.netns, at.changes, at.sure = end[0], netns, changes, now + SURE_NS
        at.until = now + (BUDGET_NS if reason == REASON_BUDGET else TTL_NS)
        at.program, at.reason, at.holder = program, reason, holder[0]
        if owner.cookie:
            at.turn = self._notes.owners.watch(owner.cookie)
        return at

    cdef void forget(self, responder_t *found) noexcept nogil:
        owner_drop(&found.owner)
        memset(found, 0, sizeof(found[0]))
