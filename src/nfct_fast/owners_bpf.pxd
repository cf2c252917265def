from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nfct_fast.flow cimport tuple_t
from owners_find cimport (OWNERS_BIND, OWNERS_BOUND, OWNERS_CONNECT, OWNERS_CREATE, OWNERS_EXACT,
                          OWNERS_NO_SOURCE, OWNERS_SEND, owners)

ctypedef struct bpf_owner_t:
    uint64_t cookie
    uint64_t netns_cookie
    uint64_t cgroup_id
    uint64_t time        # CLOCK_BOOTTIME, ns: the process had started by then
    uint64_t other_time  # when another process used the same tuple in the same namespace before; 0: none did
    uint32_t tgid        # the process, in the initial pid namespace, like uid and gid in the initial user namespace
    uint32_t tid
    uint32_t uid
    uint32_t gid
    char comm[16]        # of the thread, not always terminated by what the process calls itself later
    uint8_t hook         # OWNERS_CREATE, ...
    uint8_t match        # OWNERS_EXACT, ...
    bint again           # the same process used the same tuple before

cdef class OwnersBpf:
    cdef owners _owners
    cdef bint _open
    cdef readonly bint whole     # that is the root of the hierarchy: every process is seen
    cdef readonly str cgroup     # the cgroup v2 directory the programs are attached to
    cdef readonly bint packets   # the per-packet program is attached
    cdef readonly uint32_t flows # records kept before the oldest is replaced

    # 1 found, 0 not, -EEXIST: netns_cookie is 0 (any namespace) and several have this tuple. The tuple is seen from the
    # socket: src is its local side. Nothing is allocated; safe from any thread until close().
    cdef int lookup(self, const tuple_t *tuple, uint64_t netns_cookie, bpf_owner_t *out) noexcept nogil

    # The same tuple will be looked up soon.
    cdef void prefetch(self, const tuple_t *tuple) noexcept nogil

    # Who last used it between two times, CLOCK_BOOTTIME ns, and in *first when the same process first did. 1 found, 0 nobody,
    # -E2BIG: too much has been noted since. `again` and times after `until` are what it is for; takes up to 0.1 ms.
    cdef int lookup_past(self, const tuple_t *tuple, uint64_t netns_cookie, uint64_t begin, uint64_t until, bpf_owner_t *out,
                         uint64_t *first) noexcept nogil

    # 1 found, 0 not: who last connected, sent on, bound or made the socket of this cookie.
    cdef int lookup_cookie(self, uint64_t cookie, bpf_owner_t *out) noexcept nogil
    cdef object _answer(self, const tuple_t *tuple, uint64_t netns_cookie)
