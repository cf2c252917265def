"""A lock that C code takes without the GIL."""
from posix_pthread cimport pthread_mutex_t

# Initialize a mutex with priority inheritance: its holder runs at the priority of the highest thread that waits for it.
# Return False if memory is exhausted.
cdef bint mutex_make(pthread_mutex_t *mutex) noexcept nogil
