"""Who began the flows that live, until they end: a table by conntrack entry, bounded in flows and in bytes.

A flow is known by the fingerprint of its entry (events/fingerprints.pyx) and by its tuple, in its namespace. When there
is no room, whoever has most gives way, with their oldest flow: flows are counted by user, in groups of users that
nobody can choose, so that a user who makes a million of them loses their own.

A process is counted once, with its share of the ancestors it has in common with others.
"""
cimport cython
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memset
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_NORESERVE, MAP_PRIVATE, PROT_READ, PROT_WRITE, mmap, munmap
from nfct_fast.events.fingerprints cimport flow_fingerprint
from nfct_fast.events.flow cimport FLOW_RECOVERED, FLOW_START, flow_t, tuple_t
from nfct_fast.processes.process cimport process_drop, process_t, process_take
from nfct_fast.records.owner cimport owner_copy, owner_drop, owner_t, owner_uid
from nfct_fast.records.record cimport record_t

import os

cdef enum:
    BATCH = 1024             # flows that one batch may begin and end, at most
    SWEPT = 4                # flows looked at when one begins: a namespace's are gone after as many have begun

cdef enum:                   # live_flow_t.place
    FREE
    BEGINNING                # in its bucket; its owners are not known yet
    KEPT                     # in its bucket, and in the list of its users
    ENDING                   # in neither
    BRIEF                    # the same, before its owners were known

DEFAULT_CAPACITY = 262_144
_BYTES_LIMIT = 128 << 20


cdef void *_map(size_t size) noexcept nogil:
    cdef void *result = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    return result if result != MAP_FAILED else NULL


cdef bint _is_same(const process_t *a, const process_t *b) noexcept nogil:
    """Whether they say the same: a process is built anew whenever something became known of any process."""
    return (a.bytes == b.bytes and a.pid == b.pid and a.start_ns == b.start_ns and a.start == b.start
            and a.uid == b.uid and a.gid == b.gid and a.has == b.has and a.ppid == b.ppid
            and a.ancestors == b.ancestors and a.exe_dev == b.exe_dev and a.exe_inode == b.exe_inode
            and a.login_uid == b.login_uid and a.ns_pid == b.ns_pid and a.cmdline_size == b.cmdline_size
            and a.cgroup_trusted == b.cgroup_trusted and a.program_hash == b.program_hash
            and a.comm.size == b.comm.size and a.exe.size == b.exe.size and a.cmdline.size == b.cmdline.size
            and memcmp(a + 1, b + 1, a.bytes - sizeof(process_t)) == 0)


