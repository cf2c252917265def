"""The text written for a process, kept for its next flow."""
from nfct_fast.processes.process cimport process_drop, process_take
from nfct_fast.text.text_buffer cimport buffer_free


cdef process_text_t *process_text_find(process_text_t *texts, const process_t *process) noexcept nogil:
    cdef process_text_t *slot = &texts[process.pid & (PROCESS_TEXTS - 1)]
    if slot.process != process:
        process_drop(slot.process)
        slot.process = NULL
        slot.text.length = 0
    return slot


cdef bint process_text_keep(process_text_t *slot, process_t *process) noexcept nogil:
    if slot.text.failed:
        slot.text.failed = False
        slot.text.length = 0
        return False
    slot.process = process_take(process)
    return True


cdef void process_texts_free(process_text_t *texts) noexcept nogil:
    cdef int i
    for i in range(PROCESS_TEXTS):
        process_drop(texts[i].process)
        buffer_free(&texts[i].text)
