"""What was written of a process, kept for its next flow: formatting that is half of what a line costs."""
from nfct_fast.processes.process cimport process_t
from nfct_fast.text.text_buffer cimport text_buffer_t

cdef enum:
    PROCESS_TEXTS = 16       # processes whose text is kept, by pid

ctypedef struct process_text_t:
    process_t *process       # a reference, so that its address is not reused; NULL: nothing is kept here
    text_buffer_t text

# The slot of a process. Where slot.process is NULL, write into slot.text, which is empty, and call process_text_keep().
cdef process_text_t *process_text_find(process_text_t *texts, const process_t *process) noexcept nogil
# Keep what was written into the slot; False if memory ran out: then it has to be written elsewhere.
cdef bint process_text_keep(process_text_t *slot, process_t *process) noexcept nogil
cdef void process_texts_free(process_text_t *texts) noexcept nogil
