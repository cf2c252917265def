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
    cdef readonly str name         # as ip-netns(8) and docker have it, or "pid:PID"
    cdef readonly str last_path    # the path under which it was last found
    cdef readonly object uid       # its owner's user id; None: it is ours, see netns.owner()
    cdef readonly object userns    # inode of its owner's user namespace
    cdef Opener opener
    cdef namespace_t *namespace    # a reference
    cdef local_addresses_t addresses
    cdef shared_routes_t *routes   # its addresses, a reference; NULL: it has too many, or there was no memory
    cdef links_t links
    cdef uint64_t closed_foreign   # foreign datagrams of sockets that were closed
    cdef bint too_large            # it has more addresses or links than are read
    cdef bint changed              # a notification came since it was last read
    cdef double due                # monotonic s: not to be read before
    cdef readonly dict nsids       # {number (nsid) by which its links refer to another namespace: inode of that}
    cdef bint monitored            # its conntrack events are received
    cdef int number                # its number among the monitored ones
    cdef int connected_group       # the same for all namespaces that some chain of links connects
    cdef int read(self) except -1
    cdef int _check(self) except -1
    cdef int _open(self) except -1
    cdef int _take_routes(self) except -1
