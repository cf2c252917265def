"""A cache of living processes by pid. Each slot holds one process; another one in the same slot replaces it.

Every get() validates its entry by one read of /proc/PID/stat and one stat(2) of /proc/PID. A different start time means
another process with the same pid. A different name, different effective ids or different addresses of code, stack and
arguments, which execve randomizes, mean another program in the same process. Changes that this does not notice (a title
written over the arguments, a move to another cgroup) are seen after `max_age`.
"""
cimport cython
from libc.stdint cimport int32_t, int64_t, uint64_t

from posix_pthread cimport pthread_mutex_destroy, pthread_mutex_lock, pthread_mutex_unlock

from nfct_fast.kernel.mutex cimport mutex_make
from nfct_fast.processes.process cimport (
    PROCESS_ENDING, PROCESS_SAME, process_check, process_completed, process_drop, process_t, process_take,
)
from nfct_fast.processes.process_object cimport process_object
from nfct_fast.kernel.clock cimport monotonic_ns
from nfct_fast.processes.process_reader cimport ProcessReader


@cython.final
@cython.auto_pickle(False)
cdef class ProcessCache:
    """A cache of 4,096 processes, which any thread may use.

    Args:
        reader: The reader of processes that are not cached.
        max_age: Seconds after which a process is read again even if nothing seems to have changed.
    """

    def __cinit__(self, ProcessReader reader not None, double max_age=1.0):
        if not mutex_make(&self._mutex):
            raise MemoryError
        self._mutex_made = True
        self.reader = reader
        self._max_age = <int64_t>(max_age * 1e9)

    def __dealloc__(self):
        cdef int i
        for i in range(CACHED):
            process_drop(self._cached[i].process)
        if self._mutex_made:
            pthread_mutex_destroy(&self._mutex)

    cdef process_t *get(self, int32_t pid) noexcept nogil:
        cdef cached_t *cached = &self._cached[<uint64_t>pid & (CACHED - 1)]
        cdef int64_t now = monotonic_ns()
        cdef process_t *process = NULL
        cdef process_t *known
        cdef int64_t read_at = 0
        cdef int state
        pthread_mutex_lock(&self._mutex)
        if cached.process != NULL and cached.process.pid == pid:
            process, read_at = process_take(cached.process), cached.read_at
        pthread_mutex_unlock(&self._mutex)
        if process != NULL:
            state = process_check(self.reader._root, process)
            # An exiting process cannot be read again, and what is known of it stays true.
            if state == PROCESS_ENDING or state == PROCESS_SAME and now - read_at < self._max_age:
                self.hits += 1
                return process
            if state < 0:
                process_drop(process)
                return NULL
        known = process
        process = process_completed(self.reader.read(pid), known)
        process_drop(known)
        self.reads += 1
        if process != NULL and process.pid == pid:
            pthread_mutex_lock(&self._mutex)
            process_drop(cached.process)
            cached.process, cached.read_at = process_take(process), now
            pthread_mutex_unlock(&self._mutex)
        return process

    def lookup(self, int32_t pid):
        """Return the living process with this pid, a `Process`, or None."""
        return process_object(self.get(pid))
