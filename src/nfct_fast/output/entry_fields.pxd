from nfct_fast.processes.cgroup cimport span_t
from nfct_fast.records.presentation cimport Presentation
from nfct_fast.records.record cimport record_t
from nfct_fast.text.text_buffer cimport text_buffer_t

cdef enum:
    ENTRY_FIELDS = 40        # at least as many as there are

# A field of a record that an entry of the journal or of syslog has beside its message.
cdef struct entry_field_t:
    int field                # a number from field_find()
    const char *name         # as in "owner_pid"
    int size

cdef int entry_fields(entry_field_t *out)        # fill in all of them, and return how many
# Write the field as it is, without any escaping; False if it is not known.
cdef bint entry_value(text_buffer_t *out, const record_t *record, int field, Presentation presentation) noexcept nogil
