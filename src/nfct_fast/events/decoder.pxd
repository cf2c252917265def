from libc.stdint cimport int64_t, uint16_t
from libnetfilter_conntrack cimport nf_conntrack
from nfct_fast.events.flow cimport flow_t

cdef struct _decoding:
    nf_conntrack *object
    nf_conntrack *empty
    flow_t *out
    int room
    int count
    int64_t time
    uint16_t netns
    int errors
    bint by_library          # decode every message by the library, never by direct_decode()

cdef class FlowDecoder:
    cdef _decoding state
    cdef bint ended              # the last datagram had the end of a dump, or the kernel's refusal of it
    cdef bint interrupted        # the last datagram said that the table changed during the dump (NLM_F_DUMP_INTR)
    cdef int decode(self, const void *buffer, size_t length, flow_t *out, int room, int64_t time,
                    uint16_t netns) noexcept nogil
