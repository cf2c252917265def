from libc.stdint cimport uint8_t
from nfct_fast.events.flow cimport flow_t

# Decode a conntrack message of the usual form, of `length` bytes including its header, into `out`, which must be
# zeroed. Fills in everything but type, time and netns. Return False if the message has another form or is damaged; the
# contents of `out` are then undefined.
cdef bint direct_decode(const uint8_t *message, size_t length, flow_t *out) noexcept nogil

# Return the ICMP type that answers this one; the type itself if none does.
cdef uint8_t icmp_answer(uint8_t proto, uint8_t type) noexcept nogil
