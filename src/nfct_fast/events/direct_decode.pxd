from libc.stdint cimport int64_t, uint8_t
from nfct_fast.events.flow cimport flow_t

# Decode a conntrack message of the usual form, of `length` bytes including its header, into `out`, which must be
# zeroed. Fills in everything but type, time and netns. Return False if the message has another form or is damaged; the
# contents of `out` are then undefined.
cdef bint direct_decode(const uint8_t *message, size_t length, flow_t *out) noexcept nogil

# Return when the kernel made the event of such a message, ns since the epoch; 0 if it does not say (before Linux 6.14,
# or with nf_conntrack_timestamp=0). libnetfilter_conntrack knows this attribute only from 1.1.1 on.
cdef int64_t event_time(const uint8_t *message, size_t length) noexcept nogil

# Return the ICMP type that answers this one; the type itself if none does.
cdef uint8_t icmp_answer(uint8_t proto, uint8_t type) noexcept nogil
