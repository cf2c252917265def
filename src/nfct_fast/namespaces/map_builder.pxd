"""Build a namespace map from the watched namespaces."""
from nfct_fast.namespaces.namespace_map cimport namespace_map_t

# Set WatchedNamespace.nsids, for the numbers that links refer to, and .connected_group.
cdef int connect_namespaces(dict namespaces, list monitored) except -1
# Make a map of all of them, the monitored ones first. It belongs to the caller.
cdef namespace_map_t *build_map(dict namespaces, list monitored, int skipped) except NULL
