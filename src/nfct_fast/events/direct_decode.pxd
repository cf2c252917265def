from libc.stdint cimport int64_t, uint8_t
from nfct_fast.events.flow cimport flow_t

# Decodes a conntrack message of `length` bytes, its header included, of the form the kernel gives nearly all of them:
# all but type, time and netns of `out`, which was zero before. False: it is of another form, or damaged, and `out`
# holds anything.
cdef bint direct_decode(const uint8_t *message, size_t length, flow_t *out) noexcept nogil

# When the kernel made the event of such a message, ns since the epoch; 0 if it does not say (before Linux 6.14, or with
# nf_conntrack_timestamp=0). libnetfilter_conntrack knows this attribute from 1.1.1 on only.
cdef int64_t event_time(const uint8_t *message, size_t length) noexcept nogil

# The ICMP type that answers this one; the type itself where none does.
cdef uint8_t icmp_answer(uint8_t proto, uint8_t type) noexcept nogil
