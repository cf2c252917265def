"""Words that threads share without a lock."""
from libc.stdint cimport uint64_t

# What looks like a plain read or write of these is atomic in C.
cdef extern from "<stdatomic.h>" nogil:
    ctypedef bint atomic_bool "atomic_int"
    ctypedef int atomic_int
    ctypedef uint64_t atomic_uint64_t "_Atomic uint64_t"
    ctypedef void *atomic_pointer_t "_Atomic(void *)"

# Counts of references, in structs that are copied whole.
cdef extern from * nogil:
    enum: __ATOMIC_RELAXED
    enum: __ATOMIC_ACQ_REL
    int __atomic_add_fetch(int *value, int by, int order)
    int __atomic_sub_fetch(int *value, int by, int order)
