"""A lock that C code takes without the GIL."""
from posix_pthread cimport pthread_mutex_t

# Whoever keeps a thread of real-time priority waiting runs with its priority. False without memory.
cdef bint mutex_make(pthread_mutex_t *mutex) noexcept nogil
