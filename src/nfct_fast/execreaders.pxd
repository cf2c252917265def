"""Threads that read a program before it runs."""
from .processcache cimport ProcessCache
from .readings cimport Readings

cdef class ExecReaders:
    cdef ProcessCache _cache
    cdef Readings _readings
    cdef object _settled
    cdef list _sockets
    cdef list _threads
    cdef int _stop               # eventfd
