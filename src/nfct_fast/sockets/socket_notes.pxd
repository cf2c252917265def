from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from nfct_fast.events.flow cimport tuple_t
from nfct_fast.sockets.owners_find cimport (OWNERS_ACCEPT, OWNERS_BIND, OWNERS_CONNECT, OWNERS_CREATE, OWNERS_EXACT,
                          OWNERS_NO_SOURCE, OWNERS_SEND, owners, owners_probe, task_types)
from nfct_fast.processes.process_event cimport process_id, process_ring

ctypedef struct bpf_owner_t:
    uint64_t cookie
    uint64_t netns_cookie
    uint64_t cgroup_id
    uint64_t time        # CLOCK_BOOTTIME, ns: the process had started by then
    uint64_t other_time  # when another program used the same tuple in the same namespace before; 0: none did
    process_id id        # the program; tgid in the initial pid namespace, like uid and gid in the initial user namespace
    uint32_t uid
    uint32_t gid
    char comm[16]        # of the process's first thread; where programs are not told of that of the thread
    uint8_t hook         # OWNERS_CREATE, ...
    uint8_t match        # OWNERS_EXACT, ...
    bint is_kernel       # a kernel thread ran: that is nobody's program
    bint again           # the same program used the same tuple before

cdef enum:
    USERS = 8            # OWNERS_USERS

cdef class SocketNotes:
    cdef owners _owners
    cdef bint _open
    cdef readonly bint whole     # that is the root of the hierarchy: every process is seen
    cdef readonly str cgroup     # the cgroup v2 directory the programs are attached to
    cdef readonly bint packets   # the per-packet program is attached
    cdef readonly str processes_missing  # why the kernel does not tell of programs; None: it does
    cdef readonly uint32_t flows # records kept before the oldest is replaced, once there is need for so many
    cdef int64_t _since          # CLOCK_BOOTTIME ns: from then on notes are counted,
    cdef uint64_t _counted       # when there were so many

    # 1 found, 0 not. The tuple is seen from the socket: src is its local side. Nothing is allocated; safe from any thread until
    # close().
    cdef int lookup(self, const tuple_t *tuple, uint64_t netns_cookie, bpf_owner_t *out) noexcept nogil

    # Who last used it between two times, CLOCK_BOOTTIME ns. 1 found, 0 nobody, -E2BIG: too much has been noted since. `again` and
    # times after `until` are what it is for; takes up to 0.1 ms.
    cdef int lookup_past(self, const tuple_t *tuple, uint64_t netns_cookie, uint64_t begin, uint64_t until,
                         bpf_owner_t *out) noexcept nogil

    # Every program that used the tuple from `since` to `until`, CLOCK_BOOTTIME ns, the latest first; `slack`: what may lie between
    # a note and the entry it made. How many are in out, USERS at the most; other_time and match are not filled in.
    cdef int lookup_users(self, const tuple_t *tuple, uint64_t netns_cookie, uint64_t since, uint64_t slack, uint64_t until,
                          bpf_owner_t *out) noexcept nogil

    # The same in steps, for many tuples, so that the memory they wait for comes for all at the same time: prepare each
    # (netns_cookie is not 0), approach all, where a netns of 0 stands for none, and look each up.
    cdef void prepare(self, const tuple_t *tuple, uint64_t netns_cookie, owners_probe *out) noexcept nogil
    cdef void approach(self, const owners_probe *probes, int count) noexcept nogil
    cdef int lookup_prepared(self, const owners_probe *probe, bpf_owner_t *out) noexcept nogil
    # Stays the same as long as no socket comes to a local port, leaves it, or serves it otherwise.
    cdef uint32_t port_changes(self, uint64_t netns_cookie, uint8_t proto, uint16_t port) noexcept nogil
    # The same of all 65,536 ports.
    cdef void all_port_changes(self, uint64_t netns_cookie, uint8_t proto, uint32_t *out) noexcept nogil
    # Whether the socket of this cookie was not closed since watch() said `turn`. It may have been before, which is to be looked at
    # after watch(). One thread only.
    cdef uint64_t watch(self, uint64_t cookie) noexcept nogil
    cdef bint is_watched(self, uint64_t cookie, uint64_t turn) noexcept nogil

    # Whether notes come so fast that grow() is due; to be asked now and then by one thread. now: CLOCK_BOOTTIME ns.
    cdef bint is_due(self, int64_t now) noexcept nogil

    # Leaves the small ring out, once nothing of it would be there any more had the larger one been there from the start.
    # To be called likewise.
    cdef void retire(self, int64_t now) noexcept nogil

    # 1 found, 0 not: who last connected, sent on, bound or made the socket of this cookie.
    cdef int lookup_cookie(self, uint64_t cookie, bpf_owner_t *out) noexcept nogil
    cdef int _load(self, int fd, uint32_t records, uint32_t larger, bint each, const task_types *tasks) except -1
    cdef object _answer(self, const tuple_t *tuple, uint64_t netns_cookie)

# The events of programs, for Programs.drain; how many were lost, and when the last one was, CLOCK_BOOTTIME ns.
cdef process_ring *owners_ring(SocketNotes self) noexcept nogil
cdef uint64_t owners_lost(SocketNotes self) noexcept nogil
cdef uint64_t owners_lost_at(SocketNotes self) noexcept nogil
