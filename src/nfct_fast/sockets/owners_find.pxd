from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from nfct_fast.processes.process_event cimport process_id, process_ring

cdef extern from "nfct_fast/sockets/task_offsets.h" nogil:
    struct task_types:
        const char *missing
    int task_types_read(task_types *out, const char *path)

cdef extern from "nfct_fast/sockets/owners_find.h" nogil:
    # What the program of a record did with the socket.
    enum: OWNERS_CREATE, OWNERS_CONNECT, OWNERS_SEND, OWNERS_ACCEPT, OWNERS_BIND

    # How a record fits the tuple: exactly, or apart from an unknown source address.
    enum: OWNERS_EXACT, OWNERS_NO_SOURCE

    enum: OWNERS_AGAIN, OWNERS_KERNEL

    struct owners_key:
        uint64_t src[2]
        uint64_t dst[2]
        uint16_t sport
        uint16_t dport
        uint8_t family
        uint8_t proto
        uint8_t hook
        uint8_t flags

    struct owners_who:
        uint64_t cgroup
        uint64_t time
        process_id id
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
        uint64_t retired
        uint64_t displaced
        uint64_t collided
        uint64_t limited
        uint64_t events_lost
        uint64_t lost_at
        uint64_t wakeups

    struct owners:
        uint32_t records[2]
        uint32_t buckets[2]
        uint32_t cookies
        bint retired
        uint64_t seed
        const uint32_t *port
        owners_state *state
        process_ring ring
        int maps[1]
        const char *step
        const char *program
        char log[1]

    struct owners_found:
        owners_record record
        uint64_t other_time
        uint8_t match

    enum: OWNERS_MAP_EVENTS, OWNERS_MAP_RECORDS, OWNERS_MAP_BUCKETS
    enum: OWNERS_GROWING_RECORDS, OWNERS_GROWING_BUCKETS
    void owners_init(owners *self)
    int owners_open(owners *self, int cgroup, uint32_t records, uint32_t larger, uint32_t cookies, bint packets,
                    const task_types *tasks)
    int owners_larger_map(int outer, unsigned int kind, uint32_t entries)
    int owners_take_larger(owners *self, unsigned int kind, int fd)
    void owners_switch(owners *self)
    uint64_t owners_grown_at(owners *self)
    void owners_retire(owners *self)
    void owners_retired(owners *self)
    uint64_t owners_written(const owners *self)
    void owners_close(owners *self)
    size_t owners_bytes(const owners *self)
    struct owners_probe:
        uint64_t netns
    void owners_prepare(const owners *self, const owners_key *key, uint64_t netns, owners_probe *out)
    int owners_lookup(const owners *self, const owners_probe *probe, owners_found *out)
    void owners_approach(const owners *self, const owners_probe *probes, int count)
    uint64_t owners_watch(owners *self, uint64_t cookie)
    bint owners_is_watched(const owners *self, uint64_t cookie, uint64_t watch_id)
    uint32_t owners_port(uint64_t netns, uint8_t proto, uint16_t port, uint64_t seed)
    enum: OWNERS_PORTS
    uint32_t owners_port_changes(const owners *self, uint64_t netns, uint8_t proto, uint16_t port)
    int owners_lookup_cookie(const owners *self, uint64_t cookie, owners_found *out)

cdef extern from "nfct_fast/sockets/owners_users.h" nogil:
    int owners_users(const owners *self, const owners_key *tuple, uint64_t netns, uint64_t since, uint64_t slack,
                     uint64_t until, owners_record *out)

cdef extern from "nfct_fast/sockets/owners_past.h" nogil:
    uint64_t owners_complete_since(const owners *self)
    int owners_past(const owners *self, const owners_key *tuple, uint64_t netns, uint64_t begin, uint64_t until,
                    owners_found *out)
