from libc.stdint cimport int32_t, uint64_t
from nfct_fast.processes.identity cimport Identity
from nfct_fast.processes.process cimport process_t
from nfct_fast.processes.process_texts cimport process_text_t
from nfct_fast.text.text_buffer cimport text_buffer_t

# Write what is known of a process, in at most PROCESS_ROOM bytes, without braces.
cdef void process_json(text_buffer_t *out, const process_t *process, Identity identity) noexcept nogil
# The same, kept in `texts` for the next time.
cdef void process_json_kept(process_text_t *texts, text_buffer_t *out, process_t *process,
                            Identity identity) noexcept nogil
# Write the entity id of a process that started `ticks` after boot, and with `start` when that was.
cdef void identity_json(text_buffer_t *out, int32_t pid, uint64_t ticks, bint start, Identity identity) noexcept nogil
