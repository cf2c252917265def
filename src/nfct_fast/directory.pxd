"""Which network namespace of this host has an address, and the sockets in it."""
from libc.stdint cimport uint64_t

from nfct_fast.addresses cimport addresses_t
from nfct_fast.flow cimport tuple_t
from nfct_fast.sock cimport sock_t
from nfct_fast.sockdiag cimport diag_t

ctypedef struct member_t:
    uint64_t inode          # of the namespace
    diag_t diag
    addresses_t addresses


# Member 0 is home: the namespace that is listened in. Lookups and refresh() are for one thread.
cdef class Directory:
    cdef member_t *members
    cdef int count
    cdef readonly int limit
    cdef readonly double ttl
    cdef public bint check
    cdef bint wanted            # an address was asked for that no member has
    cdef uint64_t drained       # CLOCK_MONOTONIC ns
    cdef double due             # when the next search may be
    cdef readonly int skipped   # namespaces beyond the limit, or that may not be entered, at the last scan
    cdef str proc
    cdef list names             # of the members, beside them
    cdef list witnesses         # a path each under which the member was last seen
    cdef int add(self, inode, str name, str witness) except -1
    cdef bint seen(self, int index) except -1
    cdef int retire(self, dict found) except -1
    cdef int enlist(self, dict found) except -1
    cdef int find(self, const tuple_t *tuple, bint listener, sock_t *out, int *index) noexcept nogil
    cdef int search(self, const tuple_t *tuple, bint listener, sock_t *out, int *index) noexcept nogil

    # 1 found: *index is the member, or -1 if members disagree (then only out.ambiguous is set); 0: the namespace that
    # has tuple.src has no such socket; -ENXIO: no member has the address; other -errno. Never waits.
    cdef int lookup(self, const tuple_t *tuple, sock_t *out, int *index) noexcept nogil
    cdef int lookup_listener(self, const tuple_t *tuple, sock_t *out, int *index) noexcept nogil

    # Takes in changed addresses of home: once a batch. As addresses_refresh.
    cdef int refresh_home(self) noexcept nogil
    cdef const addresses_t *home(self) noexcept nogil
    cdef uint64_t inode(self, int index) noexcept nogil
