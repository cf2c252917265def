"""One network namespace of this host, and the sockets in it."""
from libc.stdint cimport int64_t, uint64_t

from nfct_fast.namespaces.local_routes cimport local_routes_t
from nfct_fast.sockets.diag_message cimport diag_match_t
from nfct_fast.namespaces.opener cimport Opener
from nfct_fast.events.flow cimport tuple_t
from nfct_fast.kernel.netlink_query cimport netquery_t
from nfct_fast.sockets.proc_net cimport procnet_t
from nfct_fast.sockets.socket_info cimport socket_info_t

# Made by the discovery thread and used by the reading thread. References are counted; the last namespace_drop() frees
# it.
ctypedef struct namespace_t:
    int refs
    uint64_t inode          # inode number of the nsfs file, which identifies the namespace
    uint64_t cookie         # SO_NETNS_COOKIE (Linux 5.14), by which BPF programs identify the namespace; 0: not known
    int ns                  # descriptor of the nsfs file
    netquery_t diag         # a sock_diag socket in the namespace
    netquery_t routes       # an rtnetlink socket in the namespace
    procnet_t *tables       # the namespace's /proc/net; NULL until it is needed
    uint64_t used_at        # CLOCK_MONOTONIC ns at which a flow was last found to come from the namespace
    uint64_t paid_until     # CLOCK_MONOTONIC ns at which the time spent on following routes to it will be paid off

# Open the sockets in a namespace. diag: whether to open a sock_diag socket as well. Takes over the descriptor `ns`,
# even if it fails: it then returns NULL with an errno in *error.
cdef namespace_t *namespace_open(uint64_t inode, int ns, bint diag, Opener opener, int *error) noexcept nogil
cdef namespace_t *namespace_take(namespace_t *self) noexcept nogil
cdef void namespace_drop(namespace_t *self) noexcept nogil
cdef uint64_t namespace_spoofed(const namespace_t *self) noexcept nogil    # datagrams sent by processes, and ignored

# As diag_lookup() or diag_lookup_listener(). Also finds sockets bound to the device that has the tuple's local address
# according to `addresses`.
cdef int namespace_lookup(namespace_t *self, const local_routes_t *addresses, const tuple_t *tuple, bint listener,
                          socket_info_t *out) noexcept nogil

# As procnet_lookup() and procnet_survey(). -errno also if the namespace cannot be entered.
cdef int namespace_tables_lookup(namespace_t *self, Opener opener, const tuple_t *tuple, int64_t when,
                                 socket_info_t *out) noexcept nogil
cdef int namespace_tables_survey(namespace_t *self, Opener opener, const tuple_t *tuple, int64_t when,
                                 diag_match_t *out, int room) noexcept nogil
