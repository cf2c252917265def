from nfct_fast.processes.cgroup cimport span_t
from nfct_fast.text.text_buffer cimport text_buffer_t
from nfct_fast.records.presentation cimport Presentation
from nfct_fast.records.record cimport record_t

# Return the number of the field with that name, such as "ev.src"; -1 if there is none.
cdef int field_find(str name)
# Append one field of a record as text.
cdef void field_put(text_buffer_t *out, const record_t *record, int field, Presentation presentation) noexcept nogil
# Whether the field is the same for all flows of one process, provided that its user and group ids are known.
cdef bint field_is_of_process(int field) noexcept nogil
# Whether the field says something of several flows only.
cdef bint field_is_of_merged(int field) noexcept nogil
# Whether the field is a name of others' choice, as it is, where field_put() escapes it; size 0 if it is not known.
cdef bint field_name(const record_t *record, int field, span_t *out) noexcept nogil
