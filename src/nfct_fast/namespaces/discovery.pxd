"""Find the network namespaces of this host and follow their changes, in a thread of its own."""
from libc.stdint cimport uint64_t
from stdatomic cimport atomic_bool, atomic_uint64_t

from nfct_fast.kernel.wakeup cimport Wakeup
from nfct_fast.namespaces.namespace_map cimport namespace_map_t
from nfct_fast.namespaces.opener cimport Opener
from nfct_fast.namespaces.watched_namespace cimport WatchedNamespace

cdef class Discovery:
    cdef readonly dict namespaces  # {inode: WatchedNamespace}
    cdef readonly list monitored   # monitored namespaces by number, WatchedNamespace; None: the number is free
    cdef namespace_map_t *new_map  # the latest map, until take() exchanges it for NULL; atomic
    cdef atomic_uint64_t requested # number of rounds requested by run_round()
    cdef atomic_uint64_t completed # value of `requested` when the last complete round began
    cdef atomic_bool is_stale      # addresses of a monitored namespace have changed, and new_map lacks the change
    cdef atomic_bool search_wanted # search for new namespaces as soon as search_due permits
    cdef atomic_bool stopping      # stop() was called
    cdef readonly int limit        # most namespaces besides the monitored ones
    cdef readonly double ttl       # least seconds between two searches
    cdef double search_due         # monotonic seconds before which there is no search
    cdef double users_due          # monotonic seconds before which users' namespaces are not read
    cdef double checked_at         # monotonic seconds at which the paths of all namespaces were last checked
    cdef readonly set skipped      # inodes of namespaces left out: too large, too many, or they may not be entered
    cdef uint64_t closed_spoofed   # spoofed datagrams received in namespaces that were removed since
    cdef dict deferred             # {inode: monotonic s until which it is not entered again}
    cdef object finder             # a NamespaceFinder
    cdef bint diag                 # whether to open a sock_diag socket in each namespace
    cdef Opener opener
    cdef bint changed              # `namespaces` differ from the last map
    cdef object poll               # epoll of `wake` and all namespaces
    cdef object monitored_poll     # epoll of our own monitored namespaces, for is_behind()
    cdef int monitored_fd          # descriptor of monitored_poll
    cdef object lock               # held during round(), monitor() and stop_monitoring()
    cdef object thread
    cdef readonly object failure   # the exception that ended the thread, or None
    cdef Wakeup wake               # asks the thread to begin a round
    cdef Wakeup done               # signals that a round has ended
    cdef int pid                   # id of the process that made this object

    # Return the map if it has changed since the last call, else NULL. It then belongs to the caller.
    cdef namespace_map_t *take(self) noexcept nogil
    # Whether a monitored namespace has changed in a way that take() does not show yet.
    cdef bint is_behind(self) noexcept nogil
    # Have the thread begin a round, and wait for its end for up to timeout_ms. Return False on a timeout. search: also
    # search for new namespaces.
    cdef bint run_round(self, bint search, int timeout_ms) noexcept nogil
    cdef int _publish(self) except -1
    cdef WatchedNamespace _least_needed(self)
