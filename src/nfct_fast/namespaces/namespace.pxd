"""The sockets in one network namespace of this host, as far as a flow's way needs them."""
from libc.stdint cimport int64_t, uint64_t

from nfct_fast.namespaces.local_routes cimport local_routes_t
from nfct_fast.sockets.diag_message cimport diag_match_t
from nfct_fast.namespaces.opener cimport Opener
from nfct_fast.events.flow cimport tuple_t
from nfct_fast.kernel.netlink_query cimport netquery_t
from nfct_fast.sockets.proc_net cimport procnet_t
from nfct_fast.sockets.socket_info cimport socket_info_t

# Made by one thread and used by another; freed by whoever lets go of it last.
ctypedef struct namespace_t:
    int refs
    uint64_t inode          # of the namespace
    uint64_t cookie         # its other number, by which BPF programs know it (Linux 5.14); 0: not known
    int ns                  # its nsfs file, open
    netquery_t diag         # to sock_diag
    netquery_t routes       # to rtnetlink
    procnet_t *tables       # made when first needed
    uint64_t used_at           # CLOCK_MONOTONIC ns when a flow was last found to have come from it
    uint64_t paid_until          # and until when looking whether any can have is paid for

# diag: open a sock_diag socket, too. `ns` is its from now on, in any case. NULL and *error (an errno) on a failure.
cdef namespace_t *namespace_open(uint64_t inode, int ns, bint diag, Opener opener, int *error) noexcept nogil
cdef namespace_t *namespace_take(namespace_t *self) noexcept nogil
cdef void namespace_drop(namespace_t *self) noexcept nogil
cdef uint64_t namespace_foreign(const namespace_t *self) noexcept nogil    # datagrams that the kernel did not send

# diag_lookup, or of the listener, also for sockets bound to the device that has the address, of those in `addresses`.
cdef int namespace_lookup(namespace_t *self, const local_routes_t *addresses, const tuple_t *tuple, bint listener,
                       socket_info_t *out) noexcept nogil

# procnet_lookup and procnet_survey; -errno also if the namespace cannot be entered.
cdef int namespace_tables_lookup(namespace_t *self, Opener opener, const tuple_t *tuple, int64_t when,
                              socket_info_t *out) noexcept nogil
cdef int namespace_tables_survey(namespace_t *self, Opener opener, const tuple_t *tuple, int64_t when, diag_match_t *out,
                              int room) noexcept nogil
