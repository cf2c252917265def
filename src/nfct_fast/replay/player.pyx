"""Play a recording: put the same flows with the same owners into the ring, as a reading thread does.

chunk_decoder.pyx decodes its chunks, whatever the file contains; recording_format.pxd describes them.
"""
cimport cython
from libc.errno cimport EINTR, errno
from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove
from posix.unistd cimport close, read
from sys_socket cimport AF_INET, AF_INET6, POLLIN, poll, pollfd
from nfct_fast.events.flow cimport FLOW_RECOVERED
from nfct_fast.kernel.clock cimport monotonic_ns
from nfct_fast.records.record cimport RECORD_LOSS, record_drop
from nfct_fast.replay.chunk_decoder cimport BAD_CHUNK
from nfct_fast.replay.recording_format cimport (
    CHUNK_END, CHUNK_FLOW, CHUNK_HOST, CHUNK_LOSS, CHUNK_MAX, CHUNK_PROCESS, CHUNK_SEEN, chunk_step, chunk_t,
)

import os
from _thread import allocate_lock

from nfct_fast.replay.recording_error import RecordingError
from nfct_fast.replay.recording_host import open_recording

cdef enum:
    HEADER = 16                  # bytes before the first chunk
    BUFFER = 1 << 20             # room for several chunks
    BATCH = 256                  # records handed over at once, at most
    ROOM_MS = 1000               # how often a full ring is looked at again
    WAIT_MS = 1 << 30            # the longest wait in one go, with `speed`
    NEXT_RECORD = 1              # what _next() returns
    NEXT_NOTHING = 0


@cython.final
@cython.auto_pickle(False)
cdef class Player:
    """Plays a file into a ring, in run(), until its end or stop().

    Args:
        path: a recording, or a descriptor of one.
        ring: where the records go; the thread of run() is its producer.
        flow_filter: which flows are wanted.
        types: the wanted EVENT_*.
        speed: seconds of the recording to play in a second; 0 for as fast as they are taken.

    Raises OSError, and RecordingError if this is not a recording, or one that this version cannot read.
    """

    def __cinit__(self, path, Ring ring not None, FlowFilter flow_filter not None, types, double speed=0):
        self.fd = -1
        self.path = f"descriptor {path}" if isinstance(path, int) else os.fsdecode(path)
        self.ring = ring
        self.speed = speed
        self.chunks = ChunkDecoder()
        self.flow_filter = flow_filter
        for kind in types:
            self.wanted_types[kind] = 1
        self.wakeup = Wakeup()
        self.finished = allocate_lock()
        self.finished.acquire()
        self.buffer = <char *>malloc(BUFFER)
        if self.buffer == NULL:
            raise MemoryError("replay")
        self.fd = open_recording(path)
        self.offset = HEADER

    def __dealloc__(self):
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
            if self.chunks.problem != NULL:
                raise RecordingError(f"{self.path}: {self.chunks.problem.decode()} at byte {self.offset + self.at}")
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
        self.chunks.problem = problem
        return BAD_CHUNK

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
        cdef uint32_t slot = 0
        cdef int result = self._fill(sizeof(chunk))
        if result < 0:
            return result
        if self.end - self.at < sizeof(chunk):
            return self._refuse(b"the recording was cut off, or is still being written: it has no end")
        memcpy(&chunk, self.buffer + self.at, sizeof(chunk))
        if chunk.size > CHUNK_MAX or not CHUNK_HOST <= chunk.type <= CHUNK_SEEN:
            return self._refuse(b"damaged: there is no such chunk")
        result = self._fill(chunk_step(&chunk))
        if result < 0:
            return result
        if self.end - self.at < chunk_step(&chunk):
            return self._refuse(b"the recording was cut off, or is still being written: it ends within the chunk")
        data = self.buffer + self.at + sizeof(chunk)
        if chunk.type == CHUNK_PROCESS:
            result = self.chunks.take_process(data, chunk.size, &slot)
        elif chunk.type == CHUNK_FLOW:
            result = self.chunks.take_flow(data, chunk.size, record)
        elif chunk.type == CHUNK_LOSS:
            result = self.chunks.take_loss(data, chunk.size, record)
        elif chunk.type == CHUNK_END:
            result = self.chunks.take_end(data, chunk.size)
            self.over = result == 0
        if result < 0:
            return result
        self.at += chunk_step(&chunk)
        if chunk.type == CHUNK_FLOW:
            return self._wanted(record)
        if chunk.type == CHUNK_LOSS:
            self.lost += record.loss.events
            self.unallocated += record.loss.at_least
            return NEXT_RECORD
        return NEXT_NOTHING

    cdef int _wanted(self, record_t *record) noexcept nogil:
        """Count a flow, and drop it if it is not wanted."""
        self.recovered += record.flow.has & FLOW_RECOVERED != 0
        if not self._is_wanted(&record.flow):
            self.filtered += 1
            record_drop(record)
            return NEXT_NOTHING
        if self.flow_filter.keep_wanted(record, 1) == 0:       # which has dropped it
            self.filtered += 1
            return NEXT_NOTHING
        self.named += record.owner.process != NULL
        return NEXT_RECORD

    cdef bint _is_wanted(self, const flow_t *flow) noexcept nogil:
        if not self.wanted_types[flow.type & 7]:
            return False
        return ((flow.orig.family == AF_INET or flow.orig.family == AF_INET6)
                and self.flow_filter.may_be_wanted(flow))
