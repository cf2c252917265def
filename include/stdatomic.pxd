"""Words that one thread writes and others read without a lock: what looks like a plain read or write is atomic in C."""
from libc.stdint cimport uint64_t

cdef extern from "<stdatomic.h>" nogil:
    ctypedef bint atomic_bool "atomic_int"
    ctypedef int atomic_int
    ctypedef uint64_t atomic_uint64_t "_Atomic uint64_t"
