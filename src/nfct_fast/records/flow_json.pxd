from libc.stdint cimport int64_t, uint8_t
from nfct_fast.events.flow cimport flow_t
from nfct_fast.processes.process_texts cimport process_text_t
from nfct_fast.records.owner cimport owner_t
from nfct_fast.records.presentation cimport Presentation
from nfct_fast.text.text_buffer cimport text_buffer_t

# The part of a time up to the second, which is kept for the second.
ctypedef struct json_clock_t:
    char text[40]
    size_t size              # bytes in `text`; 0: nothing is kept yet
    int64_t second           # since the epoch

# Write a time, ns since the epoch, and what is the same in all lines.
cdef void stamp_json(text_buffer_t *out, json_clock_t *clock, int64_t time, Presentation presentation) noexcept nogil

# Write a flow as a JSON object. began and first_seen: as in record_t; stamp: what stamp_json() wrote of its time;
# texts: as for owner_json().
cdef void flow_json(text_buffer_t *out, const flow_t *flow, int64_t began, uint8_t direction, uint8_t first_seen,
                    const owner_t *owner, const owner_t *peer, const text_buffer_t *stamp, process_text_t *texts,
                    Presentation presentation) noexcept nogil
