"""A lock that C code takes without the GIL."""
from posix_pthread cimport (PTHREAD_PRIO_INHERIT, pthread_mutex_init, pthread_mutex_t, pthread_mutexattr_destroy,
                            pthread_mutexattr_init, pthread_mutexattr_setprotocol, pthread_mutexattr_t)


cdef bint mutex_make(pthread_mutex_t *mutex) noexcept nogil:
    cdef pthread_mutexattr_t attributes
    cdef bint made
    if pthread_mutexattr_init(&attributes) != 0:
        return False
    pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT)    # if this fails, threads only wait longer
    made = pthread_mutex_init(mutex, &attributes) == 0
    pthread_mutexattr_destroy(&attributes)
    return made
