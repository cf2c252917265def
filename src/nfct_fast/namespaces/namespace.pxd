"""One network namespace of this host, and the sockets in it."""
from libc.stdint cimport int64_t, uint64_t

from nfct_fast.namespaces.local_routes cimport local_routes_t
from nfct_fast.sockets.diag_message cimport diag_match_t
from nfct_fast.namespaces.opener cimport Opener
from nfct_fast.events.flow cimport tuple_t
from nfct_fast.kernel.netlink_query cimport netquery_t
from nfct_fast.sockets.proc_net cimport procnet_t
from nfct_fast.sockets.socket_info cimport socket_info_t

# Made by the discovery thread and used by the reader. Counted; the last namespace_drop() frees it.
ctypedef struct namespace_t:
    int refs
    uint64_t inode          # of its nsfs file, which identifies the namespace
    uint64_t cookie         # SO_NETNS_COOKIE, by which BPF programs know it (Linux 5.14); 0: not known
    int ns                  # its nsfs file, open
    netquery_t diag         # a sock_diag socket in it
    netquery_t routes       # an rtnetlink socket in it
    procnet_t *tables       # its /proc/net; NULL until it is needed
    uint64_t used_at        # CLOCK_MONOTONIC ns: when a flow was last found to come from it
    uint64_t paid_until     # CLOCK_MONOTONIC ns: the time spent on following routes to it is paid for by then

# Takes over the descriptor `ns`, also on a failure: NULL then, and *error is an errno. diag: open a sock_diag socket,
# too.
cdef namespace_t *namespace_open(uint64_t inode, int ns, bint diag, Opener opener, int *error) noexcept nogil
cdef namespace_t *namespace_take(namespace_t *self) noexcept nogil
cdef void namespace_drop(namespace_t *self) noexcept nogil
cdef uint64_t namespace_foreign(const namespace_t *self) noexcept nogil    # datagrams that did not come from the kernel

# diag_lookup, or diag_lookup_listener. Also finds sockets that are bound to the device that has the address, which
# `addresses` tells.
cdef int namespace_lookup(namespace_t *self, const local_routes_t *addresses, const tuple_t *tuple, bint listener,
                          socket_info_t *out) noexcept nogil

# procnet_lookup and procnet_survey in the namespace; -errno also if it cannot be entered.
cdef int namespace_tables_lookup(namespace_t *self, Opener opener, const tuple_t *tuple, int64_t when,
                                 socket_info_t *out) noexcept nogil
cdef int namespace_tables_survey(namespace_t *self, Opener opener, const tuple_t *tuple, int64_t when,
                                 diag_match_t *out, int room) noexcept nogil
