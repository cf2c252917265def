from libc.stdint cimport uint16_t
from nfct_fast.events.flow cimport flow_t, tuple_t

cdef enum:
    COMMUNITY_ID_SIZE = 30       # "1:" and a SHA-1 in base64

# Write the Community ID of a tuple to out[0..COMMUNITY_ID_SIZE).
cdef void community_id_write(const tuple_t *tuple, uint16_t seed, char *out) noexcept nogil
# Whether NAT gave the flow another Community ID on its other side: then it is that of flow.reply.
cdef bint community_id_differs(const flow_t *flow) noexcept nogil
