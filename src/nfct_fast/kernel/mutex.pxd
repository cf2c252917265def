"""A lock that C code takes without the GIL."""
from posix_pthread cimport pthread_mutex_t

# Initialize with priority inheritance: a thread that keeps one of real-time priority waiting runs at that priority
# meanwhile. False without memory.
cdef bint mutex_make(pthread_mutex_t *mutex) noexcept nogil
