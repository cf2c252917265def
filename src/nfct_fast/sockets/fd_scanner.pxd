"""inode -> the processes that hold the socket, by the links in /proc/PID/fd."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from nfct_fast.sockets.socket_holders cimport HOLDERS_MAX, holder_t, holders_t

cdef enum:    # holders_t.rung: where it was found
    RUNG_CACHE = 1           # known, and confirmed by one readlink
    RUNG_RECENT = 2          # a process that was the answer lately
    RUNG_CANDIDATES = 3      # one of those given
    RUNG_UID = 4             # a process of the socket's user
    RUNG_REST = 5            # any other

cdef struct known_t:
    uint64_t inode
    int32_t pid
    int32_t fd
    uint8_t alone            # its family was looked at: no other holder

cdef struct missing_t:
    uint64_t inode
    int64_t until
    int32_t answer
    uint8_t ending

cdef struct visit_t:
    int32_t pid
    uint32_t turn

cdef struct recent_t:
    int32_t pid
    int32_t fd

# Whether the process still has the socket under that fd: one readlink, 4 us.
cdef bint scanner_holds(FdScanner scanner, const holder_t *holder, uint64_t inode) noexcept nogil

# One caller at a time.
cdef class FdScanner:
    cdef int _root
    cdef known_t *_known
    cdef missing_t *_missing
    cdef visit_t *_visits    # processes that this search has looked into,
    cdef visit_t *_strangers # and those that are another user's
    cdef int32_t *_pids
    cdef uint32_t _pids_room, _turn
    cdef recent_t _recent[8]
    cdef bint _sized         # this kernel tells the number of fds as the size of /proc/PID/fd (6.2)
    cdef double _rate
    cdef int64_t _tokens, _burst, _refilled_at, _missing_ttl
    cdef bint _saving        # nothing is spent until there is more
    cdef uint64_t _unfinished    # the inode of the last search, if it was cut short
    cdef readonly uint64_t scanned_processes, scanned_fds, refused

    # How many hold it (out.count), 0: none, -EAGAIN: the bound on scanning is reached, -EACCES: none was found, but
    # some processes could not be looked into (out.denied). Blocks while it scans, at most for what the bound leaves.
    cdef int find(self, uint64_t inode, uint32_t uid, bint uid_known, const int32_t *candidates, int n,
                  holders_t *out) noexcept nogil
    # The same, looking into every process: all holders, if it takes milliseconds to seconds. Not bounded.
    cdef int find_all(self, uint64_t inode, holders_t *out) noexcept nogil
