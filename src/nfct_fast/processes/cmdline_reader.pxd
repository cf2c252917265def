"""Reads command lines of processes in a helper process, so that reading one can be given up."""
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from nfct_fast.processes.cmdline_helper cimport cmdline_ask, helper
from posix_pthread cimport pthread_mutex_t

cdef enum:
    CMDLINES_UNKNOWN_USER = -1   # cmdline_t.user that is not known
    CMDLINES_DEFERRED = 128      # more than can time out in 10 s, unless a deadline is below 2 ms

# A request and its result.
cdef struct cmdline_t:
    int dirfd                # a descriptor of /proc/PID, also O_PATH; open until finish()
    int32_t pid
    uint64_t start           # start time in clock ticks; with pid it identifies the process
    uint64_t user            # real uid; CMDLINES_UNKNOWN_USER: all of them count as one user's
    uint64_t known           # size of the command line, if it is known, else 0
    char *buf
    uint32_t limit           # bytes to keep
    ssize_t size             # result: bytes in buf without the last NUL, or -errno
    uint64_t whole           # result: size of the command line without the last NUL

# A process (id: pid) or user (id: uid, start 0) that kept the helper waiting.
cdef struct deferred_one_t:
    uint64_t id
    uint64_t start
    int64_t until            # CLOCK_MONOTONIC ns: not read before

cdef struct deferred_t:
    int count
    deferred_one_t at[CMDLINES_DEFERRED]

# Any thread may call any method; each waits for the others.
cdef class CommandLineReader:
    cdef helper _helper
    cdef pthread_mutex_t _mutex
    cdef bint _mutex_made
    cdef cmdline_ask _ask
    cdef int64_t _defer_ns
    cdef int64_t _credit             # ns that may be spent on waiting
    cdef int64_t _credited_at        # CLOCK_MONOTONIC ns: up to when _credit was replenished
    cdef deferred_t _processes       # that kept the helper waiting
    cdef deferred_t _users           # whose processes kept it waiting
    cdef readonly uint64_t asked, answered, given_up, late, refused, failed, restarted

    # begin() sends the request and does not wait, so that the caller can read other things until finish(), which has to
    # follow in the same thread. deadline: ns to wait from then on, 20 ms at most and by default (0). The result may be
    #   -ETIMEDOUT  no reply in time
    #   -EAGAIN     not read: the process, its user or all are deferred for a while, or no helper may be started
    #   another -errno of the kernel's, for this process or for a helper
    cdef void begin(self, cmdline_t *one) noexcept nogil
    cdef void finish(self, cmdline_t *one, int64_t deadline) noexcept nogil
