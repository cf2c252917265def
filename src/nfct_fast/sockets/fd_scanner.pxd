"""Find the processes that hold a socket, given its inode, by the links in /proc/PID/fd."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from nfct_fast.sockets.socket_holders cimport HOLDERS_MAX, holder_t, holders_t

cdef enum:    # holders_t.stage: which stage of the search found the holder
    STAGE_CACHE = 1          # a cached holder, which one readlink confirmed
    STAGE_RECENT = 2         # the processes that held recently found sockets
    STAGE_LIKELY = 3         # the caller's likely_pids
    STAGE_UID = 4            # the processes of the socket's user
    STAGE_REST = 5           # all other processes

# A cached holder.
cdef struct known_t:
    uint64_t inode           # inode of the socket; 0: unused entry
    int32_t pid
    int32_t fd               # the descriptor by which the process holds the socket
    uint8_t exclusive        # the process's relatives were checked, and none of them holds the socket

# A cached search that found no holder.
cdef struct negative_t:
    uint64_t inode           # inode of the socket; 0: unused entry
    int64_t until            # CLOCK_MONOTONIC ns at which the entry expires
    int32_t answer           # return value of the search: 0 or -errno
    uint8_t exiting          # holders_t.exiting as the search set it

# A process that a search has scanned or skipped.
cdef struct visit_t:
    int32_t pid
    uint32_t search          # number of the search (FdScanner._search)

# A process that held a recently found socket, and under which descriptor.
cdef struct recent_t:
    int32_t pid
    int32_t fd

# Whether the process still holds the socket under that descriptor. Takes one readlink, 4 us.
cdef bint scanner_holds(FdScanner scanner, const holder_t *holder, uint64_t inode) noexcept nogil

# One caller at a time.
cdef class FdScanner:
    cdef int _root                   # O_PATH descriptor of the proc mount
    cdef known_t *_known
    cdef negative_t *_negatives
    cdef visit_t *_visits            # processes that the current search has scanned
    cdef visit_t *_other_users       # processes that the current search knows to be another user's
    cdef int32_t *_pids              # all processes, in ascending order
    cdef uint32_t _pids_room         # allocated size of _pids
    cdef uint32_t _search            # number of the current search
    cdef recent_t _recent[8]         # latest first
    cdef bint _has_fd_counts         # the size of /proc/PID/fd is the number of descriptors (since Linux 6.2)
    cdef double _rate                # seconds of processor time allowed per second
    cdef int64_t _tokens             # ns of processor time that are left; negative if overdrawn
    cdef int64_t _charged_until      # the thread's processor time, ns, up to which it was taken from _tokens
    cdef int64_t _burst              # upper limit of _tokens
    cdef int64_t _refilled_at        # CLOCK_MONOTONIC ns
    cdef bint _refilling             # the tokens were used up: wait until a quarter of _burst is there again
    cdef int64_t _negative_ttl       # ns for which a negative entry is trusted
    cdef uint64_t _unfinished        # inode of the last search if the budget cut it short, else 0
    cdef readonly uint64_t scanned_processes, scanned_fds
    cdef readonly uint64_t budget_exhausted      # how often the budget stopped a search

    # Find the processes that hold the socket. `likely_pids`: n processes to scan first. Return out.count if there are
    # any, 0 if there are none, -EAGAIN if the budget is exhausted, -EACCES if none was found but some processes could
    # not be scanned (out.denied). Blocks while it scans, at most for as long as the budget allows.
    cdef int find(self, uint64_t inode, uint32_t uid, bint uid_known, const int32_t *likely_pids, int n,
                  holders_t *out) noexcept nogil
    # Find all holders by scanning every process, whatever the budget. Takes milliseconds to seconds.
    cdef int find_all(self, uint64_t inode, holders_t *out) noexcept nogil
