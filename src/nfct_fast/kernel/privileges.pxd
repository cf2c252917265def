# Set no_new_privs in the calling thread, for good: execve gains no privileges from then on. OSError.
cdef int no_new_privileges() except -1
