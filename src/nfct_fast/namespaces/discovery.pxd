"""Finds the network namespaces of this host and follows them, in a thread of its own."""
from libc.stdint cimport uint64_t

from nfct_fast.kernel.wakeup cimport Wakeup
from nfct_fast.namespaces.namespace_map cimport namespace_map_t
from nfct_fast.namespaces.opener cimport Opener
from nfct_fast.namespaces.watched_namespace cimport WatchedNamespace

cdef class Discovery:
    cdef readonly dict namespaces  # {inode: WatchedNamespace}
    cdef readonly list monitored   # the monitored ones of these by number; None: the number is free
    cdef namespace_map_t *new_map  # the latest map, until take() exchanges it for NULL; atomic
    cdef uint64_t requested        # rounds requested by run_round(); atomic
    cdef uint64_t completed        # the value of `requested` when the last complete round began; atomic
    cdef bint is_stale             # addresses of a monitored namespace have changed, and new_map does not have that yet
    cdef bint search_wanted        # search for new namespaces when search_due permits
    cdef bint stopping             # stop() was called
    cdef readonly int limit        # namespaces besides the monitored ones, at most
    cdef readonly double ttl       # seconds between two searches, at least
    cdef double search_due         # monotonic s: no search before
    cdef double users_due          # monotonic s: no reading of users' namespaces before
    cdef double checked_at         # monotonic s: when the paths of all namespaces were last checked
    cdef readonly set skipped      # inodes of namespaces left out: too large, too many, or they may not be entered
    cdef uint64_t closed_foreign   # foreign datagrams of namespaces that were removed
    cdef dict deferred             # {inode: monotonic s until which it is not entered again}
    cdef object finder             # a NamespaceFinder
    cdef bint diag                 # open a sock_diag socket in each namespace
    cdef Opener opener
    cdef bint changed              # `namespaces` differ from the last map
    cdef object poll               # epoll of wake and all namespaces
    cdef object monitored_poll     # epoll of our own monitored namespaces, for is_behind()
    cdef int monitored_fd          # the descriptor of that
    cdef object lock               # held during a round, monitor() and stop_monitoring()
    cdef object thread
    cdef readonly object failure   # the exception that ended the thread, or None
    cdef Wakeup wake               # begin a round
    cdef Wakeup done               # a round has ended
    cdef int pid                   # the process that made this object

    # The map of all changes since the last call, which then belongs to the caller; NULL if nothing has changed.
    cdef namespace_map_t *take(self) noexcept nogil
    # Whether something in a monitored namespace has changed that take() does not return yet.
    cdef bint is_behind(self) noexcept nogil
    # Begin a round now and wait for its end, timeout_ms at most; False on a timeout. search: also search for new
    # namespaces.
    cdef bint run_round(self, bint search, int timeout_ms) noexcept nogil
    cdef int _publish(self) except -1
    cdef WatchedNamespace _least_needed(self)
