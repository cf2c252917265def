"""Merge flows that differ only in the source port, between those who take records and those who write them.

A group is written once the time of a record is `window` after that of its first flow, so that a recording gives the
groups that there were; and where nothing comes, a little later by the clock. Groups are written in the order of their
first flows. When there is no room, whoever has most groups has the oldest of them written early: they are counted by
user, in groups of users that nobody can choose. Nothing is left out.
"""
cimport cython
from libc.errno cimport EINTR
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset
from nfct_fast.events.flow cimport (
    FLOW_COUNTERS, FLOW_FORGOTTEN, FLOW_MERGED, FLOW_RECOVERED, FLOW_REPLY, FLOW_START, FLOW_STOP, NUMBER_MARK,
    NUMBER_ZONE, flow_count, flow_t,
)
from nfct_fast.events.outcome cimport flow_outcome
from nfct_fast.kernel.clock cimport monotonic_ns
from nfct_fast.output.record_writer cimport writer_error
from nfct_fast.processes.process cimport process_drop, process_take
from nfct_fast.records.owner cimport owner_digest, owner_uid, process_digest
from nfct_fast.records.record cimport RECORD_LOSS, record_drop

import os

from nfct_fast.kernel.fork_guard import ForkGuard
from nfct_fast.records.ring import Ring

cdef extern from "nfct_fast/text/siphash.h" nogil:
    uint64_t nfct_fast_text_hash(const uint64_t *key, const char *data, size_t length)

cdef enum:
    DUE = 512                # records that are handed over at a time
    KNOWN = FLOW_REPLY | FLOW_COUNTERS | FLOW_START | FLOW_STOP | FLOW_RECOVERED | FLOW_FORGOTTEN
    LONGEST_MS = 3600 * 1000

cdef int64_t BACK_NS = 1_000_000_000         # a clock that goes back by more was set back
CAPACITY = 65536
_BYTES_LIMIT = 64 << 20
_GRACE_S = 1.0           # how long events may take from their reception to here before their group is written


cdef inline int64_t _least(int64_t a, int64_t b) noexcept nogil:
    return a if a < b else b


