"""Command lines of processes, read where it may be given up: in a helper process."""
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from nfct_fast.processes.cmdline_helper cimport cmdline_ask, helper
from posix_pthread cimport pthread_mutex_t

cdef enum:
    CMDLINES_NOBODY = -1     # cmdline_t.user that is not known
    CMDLINES_ASIDE = 128     # more than can be waited for in vain in 10 s, but for deadlines of less than 2 ms

# What is wanted, and what came of it.
cdef struct cmdline_t:
    int dirfd                # /proc/PID, also O_PATH; open until finish()
    int32_t pid
    uint64_t start           # of the process: with pid, who it is
    uint64_t user            # whose it is: the real uid; all those of unknown ones are one user's
    uint64_t known           # bytes of the whole if it is known, else 0
    char *buf
    uint32_t limit           # bytes that are kept
    ssize_t size             # bytes in buf without the last NUL, or -errno
    uint64_t whole           # bytes of it all

cdef struct aside_one_t:
    uint64_t id
    uint64_t start
    int64_t until            # CLOCK_MONOTONIC ns

cdef struct aside_t:
    int count
    aside_one_t at[CMDLINES_ASIDE]

# Any thread may call any method; each waits for the others.
cdef class CommandLineReader:
    cdef helper _helper
    cdef pthread_mutex_t _mutex
    cdef bint _mutex_made
    cdef cmdline_ask _ask
    cdef int64_t _aside_ns
    cdef int64_t _credit, _reckoned          # ns that may be waited, and when that was so
    cdef aside_t _processes, _users          # that kept helpers waiting
    cdef readonly uint64_t asked, answered, given_up, late, refused, failed, restarted

    # begin() asks and does not wait: there is time for other reading until finish(), which has to follow, in the same
    # thread. `deadline`: ns to wait from then on, 20 ms if 0 or more. What may come of it: -ETIMEDOUT  not answered in
    # time -EAGAIN     not asked for: it, its user or all are put aside for a while; or no helper may be started else
    # the kernel's, for this process or for a helper
    cdef void begin(self, cmdline_t *one) noexcept nogil
    cdef void finish(self, cmdline_t *one, int64_t deadline) noexcept nogil
