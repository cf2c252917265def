"""A table of /proc/net, read in large chunks into rows hashed by local port and remote side."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

# One row, all addresses as IPv6 ones: an IPv4 address is ::ffff:a.b.c.d.
cdef struct row_t:
    uint8_t src[16]
    uint8_t dst[16]
    uint64_t inode
    uint32_t uid
    uint32_t next        # in the same hash chain: index + 1, 0 at the end
    uint16_t sport       # raw: the protocol; ping: the ICMP id
    uint16_t dport
    uint8_t state
    uint8_t bound        # the local address is a real one
    uint8_t connected    # the remote address is a real one
    uint8_t v4_only      # row of an IPv4 table

cdef struct table_t:
    row_t *rows
    uint32_t *heads
    uint32_t count
    uint32_t room        # rows
    uint32_t mask        # heads - 1
    int32_t error        # why it could not be read, negated; 0
    int64_t loaded_at    # CLOCK_MONOTONIC, ns, before the first byte was read; 0 never
    int64_t cost         # ns the last reading took

cdef enum:
    FORM_V6 = 1
    FORM_ICMP = 2

# fd: of the table, which is closed, or the -errno of its opening.
cdef void table_load(table_t *table, int fd, int form, int64_t now) noexcept nogil
cdef void table_free(table_t *table) noexcept nogil


cdef inline void as_mapped(uint8_t *out, const void *v4) noexcept nogil:
    memset(out, 0, 10)
    out[10] = out[11] = 0xff
    memcpy(out + 12, v4, 4)


# A chain holds the rows of one local port and remote side; dst NULL: those that are not connected.
cdef inline uint32_t row_hash(uint16_t sport, const uint8_t *dst, uint16_t dport) noexcept nogil:
    cdef uint64_t halves[2]
    cdef uint64_t hash = <uint64_t>sport << 16 | dport
    if dst != NULL:
        memcpy(halves, dst, 16)
        hash ^= halves[0] * <uint64_t>0x9e3779b97f4a7c15
        hash ^= halves[1] * <uint64_t>0xc2b2ae3d27d4eb4f
    hash *= <uint64_t>0xff51afd7ed558ccd
    return <uint32_t>(hash >> 32)
