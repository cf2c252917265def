"""Play a recording: put the same flows with the same owners into the ring, as a reading thread does.

Whatever the file contains is checked before it is used, as it may be damaged or forged. recording_format.pxd describes
it.

This file has more than 400 lines: half of them are checks, one for each field that a file may have damaged.
"""
cimport cython
from libc.errno cimport EINTR, ENOMEM, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove, memset
from posix.unistd cimport close, read
from sys_socket cimport AF_INET, AF_INET6, POLLIN, poll, pollfd
from nfct_fast.events.flow cimport FLOW_RECOVERED
from nfct_fast.kernel.clock cimport monotonic_ns
from nfct_fast.processes.process cimport ancestor_build, ancestor_drop, process_build, process_drop, process_take
from nfct_fast.processes.cgroup cimport span_t
from nfct_fast.records.labels cimport event_name
from nfct_fast.records.owner cimport MATCH_COUNT, REASON_COUNT, others_new
from nfct_fast.records.record cimport RECORD_LOSS, SEEN_ALL, record_drop
from nfct_fast.replay.recording_format cimport (
    ANCESTORS_MAX, CHUNK_END, CHUNK_FLOW, CHUNK_HOST, CHUNK_LOSS, CHUNK_MAX, CHUNK_PROCESS, MARKS,
    ancestor_part_t, chunk_step, chunk_t, end_chunk_t, flow_chunk_t, loss_chunk_t, owner_part_t,
    process_chunk_t,
)

import os
from _thread import allocate_lock

from nfct_fast.replay.recording_error import RecordingError
from nfct_fast.replay.recording_host import open_recording

cdef enum:
    HEADER = 16                  # bytes before the first chunk
    BUFFER = 1 << 20             # room for several chunks
    BATCH = 256                  # records handed over at once, at most
    DIRECTIONS = 5               # DIRECTION_*
    ROOM_MS = 1000               # how often a full ring is looked at again
    WAIT_MS = 1 << 30            # the longest wait in one go, with `speed`
    NEXT_RECORD = 1              # what _next() returns
    NEXT_NOTHING = 0