@cython.final
@cython.auto_pickle(False)
cdef class LiveFlows:
    """The owners of up to `capacity` flows that live, at about 190 bytes each; memory is taken as it is needed.

    bytes_limit: of the processes that they keep. Raises MemoryError.
    """

    def __cinit__(self, uint32_t capacity=DEFAULT_CAPACITY, uint64_t bytes_limit=_BYTES_LIMIT):
        cdef uint32_t buckets = 1024
        if not 1 <= capacity <= 1 << 26:
            raise ValueError(f"capacity {capacity}: must be from 1 to {1 << 26}")
        while buckets < capacity:
            buckets *= 2
        self.capacity = capacity
        self.room = capacity + BATCH
        self.bytes_limit = bytes_limit
        self.multiplier = int.from_bytes(os.urandom(8), "little") | 1
        self.bucket_mask = buckets - 1
        self.flows = <live_flow_t *>_map((self.room + 1) * sizeof(live_flow_t))
        self.buckets = <uint32_t *>_map(buckets * sizeof(uint32_t))
        if self.flows == NULL or self.buckets == NULL:
            raise MemoryError("live flows")

    def __dealloc__(self):
        cdef uint32_t i
        cdef int slot
        if self.flows != NULL:
            for i in range(1, self.used + 1):
                if self.flows[i].place != FREE:
                    self._drop(i)
            munmap(self.flows, (self.room + 1) * sizeof(live_flow_t))
        if self.buckets != NULL:
            munmap(self.buckets, (self.bucket_mask + 1) * sizeof(uint32_t))
        for slot in range(LIVE_PROCESSES):
            process_drop(self.processes[slot])

    cdef uint32_t *_bucket(self, uint64_t fingerprint, uint16_t netns) noexcept nogil:
        return &self.buckets[((fingerprint + netns) * self.multiplier >> 32) & self.bucket_mask]

    cdef uint32_t _find(self, const flow_t *flow, uint64_t fingerprint) noexcept nogil:
        cdef uint32_t at = self._bucket(fingerprint, flow.netns)[0]
        cdef const live_flow_t *one
        while at:
            one = &self.flows[at]
            if (one.fingerprint == fingerprint and one.netns == flow.netns
                    and one.generation == self.generations[flow.netns]
                    and memcmp(&one.orig, &flow.orig, sizeof(tuple_t)) == 0):
                return at
            at = one.next
        return 0

    cdef void _unbucket(self, uint32_t number) noexcept nogil:
        cdef live_flow_t *one = &self.flows[number]
        cdef uint32_t *at = self._bucket(one.fingerprint, one.netns)
        while at[0] != number:
            at = &self.flows[at[0]].next
        at[0] = one.next

    cdef uint32_t begin(self, const flow_t *flow, uint32_t losses, int64_t since) noexcept nogil:
        cdef uint64_t fingerprint = flow_fingerprint(flow)
        cdef uint32_t number = self._find(flow, fingerprint)
        cdef uint32_t *bucket
        cdef live_flow_t *one
        if number and self.flows[number].place != KEPT:
            return 0
        if number:      # its end was not heard
            self.unended += 1
            self._unlink(number)
            self._drop(number)
        self.sweep(SWEPT)
        number = self._room()
        if number == 0:
            return 0
        one = &self.flows[number]
        memset(one, 0, sizeof(live_flow_t))
        one.fingerprint, one.orig, one.netns = fingerprint, flow.orig, flow.netns
        one.generation, one.losses, one.since = self.generations[flow.netns], losses, since
        one.place = BEGINNING
        one.is_recovered = flow.has & FLOW_RECOVERED != 0
        # When an entry was found in the table, it was there already.
        one.began = flow.time if not one.is_recovered else flow.start if flow.has & FLOW_START else 0
        bucket = self._bucket(fingerprint, flow.netns)
        one.next = bucket[0]
        bucket[0] = number
        return number

    cdef uint32_t _room(self) noexcept nogil:
        cdef uint32_t number = self.free
        if number:
            self.free = self.flows[number].next
        elif self.used < self.room:
            self.used += 1
            number = self.used
        return number

    cdef uint16_t _group(self, uint64_t identity) noexcept nogil:
        return <uint16_t>((identity + 1) * self.multiplier >> 40 & LIVE_USERS - 1)

    cdef uint16_t _user_of(self, const owner_t *owner, uint16_t netns) noexcept nogil:
        """The group of whoever has the flow; of a flow that nobody here has, that of its namespace."""
        cdef uint32_t uid = 0
        if owner_uid(owner, &uid):
            return self._group(uid)
        return self._group(<uint64_t>1 << 32 | netns)

    cdef void keep(self, uint32_t number, record_t *record, bint copied) noexcept nogil:
        cdef live_flow_t *one = &self.flows[number]
        cdef live_user_t *user
        cdef const owner_t *peer = &record.peer
        one.direction, one.is_responder, one.peer_reason = record.direction, record.is_responder, peer.reason
        if peer.process != NULL or peer.cgroup != NULL or peer.has or peer.inode or peer.cookie or peer.match:
            one.peer = <owner_t *>malloc(sizeof(owner_t))
        if copied:
            owner_copy(&record.owner, &one.owner)
            if one.peer != NULL:
                owner_copy(peer, one.peer)
        else:
            one.owner = record.owner
            if one.peer != NULL:
                one.peer[0] = peer[0]
            else:
                owner_drop(&record.peer)
            memset(&record.owner, 0, sizeof(owner_t))
            memset(&record.peer, 0, sizeof(owner_t))
        if one.place == BRIEF:
            return
        self._hold_owner(&one.owner)
        if one.peer != NULL:
            self._hold_owner(one.peer)
        one.user = self._user_of(&one.owner, one.netns)
        user = &self.users[one.user]
        one.place = KEPT
        one.older, one.newer = user.newest, 0
        if user.newest:
            self.flows[user.newest].newer = number
        else:
            user.oldest = number
        user.newest = number
        user.count += 1
        self.count += 1
        while self.count > self.capacity or self.bytes > self.bytes_limit:
            if not self._make_room():
                break

    cdef void _unlink(self, uint32_t number) noexcept nogil:
        """Take a kept flow out of its bucket, its list and the counts."""
        cdef live_flow_t *one = &self.flows[number]
        cdef live_user_t *user = &self.users[one.user]
        self._unbucket(number)
        if one.older:
            self.flows[one.older].newer = one.newer
        else:
            user.oldest = one.newer
        if one.newer:
            self.flows[one.newer].older = one.older
        else:
            user.newest = one.older
        user.count -= 1
        self.count -= 1
        self._release_owner(&one.owner)
        if one.peer != NULL:
            self._release_owner(one.peer)
        one.place = ENDING

    cdef void _drop(self, uint32_t number) noexcept nogil:
        """Free a flow that is in no list any more."""
        cdef live_flow_t *one = &self.flows[number]
        owner_drop(&one.owner)
        if one.peer != NULL:
            owner_drop(one.peer)
            free(one.peer)
        one.peer = NULL
        one.place = FREE
        one.next = self.free
        self.free = number

    cdef bint _make_room(self) noexcept nogil:
        """Forget the oldest flow of whoever has most; False if there is none."""
        cdef bint by_bytes = self.bytes > self.bytes_limit
        cdef uint64_t most = 0, has
        cdef int i, found = -1
        for i in range(LIVE_USERS):
            # A process that is a peer only is counted for its user, who may have no flow here.
            has = 0 if self.users[i].count == 0 else self.users[i].bytes + 1 if by_bytes else self.users[i].count
            if has > most:
                most, found = has, i
        if found < 0:
            return False
        i = <int>self.users[found].oldest
        self.forgotten += 1
        self._unlink(i)
        self._drop(i)
        return True

    cdef uint32_t take(self, const flow_t *flow) noexcept nogil:
        cdef uint32_t number = self._find(flow, flow_fingerprint(flow))
        if number == 0:
            return 0
        if self.flows[number].place == KEPT:
            self._unlink(number)
        else:
            self._unbucket(number)
            self.flows[number].place = BRIEF
        return number

    cdef void give(self, uint32_t number, record_t *record) noexcept nogil:
        cdef live_flow_t *one = &self.flows[number]
        record.owner = one.owner
        memset(&one.owner, 0, sizeof(owner_t))
        if one.peer != NULL:
            record.peer = one.peer[0]
            memset(one.peer, 0, sizeof(owner_t))
        record.peer.reason = one.peer_reason
        record.direction, record.is_responder, record.began = one.direction, one.is_responder, one.began
        if one.is_recovered:
            record.flow.has |= FLOW_RECOVERED
        self._drop(number)

    cdef void forget_namespace(self, uint16_t netns) noexcept nogil:
        self.generations[netns] += 1

    cdef void sweep(self, uint32_t most) noexcept nogil:
        cdef live_flow_t *one
        cdef uint32_t _
        for _ in range(min(most, self.used)):
            self.swept = self.swept % self.used + 1
            one = &self.flows[self.swept]
            if one.place == KEPT and one.generation != self.generations[one.netns]:
                self.unended += 1
                self._unlink(self.swept)
                self._drop(self.swept)

    cdef process_t *_same(self, process_t *process) noexcept nogil:
        """The process, or one that says the same and is kept already. Takes over the reference and returns one."""
        cdef process_t **slot
        if process == NULL:
            return NULL
        slot = &self.processes[process.pid & LIVE_PROCESSES - 1]
        if slot[0] != process:
            if slot[0] != NULL and _is_same(slot[0], process):
                process_drop(process)
                return process_take(slot[0])
            process_drop(slot[0])
            slot[0] = process_take(process)
        return process

    cdef void _hold(self, process_t *process) noexcept nogil:
        cdef uint64_t charged
        if process == NULL:
            return
        if process.live_flows == 0:
            charged = process.bytes
            if process.ancestors != NULL:
                charged += process.ancestors.bytes // <uint64_t>max(1, process.ancestors.refs)
            process.charged = <uint32_t>charged
            self.bytes += process.charged
            self.users[self._group(process.uid)].bytes += process.charged
        process.live_flows += 1

    cdef void _release(self, process_t *process) noexcept nogil:
        if process == NULL:
            return
        process.live_flows -= 1
        if process.live_flows == 0:
            self.bytes -= process.charged
            self.users[self._group(process.uid)].bytes -= process.charged

    cdef void _hold_owner(self, owner_t *owner) noexcept nogil:
        cdef int i
        owner.process, owner.cgroup = self._same(owner.process), self._same(owner.cgroup)
        self._hold(owner.process)
        self._hold(owner.cgroup)
        if owner.others == NULL:
            return
        if owner.others.live_flows == 0:
            for i in range(owner.others.count):
                self._hold(owner.others.at[i])
        owner.others.live_flows += 1

    cdef void _release_owner(self, const owner_t *owner) noexcept nogil:
        cdef int i
        self._release(owner.process)
        self._release(owner.cgroup)
        if owner.others == NULL:
            return
        owner.others.live_flows -= 1
        if owner.others.live_flows == 0:
            for i in range(owner.others.count):
                self._release(owner.others.at[i])
