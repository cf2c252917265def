from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from nfct_fast.output.record_writer cimport RecordWriter
from nfct_fast.processes.process cimport process_t
from nfct_fast.records.owner cimport owner_t
from nfct_fast.records.record cimport record_t
from nfct_fast.records.taken_records cimport TakenRecords

cdef enum:
    AGGREGATED_USERS = 256       # groups of users whose flows are counted together
    AGGREGATED_PROCESSES = 256

# What the flows of a group have in common.
ctypedef struct group_key_t:
    uint8_t addresses[64]    # source and destination of both directions
    uint64_t netns_inode
    uint64_t owner           # owner_digest()
    uint64_t peer
    uint32_t mark
    uint32_t zone
    uint16_t dport
    uint16_t reply_sport
    uint16_t has             # those FLOW_* that say what is known
    uint8_t family
    uint8_t proto
    uint8_t icmp_type
    uint8_t icmp_code
    uint8_t type
    uint8_t outcome
    uint8_t direction
    uint8_t is_responder

# Flows that differ only in the source port and in what the entry was in; number 0 is none.
ctypedef struct group_t:
    record_t record          # of the first of them, with the sums of all
    group_key_t key
    int64_t opened           # CLOCK_MONOTONIC ns when the first of them was taken
    uint32_t next            # in its bucket, or of those that are free
    uint32_t newer           # of all
    uint32_t older
    uint32_t user_newer      # of the same group of users
    uint32_t user_older
    uint16_t user

ctypedef struct group_user_t:
    uint32_t oldest
    uint32_t newest
    uint32_t count
    uint64_t bytes           # of processes

cdef class Aggregator(RecordWriter):
    cdef RecordWriter writer
    cdef TakenRecords due        # records that are handed to `writer` next, in memory of this object
    cdef TakenRecords nothing    # no records
    cdef int64_t window          # ns
    cdef int64_t hold            # ns after which a group is written though nothing came; 0: never
    cdef bint closing            # all are written as soon as possible
    cdef uint64_t key[2]
    cdef group_t *groups         # not touched before it is needed
    cdef uint32_t *buckets
    cdef uint32_t capacity
    cdef uint32_t used           # groups[1..used] were used already
    cdef uint32_t free
    cdef uint32_t oldest
    cdef uint32_t newest
    cdef group_user_t users[AGGREGATED_USERS]
    cdef process_t *processes[AGGREGATED_PROCESSES]      # kept last, by pid, a reference each
    cdef readonly uint32_t count         # groups
    cdef readonly uint64_t bytes         # of processes that they keep
    cdef readonly uint64_t early         # groups that were written early, to make room
    cdef uint64_t bytes_limit
    cdef void _work(self, TakenRecords batch) noexcept nogil
    cdef void _hand_over(self, uint32_t number) noexcept nogil
    cdef void _take(self, record_t *record, int64_t now) noexcept nogil
    cdef void _open(self, uint32_t *bucket, const group_key_t *key, record_t *record, int64_t now) noexcept nogil
    cdef bint _make_room(self) noexcept nogil
    cdef void _make_key(self, const record_t *record, group_key_t *out) noexcept nogil
    cdef uint32_t *_bucket(self, const group_key_t *key) noexcept nogil
    cdef uint16_t _group(self, uint64_t identity) noexcept nogil
    cdef uint16_t _user_of(self, const record_t *record) noexcept nogil
    cdef process_t *_same(self, process_t *process) noexcept nogil
    cdef void _hold(self, process_t *process, int by) noexcept nogil
    cdef void _hold_owner(self, const owner_t *owner, int by) noexcept nogil
