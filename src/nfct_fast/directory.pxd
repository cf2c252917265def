"""Which network namespace of this host has an address, and the sockets in it."""
from libc.stdint cimport int64_t, uint8_t, uint64_t

from nfct_fast.addresses cimport addresses_t
from nfct_fast.addrtable cimport address_table_t
from nfct_fast.diagmsg cimport diag_match_t
from nfct_fast.flow cimport tuple_t
from nfct_fast.member cimport member_t
from nfct_fast.sock cimport sock_t

# An address that no namespace had when it was last asked for.
cdef struct stranger_t:
    uint8_t addr[16]
    uint64_t until

# The first members are homes: the namespaces that are listened in. Lookups and refresh() are for one thread.
cdef class Directory:
    cdef member_t *members
    cdef int count
    cdef readonly int homes
    cdef address_table_t joined # the addresses of all members; without memory for it, empty
    cdef bint stale             # and it is to be made anew
    cdef int root               # of /proc
    cdef bint diag              # open sock_diag sockets
    cdef bint stranded          # the thread was left in another namespace
    cdef stranger_t strangers[256]
    cdef readonly int limit
    cdef readonly double ttl
    cdef bint eager             # search for a namespace when its address is asked for, not at the next refresh()
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

    # The first member behind `after` (-1 to begin) that has tuple.src, -1 if there is none; if home has it, only home.
    cdef bint _is_foreign(self, const tuple_t *tuple) noexcept nogil
    cdef int place(self, int home, const tuple_t *tuple, int after) noexcept nogil
    # No member has tuple.src. Whether addresses were read anew, so that it is worth asking again. search: have
    # refresh() search for new namespaces, at once if it is due; else it does once in a while for each private address.
    cdef bint look_again(self, const tuple_t *tuple, bint search) noexcept nogil

    cdef uint64_t cookie(self, int index) noexcept nogil
    cdef bint search_now(self) noexcept with gil

    # diag_lookup (or of the listener), diag_survey, procnet_lookup and procnet_survey in one member. -errno also if
    # it cannot be entered, as the tables need.
    cdef int lookup_at(self, int index, const tuple_t *tuple, bint listener, sock_t *out) noexcept nogil
    cdef int survey_at(self, int index, const tuple_t *tuple, diag_match_t *out, int room) noexcept nogil
    cdef int tables_lookup(self, int index, const tuple_t *tuple, int64_t when, sock_t *out) noexcept nogil
    cdef int tables_survey(self, int index, const tuple_t *tuple, int64_t when, diag_match_t *out,
                           int room) noexcept nogil

    # Takes in changed addresses of homes: once a batch. As addresses_refresh.
    cdef int refresh_home(self) noexcept nogil
    cdef const addresses_t *home(self, int index) noexcept nogil
