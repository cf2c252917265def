from libc.stdint cimport int64_t, uint8_t, uint16_t
from nfct_fast.events.flow cimport flow_t, tuple_t
from nfct_fast.processes.process_texts cimport process_text_t
from nfct_fast.records.owner cimport owner_t
from nfct_fast.records.presentation cimport Presentation
from nfct_fast.text.text_buffer cimport text_buffer_t

# The part of a time up to the second, which is kept for the second.
ctypedef struct json_clock_t:
    char text[24]
    size_t size              # bytes in `text`; 0: nothing is kept yet
    int64_t second           # since the epoch

# Parts of an object that --json and --schema ecs have in common; `key` is what opens a value, with a string's quote.
# A time, ns since the epoch, as ISO 8601 in UTC with nanoseconds.
cdef void time_json(text_buffer_t *out, const char *key, json_clock_t *clock, int64_t time) noexcept nogil
cdef void community_id_json(text_buffer_t *out, const char *key, const tuple_t *tuple, uint16_t seed) noexcept nogil
# Status, numbers, state and namespace of the conntrack entry, as far as they are known.
cdef void entry_json(text_buffer_t *out, const flow_t *flow) noexcept nogil
# Whether it was recovered, or forgotten, and what it is the first of: first_seen as in record_t.
cdef void marks_json(text_buffer_t *out, const flow_t *flow, uint8_t first_seen) noexcept nogil

# What it says of all its flows, if it stands for several. began: as in record_t.
cdef void merged_json(text_buffer_t *out, const flow_t *flow, int64_t began) noexcept nogil

# Write a time, ns since the epoch, and what is the same in all lines.
cdef void stamp_json(text_buffer_t *out, json_clock_t *clock, int64_t time, Presentation presentation) noexcept nogil

# Write a flow as a JSON object. began and first_seen: as in record_t; stamp: what stamp_json() wrote of its time;
# texts: as for owner_json().
cdef void flow_json(text_buffer_t *out, const flow_t *flow, int64_t began, uint8_t direction, uint8_t first_seen,
                    const owner_t *owner, const owner_t *peer, const text_buffer_t *stamp, process_text_t *texts,
                    Presentation presentation) noexcept nogil
