"""One network namespace as it is watched: its addresses, its links, and whose it is."""
from libc.stdint cimport uint64_t

from nfct_fast.namespaces.local_addresses cimport local_addresses_t
from nfct_fast.namespaces.namespace_map cimport shared_routes_t
from nfct_fast.namespaces.opener cimport Opener
from nfct_fast.namespaces.links cimport links_t
from nfct_fast.namespaces.namespace cimport namespace_t

# One caller at a time; what others use of it, `member` and `table`, they take for themselves.
cdef class WatchedNamespace:
    cdef readonly object inode
    cdef readonly str name
    cdef readonly str last_path      # a path under which it was last seen
    cdef readonly object uid       # whose it is, None for ours: see netns.owner()
    cdef readonly object userns
    cdef Opener opener
    cdef namespace_t *namespace
    cdef local_addresses_t addresses
    cdef shared_routes_t *routes     # NULL: too large, or no memory
    cdef links_t links
    cdef uint64_t closed_foreign           # foreign datagrams of sockets that are closed
    cdef bint too_large              # it has more than is taken in
    cdef bint changed              # changes were heard of
    cdef double due                # monotonic s: not to be read before
    cdef readonly dict nsids     # {number by which this namespace knows another: inode of that}
    cdef bint monitored                # listened in
    cdef int number                  # of its place
    cdef int connected_group
    cdef int read(self) except -1
    cdef int _check(self) except -1
    cdef int _open(self) except -1
    cdef int _take_routes(self) except -1
