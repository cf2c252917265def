"""One network namespace of this host: its addresses, and the sockets in it."""
from libc.stdint cimport int64_t, uint64_t

from nfct_fast.addresses cimport addresses_t
from nfct_fast.diagmsg cimport diag_match_t
from nfct_fast.flow cimport tuple_t
from nfct_fast.netquery cimport netquery_t
from nfct_fast.procnet cimport procnet_t
from nfct_fast.sock cimport sock_t

ctypedef struct member_t:
    uint64_t inode          # of the namespace
    uint64_t cookie         # its other number, by which BPF programs know it (Linux 5.14); 0: not known
    netquery_t diag         # to sock_diag
    addresses_t addresses
    procnet_t *tables       # made when first needed
    char *path              # under which it was last seen

# By a thread that is in the namespace. diag: open a sock_diag socket, too. 0 or -errno, and then nothing is left open.
cdef int member_open(member_t *member, uint64_t inode, uint64_t cookie, const char *path, bint diag) noexcept nogil
cdef void member_close(member_t *member) noexcept nogil
cdef int member_moved(member_t *member, const char *path) noexcept nogil     # it is seen under another path now

# diag_lookup, or of the listener, also for sockets bound to the device that has the address.
cdef int member_lookup(member_t *member, const tuple_t *tuple, bint listener, sock_t *out) noexcept nogil

# procnet_lookup and procnet_survey; -errno also if the namespace cannot be entered. root: of /proc. *stranded is set if
# the thread cannot come back.
cdef int member_tables_lookup(member_t *member, int root, const tuple_t *tuple, int64_t when, sock_t *out,
                              bint *stranded) noexcept nogil
cdef int member_tables_survey(member_t *member, int root, const tuple_t *tuple, int64_t when, diag_match_t *out,
                              int room, bint *stranded) noexcept nogil
