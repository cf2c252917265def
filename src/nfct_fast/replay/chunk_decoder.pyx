"""Decode the chunks of a recording: processes into slots, flows and losses into records.

Whatever a chunk contains is checked before it is used, as it may be damaged or forged. recording_format.pxd describes
it.
"""
cimport cython
from libc.errno cimport ENOMEM
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset
from nfct_fast.processes.cgroup cimport span_t
from nfct_fast.processes.process cimport (
    ancestor_build, ancestor_drop, ancestor_t, process_build, process_drop, process_t, process_take,
)
from nfct_fast.records.labels cimport event_name
from nfct_fast.records.owner cimport MATCH_COUNT, REASON_COUNT, others_new
from nfct_fast.records.record cimport RECORD_LOSS, SEEN_ALL, record_drop
from nfct_fast.replay.recording_format cimport (
    ANCESTORS_MAX, MARKS, ancestor_part_t, end_chunk_t, flow_chunk_t, loss_chunk_t, owner_part_t, process_chunk_t,
)

cdef enum:
    DIRECTIONS = 5               # DIRECTION_*


@cython.final
@cython.auto_pickle(False)
cdef class ChunkDecoder:
    """What one recording has told so far. The processes in its slots are freed with it."""

    def __cinit__(self):
        self.decoder = FlowDecoder()

    def __dealloc__(self):
        cdef int i
        for i in range(SLOTS):
            process_drop(self.slots[i])

    cdef int _refuse(self, const char *problem) noexcept nogil:
        self.problem = problem
        return BAD_CHUNK

    cdef ancestor_t *_ancestors(self, const char *data, size_t size, uint32_t count, bint *wrong) noexcept nogil:
        """Build the ancestors that fill data[0..size)."""
        cdef ancestor_part_t parts[ANCESTORS_MAX]
        cdef const char *texts[ANCESTORS_MAX]
        cdef ancestor_t *above = NULL
        cdef span_t comm, exe
        cdef uint32_t i
        for i in range(count):
            if size < sizeof(ancestor_part_t):
                wrong[0] = True
                return NULL
            memcpy(&parts[i], data, sizeof(ancestor_part_t))
            data += sizeof(ancestor_part_t)
            size -= sizeof(ancestor_part_t)
            if size < <size_t>parts[i].comm_size + parts[i].exe_size:
                wrong[0] = True
                return NULL
            texts[i] = data
            data += parts[i].comm_size + parts[i].exe_size
            size -= parts[i].comm_size + parts[i].exe_size
        wrong[0] = size != 0
        if size:
            return NULL
        while count:
            count -= 1
            comm.at, comm.size = texts[count], parts[count].comm_size
            exe.at, exe.size = texts[count] + parts[count].comm_size, parts[count].exe_size
            above = ancestor_build(parts[count].pid, parts[count].start_ns, comm, exe, above)
        return above

    cdef int take_process(self, const char *data, size_t size, uint32_t *slot) noexcept nogil:
        cdef process_chunk_t fixed
        cdef process_t facts
        cdef bint wrong = False
        cdef uint64_t texts
        if size < sizeof(fixed):
            return self._refuse(b"damaged: a process that is too short")
        memcpy(&fixed, data, sizeof(fixed))
        data += sizeof(fixed)
        size -= sizeof(fixed)
        texts = <uint64_t>fixed.comm_size + fixed.exe_size + fixed.cmdline_size + fixed.cgroup_size
        if (texts > size or fixed.slot >= SLOTS or fixed.cgroup_trusted > fixed.cgroup_size
                or fixed.ancestors > ANCESTORS_MAX or fixed.cmdline_whole < fixed.cmdline_size):
            return self._refuse(b"damaged: a process that cannot be")
        memset(&facts, 0, sizeof(facts))
        facts.has, facts.pid, facts.ppid, facts.uid, facts.gid = fixed.has, fixed.pid, fixed.ppid, fixed.uid, fixed.gid
        facts.login_uid, facts.ns_pid, facts.start = fixed.login_uid, fixed.ns_pid, fixed.start
        facts.start_ns, facts.netns, facts.cmdline_size = fixed.start_ns, fixed.netns, fixed.cmdline_whole
        facts.exe_dev, facts.exe_inode = fixed.exe_dev, fixed.exe_inode
        facts.cgroup_trusted = fixed.cgroup_trusted
        facts.comm.at, facts.comm.size = data, fixed.comm_size
        facts.exe.at, facts.exe.size = facts.comm.at + fixed.comm_size, fixed.exe_size
        facts.cmdline.at, facts.cmdline.size = facts.exe.at + fixed.exe_size, fixed.cmdline_size
        facts.cgroup.at, facts.cgroup.size = facts.cmdline.at + fixed.cmdline_size, fixed.cgroup_size
        facts.ancestors = self._ancestors(data + texts, size - texts, fixed.ancestors, &wrong)
        if wrong:
            return self._refuse(b"damaged: ancestors of another size")
        process_drop(self.slots[fixed.slot])
        self.slots[fixed.slot] = process_build(&facts)      # takes a reference to the ancestors
        ancestor_drop(facts.ancestors)
        slot[0] = fixed.slot
        return 0 if self.slots[fixed.slot] != NULL else -ENOMEM

    cdef process_t *_process(self, uint32_t number) noexcept nogil:
        """A reference to the process in slot `number` - 1; NULL if there is none."""
        return process_take(self.slots[number - 1]) if 1 <= number <= SLOTS else NULL

    cdef int _take_owner(self, const char **data, size_t *size, owner_t *owner) noexcept nogil:
        cdef owner_part_t part
        cdef process_t *other
        cdef uint32_t number
        cdef int _
        if size[0] < sizeof(part):
            return self._refuse(b"damaged: a flow that is too short")
        memcpy(&part, data[0], sizeof(part))
        data[0] += sizeof(part)
        size[0] -= sizeof(part)
        if part.match >= MATCH_COUNT or part.reason >= REASON_COUNT or size[0] < part.other_count * sizeof(number):
            return self._refuse(b"damaged: an owner that cannot be")
        owner.inode, owner.cookie, owner.cgroup_id = part.inode, part.cookie, part.cgroup_id
        owner.uid, owner.gid = part.uid, part.gid
        owner.has, owner.match, owner.reason = part.has, part.match, part.reason
        owner.process, owner.cgroup = self._process(part.process), self._process(part.cgroup)
        if (owner.process == NULL) != (part.process == 0) or (owner.cgroup == NULL) != (part.cgroup == 0):
            return self._refuse(b"damaged: an owner whose process is not there")
        if part.other_count == 0:
            return 0
        owner.others = others_new(part.other_count)
        if owner.others == NULL:
            return -ENOMEM
        for _ in range(part.other_count):
            memcpy(&number, data[0], sizeof(number))
            data[0] += sizeof(number)
            size[0] -= sizeof(number)
            other = self._process(number)
            if other == NULL:
                return self._refuse(b"damaged: an owner whose process is not there")
            owner.others.at[owner.others.count] = other
            owner.others.count += 1
        return 0

    cdef int take_flow(self, const char *data, size_t size, record_t *record) noexcept nogil:
        cdef flow_chunk_t fixed
        cdef int result
        if size < sizeof(fixed):
            return self._refuse(b"damaged: a flow that is too short")
        memcpy(&fixed, data, sizeof(fixed))
        data += sizeof(fixed)
        size -= sizeof(fixed)
        if (fixed.message_size > size or fixed.direction >= DIRECTIONS or fixed.has & ~<int>MARKS
                or event_name(fixed.type) == NULL or fixed.seen > SEEN_ALL):
            return self._refuse(b"damaged: a flow that cannot be")
        memset(record, 0, sizeof(record_t))
        if self.decoder.decode(data, fixed.message_size, &record.flow, 1, fixed.time, 0) != 1:
            return self._refuse(b"damaged: a message that cannot be decoded")
        data += fixed.message_size
        size -= fixed.message_size
        record.flow.netns_inode = fixed.netns
        record.direction, record.first_seen = fixed.direction, fixed.seen
        record.flow.type = fixed.type
        record.flow.has |= fixed.has
        record.began, record.is_responder = fixed.began, fixed.is_responder != 0
        result = self._take_owner(&data, &size, &record.owner)
        if result == 0:
            result = self._take_owner(&data, &size, &record.peer)
        if result == 0 and size:
            result = self._refuse(b"damaged: a flow that is too long")
        if result < 0:
            record_drop(record)
            return result
        self.flows += 1
        return 0

    cdef int take_loss(self, const char *data, size_t size, record_t *record) noexcept nogil:
        cdef loss_chunk_t fixed
        if size != sizeof(fixed):
            return self._refuse(b"damaged: a loss of another size")
        memcpy(&fixed, data, sizeof(fixed))
        memset(record, 0, sizeof(record_t))
        record.kind = RECORD_LOSS
        record.loss.time, record.loss.since, record.loss.netns_inode = fixed.time, fixed.since, fixed.netns
        record.loss.events, record.loss.at_least = fixed.events, fixed.at_least != 0
        self.losses += 1
        return 0

    cdef int take_end(self, const char *data, size_t size) noexcept nogil:
        cdef end_chunk_t fixed
        if size != sizeof(fixed):
            return self._refuse(b"damaged: an end of another size")
        memcpy(&fixed, data, sizeof(fixed))
        if fixed.flows != self.flows or fixed.losses != self.losses:
            return self._refuse(b"damaged: flows are missing before the end")
        return 0
