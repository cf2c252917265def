from libc.stdint cimport int64_t

cdef object sink_error(int result)       # the OSError for a -errno that Sink.put() returned

cdef class Sink:
    cdef int fd                  # written to
    cdef int reopened_fd         # equal to `fd` if the sink has opened that anew and must close it; else -1
    cdef int stop_fd             # readable once the program was asked to end; -1: none
    cdef bint chunked            # writes may block: poll first, and write at most PIPE_ATOMIC bytes
    cdef int64_t deadline        # CLOCK_MONOTONIC ms when writing is given up; 0 until the program was asked to end
    cdef size_t written          # bytes written by the last put()
    # Wait until fd is writable: 0, -EINTR once if asked to end, -ETIMEDOUT after the deadline, or -errno.
    cdef int wait(self) noexcept nogil
    # Write all of data; 0 or -errno. -EPIPE: the reader is gone. -ETIMEDOUT: the deadline has passed. -EINTR, once: the
    # program was asked to end meanwhile, so handle that and call again. `written` says how much was written.
    cdef int put(self, const char *data, size_t length) noexcept nogil
    # Try once more, within LAST_MS, to write a few bytes; whether it succeeded.
    cdef bint put_last(self, const char *data, size_t length) noexcept nogil
