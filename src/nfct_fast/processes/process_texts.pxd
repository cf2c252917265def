"""The text written for a process, kept for its next flow, as formatting it takes half the time of a line."""
from nfct_fast.processes.process cimport process_t
from nfct_fast.text.text_buffer cimport text_buffer_t

cdef enum:
    PROCESS_TEXTS = 16       # processes whose text is kept, by pid

ctypedef struct process_text_t:
    process_t *process       # a reference, so that its address is not reused; NULL: unused slot
    text_buffer_t text

# Return the slot of a process. If slot.process is NULL, write to slot.text, which is empty, and call
# process_text_keep().
cdef process_text_t *process_text_find(process_text_t *texts, const process_t *process) noexcept nogil
# Keep the text written to the slot. Return False if memory is exhausted: it then has to be written elsewhere.
cdef bint process_text_keep(process_text_t *slot, process_t *process) noexcept nogil
cdef void process_texts_free(process_text_t *texts) noexcept nogil
