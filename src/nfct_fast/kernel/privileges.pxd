# Have execve gain nothing for good, in the calling thread. Raise OSError.
cdef int no_new_privileges() except -1