@cython.final
@cython.auto_pickle(False)
cdef class Aggregator(RecordWriter):
    """A RecordWriter that merges flows before another one writes them.

    Args:
        writer: That RecordWriter.
        window: Seconds after its first flow when a group is written.
        speed: 1 for events as they come; how many times as fast the records of a recording come, 0 for without a wait.
        capacity: The most groups at a time.
        bytes_limit: The most bytes of processes that they keep.
    """

    def __cinit__(self, RecordWriter writer not None, double window, double speed=1, uint32_t capacity=CAPACITY,
                  uint64_t bytes_limit=_BYTES_LIMIT):
        cdef bytes key = os.urandom(16)
        self.writer, self.capacity, self.bytes_limit = writer, capacity, bytes_limit
        memcpy(self.key, <const char *>key, 16)
        self.window = <int64_t>(window * 1e9)
        self.hold = <int64_t>((window + _GRACE_S) * 1e9 / speed) if speed else 0
        ring = Ring(1)              # which both need, and neither uses
        ring.close()
        self.due, self.nothing = TakenRecords(ring, ForkGuard()), TakenRecords(ring, ForkGuard())
        self.due.records = <record_t *>calloc(DUE, sizeof(record_t))
        # Pages that are not touched take no memory.
        self.groups = <group_t *>calloc(capacity + 1, sizeof(group_t))
        self.buckets = <uint32_t *>calloc(CAPACITY, sizeof(uint32_t))
        if self.due.records == NULL or self.groups == NULL or self.buckets == NULL:
            raise MemoryError("groups of flows")

    def __dealloc__(self):
        cdef int i
        cdef uint32_t number = self.oldest
        while number:
            record_drop(&self.groups[number].record)
            number = self.groups[number].newer
        for i in range(AGGREGATED_PROCESSES):
            process_drop(self.processes[i])
        if self.due is not None and self.due.records != NULL:
            self.due.consume(self.due.count)
            free(self.due.records)
        free(self.groups)
        free(self.buckets)

    cdef int put(self, TakenRecords batch) noexcept nogil:
        return self.resume(batch)

    cdef bint is_pending(self) noexcept nogil:
        return self.due.consumed < self.due.count

    cdef int resume(self, TakenRecords batch) noexcept nogil:
        cdef int result
        while True:
            if self.due.consumed < self.due.count:
                if self.writer.is_pending():
                    result = self.writer.resume(self.due)
                else:
                    result = self.writer.put(self.due)
                if result < 0:
                    return result
            self.due.count = self.due.consumed = 0
            self._work(batch)
            if self.due.count == 0:
                return 0

    cdef int due_ms(self) noexcept nogil:
        cdef int64_t left
        if self.oldest == 0 or self.hold == 0:
            return -1
        left = self.groups[self.oldest].opened + self.hold - monotonic_ns()
        return 0 if left <= 0 else <int>min(left // 1000000 + 1, LONGEST_MS)

    cdef void _work(self, TakenRecords batch) noexcept nogil:
        """Merge records, until as many are due as fit. With none due afterwards, there are no more."""
        cdef int64_t now = monotonic_ns()
        cdef int64_t since
        cdef record_t *record
        while batch.consumed < batch.count and self.due.count < DUE:
            record = &batch.records[batch.consumed]
            if record.kind == RECORD_LOSS:
                memset(&self.due.records[self.due.count], 0, sizeof(record_t))
                self.due.records[self.due.count].kind, self.due.records[self.due.count].loss = RECORD_LOSS, record.loss
                self.due.count += 1
                batch.consume(batch.consumed + 1)
                continue
            if self.oldest:
                since = record.flow.time - self.groups[self.oldest].record.flow.time
                if since >= self.window or since < -BACK_NS:
                    self._hand_over(self.oldest)
                    continue
            self._take(record, now)
            batch.consume(batch.consumed + 1)
        while self.oldest and self.due.count < DUE and (
                self.closing or self.hold and now - self.groups[self.oldest].opened >= self.hold):
            self._hand_over(self.oldest)

    def close(self) -> bool:
        """Write all groups that there are. False if it was interrupted, as the program is asked to end: call it again.

        Raises as the writer does.
        """
        cdef int result
        self.closing = True
        with nogil:
            result = self.resume(self.nothing)
        self.closing = False
        if result < 0 and result != -EINTR:
            raise writer_error(result)
        return result == 0

    @property
    def held(self) -> int:
        """Flows that were taken and are not written yet."""
        cdef uint32_t number = self.oldest
        cdef int i
        flows = 0
        while number:
            flows += flow_count(&self.groups[number].record.flow)
            number = self.groups[number].newer
        for i in range(self.due.consumed, self.due.count):
            if self.due.records[i].kind != RECORD_LOSS:
                flows += flow_count(&self.due.records[i].flow)
        return flows

    def _add_metrics(self, exposition):
        exposition.gauge("nfct_aggregate_groups", "Groups of flows that wait until their time is over.", self.count)
        exposition.counter(
            "nfct_aggregate_groups_early", "Groups written before their time was over, to make room.", self.early
        )

    cdef void _make_key(self, const record_t *record, group_key_t *out) noexcept nogil:
        cdef const flow_t *flow = &record.flow
        memset(out, 0, sizeof(group_key_t))
        memcpy(out.addresses, flow.orig.src, 16)
        memcpy(out.addresses + 16, flow.orig.dst, 16)
        out.dport, out.family, out.proto = flow.orig.dport, flow.orig.family, flow.orig.proto
        out.icmp_type, out.icmp_code = flow.orig.icmp_type, flow.orig.icmp_code
        if flow.has & FLOW_REPLY:
            memcpy(out.addresses + 32, flow.reply.src, 16)
            memcpy(out.addresses + 48, flow.reply.dst, 16)
            out.reply_sport = flow.reply.sport
        out.netns_inode, out.mark, out.zone = flow.netns_inode, flow.numbers[NUMBER_MARK], flow.numbers[NUMBER_ZONE]
        out.has, out.type, out.outcome = flow.has & <uint16_t>KNOWN, flow.type, flow_outcome(flow)
        out.direction, out.is_responder = record.direction, record.is_responder
        out.owner, out.peer = owner_digest(&record.owner, self.key), owner_digest(&record.peer, self.key)

    cdef uint32_t *_bucket(self, const group_key_t *key) noexcept nogil:
        cdef uint64_t hash = nfct_fast_text_hash(self.key, <const char *>key, sizeof(group_key_t))
        return &self.buckets[hash % <uint32_t>(1 << 16)]

    cdef void _take(self, record_t *record, int64_t now) noexcept nogil:
        cdef group_key_t key
        cdef uint32_t *bucket
        cdef uint32_t number
        self._make_key(record, &key)
        bucket = self._bucket(&key)
        number = bucket[0]
        while number and memcmp(&self.groups[number].key, &key, sizeof(key)) != 0:
            number = self.groups[number].next
        if number == 0:
            self._open(bucket, &key, record, now)
        else:
            _merge(&self.groups[number].record, record)

    cdef void _open(self, uint32_t *bucket, const group_key_t *key, record_t *record, int64_t now) noexcept nogil:
        """Make a group of a record, whose references it takes over."""
        cdef group_user_t *user
        cdef group_t *one
        cdef uint32_t number
        while (self.count == self.capacity or self.bytes > self.bytes_limit) and self.due.count < DUE:
            if not self._make_room():
                break
        number = self.free
        if number:
            self.free = self.groups[number].next
        else:
            self.used += 1
            number = self.used
        one = &self.groups[number]
        one.record, one.key, one.opened = record[0], key[0], now
        memset(&record.owner, 0, sizeof(owner_t))
        memset(&record.peer, 0, sizeof(owner_t))
        one.record.owner.process = self._same(one.record.owner.process)
        one.record.peer.process = self._same(one.record.peer.process)
        self._hold_owner(&one.record.owner, 1)
        self._hold_owner(&one.record.peer, 1)
        one.next, bucket[0] = bucket[0], number
        one.newer, one.older = 0, self.newest
        if self.newest:
            self.groups[self.newest].newer = number
        else:
            self.oldest = number
        self.newest = number
        one.user = self._user_of(&one.record)
        user = &self.users[one.user]
        one.user_newer, one.user_older = 0, user.newest
        if user.newest:
            self.groups[user.newest].user_newer = number
        else:
            user.oldest = number
        user.newest = number
        user.count += 1
        self.count += 1

    cdef void _hand_over(self, uint32_t number) noexcept nogil:
        """Make a group due, for which there has to be room."""
        cdef group_t *one = &self.groups[number]
        cdef group_user_t *user = &self.users[one.user]
        cdef uint32_t *at = self._bucket(&one.key)
        while at[0] != number:
            at = &self.groups[at[0]].next
        at[0] = one.next
        if one.older:
            self.groups[one.older].newer = one.newer
        else:
            self.oldest = one.newer
        if one.newer:
            self.groups[one.newer].older = one.older
        else:
            self.newest = one.older
        if one.user_older:
            self.groups[one.user_older].user_newer = one.user_newer
        else:
            user.oldest = one.user_newer
        if one.user_newer:
            self.groups[one.user_newer].user_older = one.user_older
        else:
            user.newest = one.user_older
        user.count -= 1
        self.count -= 1
        self._hold_owner(&one.record.owner, -1)
        self._hold_owner(&one.record.peer, -1)
        self.due.records[self.due.count] = one.record
        self.due.count += 1
        one.next, self.free = self.free, number

    cdef bint _make_room(self) noexcept nogil:
        """Have the oldest group of whoever has most written; False if there is none."""
        cdef bint by_bytes = self.bytes > self.bytes_limit
        cdef uint64_t most = 0
        cdef uint64_t has
        cdef int i
        cdef int found = 0
        for i in range(AGGREGATED_USERS):
            has = 0 if self.users[i].count == 0 else self.users[i].bytes + 1 if by_bytes else self.users[i].count
            if has > most:
                most, found = has, i
        if most == 0:
            return False
        self.early += 1
        self._hand_over(self.users[found].oldest)
        return True

    cdef uint16_t _group(self, uint64_t identity) noexcept nogil:
        return nfct_fast_text_hash(self.key, <const char *>&identity, sizeof(identity)) % AGGREGATED_USERS

    cdef uint16_t _user_of(self, const record_t *record) noexcept nogil:
        """The group of whoever has the flow; of a flow that nobody here has, that of its namespace."""
        cdef uint32_t uid = 0
        if owner_uid(&record.owner, &uid):
            return self._group(uid)
        return self._group(<uint64_t>1 << 32 | record.flow.netns_inode << 33)

    cdef process_t *_same(self, process_t *process) noexcept nogil:
        """The process, or one that says the same and is kept already: a process is built anew whenever something became
        known of any. Takes over the reference and returns one."""
        cdef process_t **slot
        if process == NULL:
            return NULL
        slot = &self.processes[process.pid & AGGREGATED_PROCESSES - 1]
        if slot[0] != process:
            if slot[0] != NULL and slot[0].digest == process_digest(process, self.key):
                process_drop(process)
                return process_take(slot[0])
            process_drop(slot[0])
            slot[0] = process_take(process)
        return process

    cdef void _hold(self, process_t *process, int by) noexcept nogil:
        """Count a process for one group more or less, by user and with its share of the ancestors."""
        cdef group_user_t *user
        if process == NULL:
            return
        user = &self.users[self._group(process.uid)]
        if by > 0 and process.groups == 0:
            process.group_charge = <uint32_t>process.bytes
            if process.ancestors != NULL:
                process.group_charge += <uint32_t>(process.ancestors.bytes // <uint64_t>max(1, process.ancestors.refs))
            self.bytes += process.group_charge
            user.bytes += process.group_charge
        process.groups += by
        if process.groups == 0:
            self.bytes -= process.group_charge
            user.bytes -= process.group_charge

    cdef void _hold_owner(self, const owner_t *owner, int by) noexcept nogil:
        cdef int i
        self._hold(owner.process, by)
        self._hold(owner.cgroup, by)
        if owner.others == NULL:
            return
        if owner.others.groups == (0 if by > 0 else 1):
            for i in range(owner.others.count):
                self._hold(owner.others.at[i], by)
        owner.others.groups += by


cdef void _unite(owner_t *one, const owner_t *other) noexcept nogil:
    """What the sockets of both do not have in common is not known."""
    if one.inode != other.inode:
        one.inode = 0
    if one.cookie != other.cookie:
        one.cookie = 0


cdef void _merge(record_t *one, const record_t *other) noexcept nogil:
    """Add a flow of the same key."""
    cdef flow_t *flow = &one.flow
    cdef int i
    if not flow.has & FLOW_MERGED:
        flow.has |= FLOW_MERGED
        flow.count, flow.last = 1, flow.time
    flow.count += 1
    flow.last = max(flow.last, other.flow.time)
    one.began = _least(one.began, other.began)           # 0, as soon as one is unknown
    flow.start, flow.stop = _least(flow.start, other.flow.start), max(flow.stop, other.flow.stop)
    for i in range(2):
        flow.packets[i] += other.flow.packets[i]
        flow.bytes[i] += other.flow.bytes[i]
    one.first_seen |= other.first_seen
    _unite(&one.owner, &other.owner)
    _unite(&one.peer, &other.peer)
