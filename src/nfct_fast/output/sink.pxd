from libc.stdint cimport int64_t

cdef object sink_error(int result)       # the OSError for what Sink.put returned

cdef class Sink:
    cdef int fd
    cdef int reopened_fd                 # the same, opened anew; or -1
    cdef int stop_fd
    cdef bint chunked
    cdef int64_t deadline
    cdef size_t written          # by the last put
    cdef int _wait(self) noexcept nogil
    cdef int put(self, const char *data, size_t length) noexcept nogil
    cdef bint put_last(self, const char *data, size_t length) noexcept nogil
