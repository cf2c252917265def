"""Finds the network namespaces of this host and follows them, in a thread of its own."""
from libc.stdint cimport uint64_t

from nfct_fast.namespaces.namespace_map cimport namespace_map_t
from nfct_fast.namespaces.opener cimport Opener
from nfct_fast.namespaces.watched_namespace cimport WatchedNamespace

cdef class Discovery:
    cdef readonly dict namespaces      # {inode: Space}
    cdef readonly list monitored       # those listened in, by number; None: nobody's
    cdef namespace_map_t *new_map            # not yet taken
    cdef uint64_t requested            # rounds that were asked for,
    cdef uint64_t completed         # and those that began after they were
    cdef bint is_stale              # a home's changes are not yet in `fresh`
    cdef bint search_wanted               # look for new namespaces
    cdef bint stopping
    cdef readonly int limit
    cdef readonly double ttl
    cdef double search_due                # monotonic s: when the next search may be,
    cdef double users_due         # and the next look at namespaces that are not ours
    cdef double checked_at            # when it was last seen to that all are there
    cdef readonly set skipped      # namespaces that are left out, or may not be entered
    cdef uint64_t closed_foreign           # foreign datagrams of those that are gone
    cdef dict deferred                # {inode: monotonic s until which it is not looked at}
    cdef object finder            # a NamespaceFinder
    cdef bint diag
    cdef Opener opener
    cdef bint changed
    cdef object poll
    cdef object monitored_poll
    cdef object lock
    cdef object thread
    cdef readonly object failure
    cdef int monitored_fd
    cdef int wake
    cdef int done
    cdef int pid

    # What was found since the last call; the caller's. NULL: nothing new.
    cdef namespace_map_t *take(self) noexcept nogil
    # Whether something about a home has changed that take() does not have yet.
    cdef bint is_behind(self) noexcept nogil
    # Has a round begin now, and waits for its end, for so many ms at most; False if that was too short. search: also
    # for new namespaces.
    cdef bint run_round(self, bint search, int patience) noexcept nogil
    cdef int _publish(self) except -1
    cdef WatchedNamespace _least_needed(self)
    cdef void _close(self) noexcept nogil
