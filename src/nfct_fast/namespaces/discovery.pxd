"""Finds the network namespaces of this host and follows them, in a thread of its own."""
from libc.stdint cimport uint64_t

from nfct_fast.namespaces.namespace_map cimport namespace_map_t
from nfct_fast.namespaces.opener cimport Opener
from nfct_fast.namespaces.watched_namespace cimport WatchedNamespace

cdef class Discovery:
    cdef readonly dict spaces      # {inode: Space}
    cdef readonly list homes       # those listened in, by number; None: nobody's
    cdef namespace_map_t *fresh            # not yet taken
    cdef uint64_t asked            # rounds that were asked for,
    cdef uint64_t answered         # and those that began after they were
    cdef bint reading              # a home's changes are not yet in `fresh`
    cdef bint wanted               # look for new namespaces
    cdef bint stopping
    cdef readonly int limit
    cdef readonly double ttl
    cdef double due                # monotonic s: when the next search may be,
    cdef double theirs_due         # and the next look at namespaces that are not ours
    cdef double checked            # when it was last seen to that all are there
    cdef readonly set skipped      # namespaces that are left out, or may not be entered
    cdef uint64_t before           # foreign datagrams of those that are gone
    cdef dict aside                # {inode: monotonic s until which it is not looked at}
    cdef object lookout            # a NamespaceFinder
    cdef bint diag
    cdef Opener opener
    cdef bint changed
    cdef object poll
    cdef object homes_poll
    cdef object lock
    cdef object thread
    cdef readonly object failure
    cdef int homes_fd
    cdef int wake
    cdef int answer
    cdef int pid

    # What was found since the last call; the caller's. NULL: nothing new.
    cdef namespace_map_t *take(self) noexcept nogil
    # Whether something about a home has changed that take() does not have yet.
    cdef bint is_behind(self) noexcept nogil
    # Has a round begin now, and waits for its end, for so many ms at most; False if that was too short. search: also
    # for new namespaces.
    cdef bint ask(self, bint search, int patience) noexcept nogil
    cdef int _post(self) except -1
    cdef WatchedNamespace _worst(self)
    cdef void _close(self) noexcept nogil