@cython.final
@cython.auto_pickle(False)
cdef class Player:
    """Plays a file into a ring, in run(), until its end or stop().

    Args:
        path: a recording.
        ring: where the records go; the thread of run() is its producer.
        flow_filter: which flows are wanted.
        types: the wanted EVENT_*.
        speed: seconds of the recording to play in a second; 0 for as fast as they are taken.

    Raises OSError, and RecordingError if this is not a recording, or one that this version cannot read.
    """

    def __cinit__(self, path, Ring ring not None, FlowFilter flow_filter not None, types, double speed=0):
        self.fd = -1
        self.path = os.fsdecode(path)
        self.ring = ring
        self.speed = speed
        self.decoder = FlowDecoder()
        self.flow_filter = flow_filter
        for kind in types:
            self.wanted_types[kind] = 1
        self.wakeup = Wakeup()
        self.finished = allocate_lock()
        self.finished.acquire()
        self.buffer = <char *>malloc(BUFFER)
        if self.buffer == NULL:
            raise MemoryError("replay")
        self.fd = open_recording(self.path)
        self.offset = HEADER

    def __dealloc__(self):
        cdef int i
        for i in range(SLOTS):
            process_drop(self.slots[i])
        free(self.buffer)
        if self.fd >= 0:
            close(self.fd)

    def stop(self, bint no_consumer=False) -> None:
        """Have run() return soon; from any thread."""
        self.stopping = True
        self.wakeup.notify()

    def close(self) -> None:
        """Close all descriptors, the ring's included, after run() has returned."""
        self.ring.close()
        self.wakeup.close()
        if self.fd >= 0:
            close(self.fd)
        self.fd = -1

    def run(self, drop_rights=None) -> None:
        """Play until the end, stop() or an error, which is kept in `failure`; then end the ring.

        drop_rights: called first, to give up this thread's privileges; may be None.
        """
        cdef int result = 0
        try:
            if drop_rights is not None:
                drop_rights()
            with nogil:
                result = self._play()
            if self.problem != NULL:
                raise RecordingError(f"{self.path}: {self.problem.decode()} at byte {self.offset + self.at}")
            if result < 0:
                raise OSError(-result, os.strerror(-result), self.path)
        except BaseException as error:
            self.failure = error
        finally:
            self.ring.end()
            self.finished.release()

    cdef int _fill(self, size_t size) noexcept nogil:
        """Have `size` bytes in the buffer from `at` on, or all up to the end of the file: 0 or -errno."""
        cdef ssize_t got
        if self.end - self.at >= size:
            return 0
        memmove(self.buffer, self.buffer + self.at, self.end - self.at)
        self.offset += self.at
        self.end -= self.at
        self.at = 0
        while self.end < size:
            got = read(self.fd, self.buffer + self.end, BUFFER - self.end)
            if got < 0 and errno == EINTR:
                continue
            if got < 0:
                return -errno
            if got == 0:
                break
            self.end += got
        return 0

    cdef int _refuse(self, const char *problem) noexcept nogil:
        self.problem = problem
        return -1

    cdef int _wait(self, int timeout) noexcept nogil:
        """Wait until the ring may have room, stop() is called or `timeout` ms pass; 0 or -errno."""
        cdef pollfd fds[2]
        cdef int i
        for i in range(2):
            fds[i].fd = self.ring.freed.fd if i == 0 else self.wakeup.fd
            fds[i].events = POLLIN
            fds[i].revents = 0
        return -errno if poll(fds, 2, timeout) < 0 and errno != EINTR else 0

    cdef int64_t _early(self, const record_t *record) noexcept nogil:
        """How many ns it is too early for a record, by `speed`."""
        cdef int64_t time = record.loss.time if record.kind == RECORD_LOSS else record.flow.time
        cdef double due
        if self.speed == 0:
            return 0
        if self.first == 0:
            self.first, self.began = time, monotonic_ns()
        due = (<double>time - <double>self.first) / self.speed - <double>(monotonic_ns() - self.began)
        return <int64_t>min(max(due, 0.), 1e18)

    cdef int _play(self) noexcept nogil:
        cdef record_t next
        cdef record_t *records
        cdef int room = 0
        cdef int count = 0
        cdef int result = 0
        cdef int64_t early
        cdef bint held = False       # `next` holds a record that is not in the ring yet
        while result >= 0 and not self.stopping and (held or not self.over):
            records = self.ring.room(&room)
            if room == 0:
                result = self._wait(ROOM_MS)
                continue
            count = 0
            early = 0
            while count < min(room, <int>BATCH) and (held or not self.over):
                if not held:
                    result = self._next(&next)
                    held = result == NEXT_RECORD
                    if result < 0:
                        break
                    continue
                early = self._early(&next)
                if early:
                    break
                records[count] = next
                held = False
                count += 1
            self.ring.publish(count)
            if early:
                result = self._wait_until(early)
        if held:
            record_drop(&next)
        return result

    cdef int _wait_until(self, int64_t early) noexcept nogil:
        cdef pollfd fd
        fd.fd, fd.events, fd.revents = self.wakeup.fd, POLLIN, 0
        return -errno if poll(&fd, 1, <int>min(early // 1000000 + 1, <int64_t>WAIT_MS)) < 0 and errno != EINTR else 0

    cdef int _next(self, record_t *record) noexcept nogil:
        """Read one chunk. Return NEXT_RECORD if it is one, which then owns its references, NEXT_NOTHING, or -errno."""
        cdef chunk_t chunk
        cdef const char *data
        cdef int result = self._fill(sizeof(chunk))
        if result < 0:
            return result
        if self.end - self.at < sizeof(chunk):
            return self._refuse(b"the recording was cut off, or is still being written: it has no end")
        memcpy(&chunk, self.buffer + self.at, sizeof(chunk))
        if chunk.size > CHUNK_MAX or not CHUNK_HOST <= chunk.type <= CHUNK_END:
            return self._refuse(b"damaged: there is no such chunk")
        result = self._fill(chunk_step(&chunk))
        if result < 0:
            return result
        if self.end - self.at < chunk_step(&chunk):
            return self._refuse(b"the recording was cut off, or is still being written: it ends within the chunk")
        data = self.buffer + self.at + sizeof(chunk)
        result = NEXT_NOTHING
        if chunk.type == CHUNK_PROCESS:
            result = self._take_process(data, chunk.size)
        elif chunk.type == CHUNK_FLOW:
            result = self._take_flow(data, chunk.size, record)
        elif chunk.type == CHUNK_LOSS:
            result = self._take_loss(data, chunk.size, record)
        elif chunk.type == CHUNK_END:
            result = self._take_end(data, chunk.size)
        if result >= 0:
            self.at += chunk_step(&chunk)
        return result

    cdef int _take_end(self, const char *data, size_t size) noexcept nogil:
        cdef end_chunk_t fixed
        if size != sizeof(fixed):
            return self._refuse(b"damaged: an end of another size")
        memcpy(&fixed, data, sizeof(fixed))
        if fixed.flows != self.events or fixed.losses != self.losses:
            return self._refuse(b"damaged: flows are missing before the end")
        self.over = True
        return NEXT_NOTHING

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

    cdef int _take_process(self, const char *data, size_t size) noexcept nogil:
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
        return NEXT_NOTHING if self.slots[fixed.slot] != NULL else -ENOMEM

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

    cdef bint _is_wanted(self, const flow_t *flow) noexcept nogil:
        if not self.wanted_types[flow.type & 7]:
            return False
        return ((flow.orig.family == AF_INET or flow.orig.family == AF_INET6)
                and self.flow_filter.may_be_wanted(flow))

    cdef int _take_flow(self, const char *data, size_t size, record_t *record) noexcept nogil:
        cdef flow_chunk_t fixed
        cdef int result
        if size < sizeof(fixed):
            return self._refuse(b"damaged: a flow that is too short")
        memcpy(&fixed, data, sizeof(fixed))
        data += sizeof(fixed)
        size -= sizeof(fixed)
        if (fixed.message_size > size or fixed.direction >= DIRECTIONS or fixed.has & ~<int>MARKS
                or event_name(fixed.type) == NULL or fixed.first_seen > SEEN_ALL):
            return self._refuse(b"damaged: a flow that cannot be")
        memset(record, 0, sizeof(record_t))
        if self.decoder.decode(data, fixed.message_size, &record.flow, 1, fixed.time, 0) != 1:
            return self._refuse(b"damaged: a message that cannot be decoded")
        data += fixed.message_size
        size -= fixed.message_size
        record.flow.netns_inode = fixed.netns
        record.direction = fixed.direction
        record.first_seen = fixed.first_seen
        record.flow.type = fixed.type
        record.flow.has |= fixed.has
        result = self._take_owner(&data, &size, &record.owner)
        if result == 0:
            result = self._take_owner(&data, &size, &record.peer)
        if result == 0 and size:
            result = self._refuse(b"damaged: a flow that is too long")
        if result < 0:
            record_drop(record)
            return result
        self.events += 1
        self.recovered += fixed.has & FLOW_RECOVERED != 0
        if not self._is_wanted(&record.flow):
            self.filtered += 1
            record_drop(record)
            return NEXT_NOTHING
        if self.flow_filter.keep_wanted(record, 1) == 0:       # which has dropped it
            self.filtered += 1
            return NEXT_NOTHING
        self.named += record.owner.process != NULL
        return NEXT_RECORD

    cdef int _take_loss(self, const char *data, size_t size, record_t *record) noexcept nogil:
        cdef loss_chunk_t fixed
        if size != sizeof(fixed):
            return self._refuse(b"damaged: a loss of another size")
        memcpy(&fixed, data, sizeof(fixed))
        memset(record, 0, sizeof(record_t))
        record.kind = RECORD_LOSS
        record.loss.time, record.loss.since, record.loss.netns_inode = fixed.time, fixed.since, fixed.netns
        record.loss.events, record.loss.at_least = fixed.events, fixed.at_least != 0
        self.losses += 1
        self.lost += fixed.events
        self.unallocated += fixed.at_least != 0
        return NEXT_RECORD
