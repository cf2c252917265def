from libc.stdint cimport int32_t, int64_t, uint16_t
from nfct_fast.processes.process cimport process_t

cdef extern from "nfct_fast/text/pattern.h" nogil:
    struct pattern_step:
        pass
    struct pattern:
        const pattern_step *steps
        const unsigned char *sets
        const unsigned char *begins
        int count
        int is_anchored
        int has_secret
    struct pattern_room:
        void *memory
        int64_t budget
    struct pattern_match:
        int32_t begin
        int32_t end
        int32_t next
        int32_t unfinished

cdef class Redactor:
    cdef pattern *_patterns
    cdef int _count
    cdef pattern_room _room
    cdef bint _hides             # no command line is shown at all
    cdef list _programs          # what `_patterns` points into
    cdef int _mark(self, const char *text, size_t size, bint is_cut, char *marks) noexcept nogil
    cdef process_t *_redacted(self, process_t *process) noexcept nogil
    # Replace a reference by one to the process as it may be shown: NULL without memory. For one thread at a time.
    cdef void show(self, process_t **process) noexcept nogil
