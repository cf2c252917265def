"""Read command lines of processes in a helper process, so that reading one can be given up."""
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from nfct_fast.processes.cmdline_helper cimport cmdline_request, helper
from posix_pthread cimport pthread_mutex_t

cdef enum:
    CMDLINES_UNKNOWN_USER = -1   # value of cmdline_t.user if the user is not known
    CMDLINES_DEFERRED = 128      # entries; no more can time out in 10 s, unless a deadline is below 2 ms

# A request, and its result.
cdef struct cmdline_t:
    int dirfd                # a descriptor of /proc/PID (O_PATH will do), open until finish()
    int32_t pid
    uint64_t start           # start time in clock ticks; with pid it identifies the process
    uint64_t user            # real uid; processes with CMDLINES_UNKNOWN_USER count as one user's
    uint64_t known           # size of the command line if it is known, else 0
    char *buf
    uint32_t limit           # most bytes of the command line to read into buf
    ssize_t size             # result: bytes in buf, without the final NUL, or -errno
    uint64_t full_size       # result: size of the whole command line, without the final NUL

# A process (id: pid) or user (id: uid, start 0) that kept the helper waiting.
cdef struct deferred_one_t:
    uint64_t id
    uint64_t start
    int64_t until            # CLOCK_MONOTONIC ns before which it is not read

cdef struct deferred_t:
    int count
    deferred_one_t at[CMDLINES_DEFERRED]

# Any thread may call any method; each waits for the others.
cdef class CommandLineReader:
    cdef helper _helper
    cdef pthread_mutex_t _mutex
    cdef bint _mutex_made
    cdef cmdline_request _ask
    cdef int64_t _defer_ns
    cdef int64_t _credit             # ns that may be spent on waiting; negative if overdrawn
    cdef int64_t _credited_at        # CLOCK_MONOTONIC ns at which _credit was last replenished
    cdef deferred_t _processes       # processes that kept the helper waiting
    cdef deferred_t _users           # users whose processes kept the helper waiting
    cdef readonly uint64_t asked, answered, given_up, late, refused, failed, restarted

    # begin() sends the request without waiting, so that the caller can do other work before finish(), which has to be
    # called by the same thread. deadline: ns to wait in finish(), at most 20 ms, which 0 stands for. The size may be
    #   -ETIMEDOUT  no reply in time
    #   -EAGAIN     not read: the process, its user or everyone is deferred for a while, or no helper may be started
    #   another -errno from reading the process or from starting a helper
    cdef void begin(self, cmdline_t *one) noexcept nogil
    cdef void finish(self, cmdline_t *one, int64_t deadline) noexcept nogil
