from nfct_fast.processes.identity cimport Identity
from nfct_fast.processes.process cimport process_t

cdef class Process:
    cdef process_t *_process
    cdef Identity _identity
    cdef Identity _host(self)

# Everything that is known of a process, as a tuple of values that can be compared, hashed and pickled; and back again:
# a new reference.
cdef tuple process_state(const process_t *process)
cdef process_t *process_restore(tuple state) except NULL

# Make a Process that takes over the caller's reference. None for NULL.
cdef object process_object(process_t *process, Identity identity=*)
