from libc.stdint cimport uint8_t, uint16_t
from nfct_fast.events.flow cimport flow_t, tuple_t

cdef enum:
    COMMUNITY_ID_SIZE = 30       # "1:" and a SHA-1 in base64
    COMMUNITY_DIGEST_SIZE = 20

# Write the Community ID of a tuple to out[0..COMMUNITY_ID_SIZE).
cdef void community_id_write(const tuple_t *tuple, uint16_t seed, char *out) noexcept nogil
# Whether NAT gave the flow another Community ID on its other side: then it is that of flow.reply.
cdef bint community_id_differs(const flow_t *flow) noexcept nogil
# Write the SHA-1 in it to digest[0..COMMUNITY_DIGEST_SIZE).
cdef void community_id_digest(const tuple_t *tuple, uint16_t seed, uint8_t *digest) noexcept nogil
