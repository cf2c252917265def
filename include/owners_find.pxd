from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "nfct_fast/owners_find.h" nogil:
    # How the record came about: who made, connected, sent on or bound the socket.
    enum: OWNERS_CREATE, OWNERS_CONNECT, OWNERS_SEND, OWNERS_BIND

    # How it fits the tuple: exactly; all but a source address that was not known; by its local port alone.
    enum: OWNERS_EXACT, OWNERS_NO_SOURCE, OWNERS_BOUND

    struct owners_key:
        uint64_t src[2]
        uint64_t dst[2]
        uint16_t sport
        uint16_t dport
        uint8_t family
        uint8_t proto
        uint8_t hook
        uint8_t again

    struct owners_who:
        uint64_t cgroup
        uint64_t time
        uint32_t tgid
        uint32_t tid
        uint32_t uid
        uint32_t gid
        char comm[16]

    struct owners_record:
        uint64_t cookie
        uint64_t netns
        owners_key key
        owners_who who

    struct owners_state:
        uint64_t head
        uint64_t displaced
        uint64_t collided

    struct owners:
        uint32_t records
        uint32_t buckets
        uint32_t cookies
        const owners_state *state
        const char *step
        const char *program
        char log[1]

    struct owners_found:
        owners_record record
        uint64_t other_time
        uint8_t match

    void owners_init(owners *self)
    int owners_open(owners *self, int cgroup, uint32_t records, uint32_t cookies, bint packets)
    void owners_close(owners *self)
    size_t owners_bytes(const owners *self)
    int owners_lookup(const owners *self, const owners_key *key, uint64_t netns, owners_found *out)
    void owners_prefetch(const owners *self, const owners_key *key)
    int owners_lookup_cookie(const owners *self, uint64_t cookie, owners_found *out)

cdef extern from "nfct_fast/owners_past.h" nogil:
    int owners_past(const owners *self, const owners_key *tuple, uint64_t netns, uint64_t begin, uint64_t until,
                    owners_found *out, uint64_t *first)
