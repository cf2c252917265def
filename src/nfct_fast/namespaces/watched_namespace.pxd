"""One network namespace that is watched: its addresses, its links, and its owner."""
from libc.stdint cimport uint64_t

from nfct_fast.namespaces.local_addresses cimport local_addresses_t
from nfct_fast.namespaces.namespace_map cimport shared_routes_t
from nfct_fast.namespaces.opener cimport Opener
from nfct_fast.namespaces.links cimport links_t
from nfct_fast.namespaces.namespace cimport namespace_t

# One caller at a time. Other threads take references of `namespace` and `routes`.
cdef class WatchedNamespace:
    cdef readonly object inode
    cdef readonly str name         # the name that ip-netns(8) or docker gave it, or "pid:PID"
    cdef readonly str last_path    # the path under which the namespace was last found
    cdef readonly object uid       # user id of the owner; None: the namespace is ours, see netns.owner()
    cdef readonly object userns    # inode of the owner's user namespace
    cdef Opener opener
    cdef namespace_t *namespace    # a reference
    cdef local_addresses_t addresses
    cdef shared_routes_t *routes   # local addresses, a reference; NULL: there are too many, or memory is exhausted
    cdef links_t links
    cdef uint64_t closed_spoofed   # spoofed datagrams received on sockets that were closed since
    cdef bint too_large            # the namespace has more addresses or links than are read
    cdef bint changed              # a notification came since the namespace was last read
    cdef double due                # monotonic seconds before which it is not read again
    cdef readonly dict nsids       # {number (nsid) by which its links refer to a namespace: inode of that namespace}
    cdef bint monitored            # conntrack events of this namespace are received
    cdef int number                # number among the monitored namespaces, if `monitored`
    cdef int connected_group       # the same number for all namespaces that chains of links connect
    cdef int read(self) except -1
    cdef int _check(self) except -1
    cdef int _open(self) except -1
    cdef int _take_routes(self) except -1
