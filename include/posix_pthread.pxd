"""Mutexes: <pthread.h>."""
cdef extern from "nfct_fast/kernel/pthread_old.h" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_mutexattr_t:
        pass
    enum: PTHREAD_PRIO_INHERIT

    int pthread_mutexattr_init(pthread_mutexattr_t *attributes)
    int pthread_mutexattr_setprotocol(pthread_mutexattr_t *attributes, int protocol)
    int pthread_mutexattr_destroy(pthread_mutexattr_t *attributes)
    int pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)
