"""Parse a socket table of /proc/net into rows hashed by local port and remote end."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

# One socket. IPv4 addresses are stored as IPv4-mapped IPv6 addresses, ::ffff:a.b.c.d.
cdef struct row_t:
    uint8_t src[16]      # local address
    uint8_t dst[16]      # remote address
    uint64_t inode       # 0: unknown
    uint32_t uid
    uint32_t next        # next row of the same hash chain, as its index + 1; 0 at the end
    uint16_t sport       # local port; of a raw socket its protocol, of a ping socket its ICMP id
    uint16_t dport       # remote port
    uint8_t state        # TCP_ESTABLISHED etc., as in the kernel's net/tcp_states.h
    uint8_t bound        # src is not the wildcard address
    uint8_t connected    # dst is not the wildcard address
    uint8_t v4_only      # from an IPv4 table, or bound to an IPv4-mapped address

cdef struct table_t:
    row_t *rows          # in the kernel's order
    uint32_t *heads      # first row of each hash chain, as its index + 1
    uint32_t count       # rows in use
    uint32_t room        # rows allocated
    uint32_t mask        # number of heads - 1
    int32_t error        # -errno if the table could not be read, else 0
    int64_t loaded_at    # CLOCK_MONOTONIC ns just before the first byte was read; 0: never read
    int64_t cost         # ns that the last reading took

cdef enum:
    FORM_V6 = 1          # an IPv6 table
    FORM_ICMP = 2        # a table of ping sockets

# Read a table again. `fd` is its descriptor, which is closed, or the -errno with which opening it failed. `now` is
# CLOCK_MONOTONIC ns.
cdef void table_load(table_t *table, int fd, int form, int64_t now) noexcept nogil
cdef void table_free(table_t *table) noexcept nogil


cdef inline void as_mapped(uint8_t *out, const void *v4) noexcept nogil:
    memset(out, 0, 10)
    out[10] = out[11] = 0xff
    memcpy(out + 12, v4, 4)


# The hash of a local port and remote end; dst NULL: of a socket that is not connected.
cdef inline uint32_t row_hash(uint16_t sport, const uint8_t *dst, uint16_t dport) noexcept nogil:
    cdef uint64_t halves[2]
    cdef uint64_t hash = <uint64_t>sport << 16 | dport
    if dst != NULL:
        memcpy(halves, dst, 16)
        hash ^= halves[0] * <uint64_t>0x9e3779b97f4a7c15
        hash ^= halves[1] * <uint64_t>0xc2b2ae3d27d4eb4f
    hash *= <uint64_t>0xff51afd7ed558ccd
    return <uint32_t>(hash >> 32)
