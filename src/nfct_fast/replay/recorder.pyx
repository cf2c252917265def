"""Write a recording while flows are read. recording_format.pxd describes it.

The reading thread only copies into memory; a thread of its own writes. If the disk is so slow that BUFFER bytes are
waiting already, flows are left out of the recording, counted, and recorded as lost in their place.

This file has more than 400 lines: encoding, buffer and writing thread share one lock and one table of processes.
"""
cimport cython
from libc.errno cimport EAGAIN, EINTR, ENOMEM, ETIMEDOUT, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from posix.unistd cimport close, write
from posix_pthread cimport pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock
from sys_socket cimport POLLIN, POLLOUT, poll, pollfd
from nfct_fast.kernel.clock cimport realtime_ns
from nfct_fast.events.message_encoder cimport message_put
from nfct_fast.records.owner cimport other_count
from nfct_fast.processes.process cimport ancestor_t, process_drop, process_t, process_take
from nfct_fast.replay.recording_format cimport (
    ANCESTORS_MAX, CHUNK_END, CHUNK_FLOW, CHUNK_LOSS, CHUNK_MAX, CHUNK_PROCESS, CHUNK_SEEN, MARKS, ancestor_part_t,
    chunk_step, chunk_t, end_chunk_t, flow_chunk_t, loss_chunk_t, owner_part_t, process_chunk_t,
)
from nfct_fast.text.text_buffer cimport buffer_free, buffer_put, text_buffer_t

import os
from _thread import allocate_lock, start_new_thread

from nfct_fast.replay.recording_host import beginning

# What a CHUNK_PROCESS holds in a buffer, with a reference: the writing thread makes the real one of it.
cdef struct slot_t:
    uint32_t slot
    process_t *process

cdef enum:
    BUFFER = 8 << 20             # twice: 25,000 flows each
    WAKE = 1 << 18               # bytes that are written without waiting for more
    WRITE_MS = 200               # how long less than that waits
    RESERVED = 600               # slots that are not used again soon: one flow names at most 514 processes


cdef void pad(text_buffer_t *out) noexcept nogil:
    # Chunks begin at multiples of 8, as what reads messages expects of their addresses.
    buffer_put(out, b"\0\0\0\0\0\0\0", (8 - out.length % 8) % 8)


cdef void put_process(text_buffer_t *out, uint32_t slot, const process_t *process) noexcept nogil:
    cdef chunk_t chunk
    cdef process_chunk_t fixed
    cdef ancestor_part_t part
    cdef const ancestor_t *at
    cdef size_t begin = out.length
    memset(&chunk, 0, sizeof(chunk))
    memset(&fixed, 0, sizeof(fixed))
    fixed.slot, fixed.has, fixed.pid, fixed.ppid = slot, process.has, process.pid, process.ppid
    fixed.uid, fixed.gid, fixed.login_uid, fixed.ns_pid = process.uid, process.gid, process.login_uid, process.ns_pid
    fixed.start, fixed.start_ns, fixed.netns = process.start, process.start_ns, process.netns
    fixed.cmdline_whole, fixed.exe_dev, fixed.exe_inode = process.cmdline_size, process.exe_dev, process.exe_inode
    fixed.comm_size, fixed.exe_size = <uint32_t>process.comm.size, <uint32_t>process.exe.size
    fixed.cmdline_size, fixed.cgroup_size = <uint32_t>process.cmdline.size, <uint32_t>process.cgroup.size
    fixed.cgroup_trusted = <uint32_t>process.cgroup_trusted
    buffer_put(out, <const char *>&chunk, sizeof(chunk))
    buffer_put(out, <const char *>&fixed, sizeof(fixed))
    buffer_put(out, process.comm.at, process.comm.size)
    buffer_put(out, process.exe.at, process.exe.size)
    buffer_put(out, process.cmdline.at, process.cmdline.size)
    buffer_put(out, process.cgroup.at, process.cgroup.size)
    at = process.ancestors
    while at != NULL and fixed.ancestors < ANCESTORS_MAX:
        part.start_ns, part.pid = at.start_ns, at.pid
        part.comm_size, part.exe_size = <uint16_t>at.comm.size, <uint16_t>at.exe.size
        buffer_put(out, <const char *>&part, sizeof(part))
        buffer_put(out, at.comm.at, at.comm.size)
        buffer_put(out, at.exe.at, at.exe.size)
        fixed.ancestors += 1
        at = at.next
    if not out.failed:
        chunk.size, chunk.type = <uint32_t>(out.length - begin - sizeof(chunk)), CHUNK_PROCESS
        memcpy(out.data + begin, &chunk, sizeof(chunk))
        memcpy(out.data + begin + sizeof(chunk), &fixed, sizeof(fixed))
        pad(out)


cdef void drop_processes(const char *data, size_t length) noexcept nogil:
    """Drop the references that chunks of a buffer hold."""
    cdef chunk_t chunk
    cdef slot_t placed
    while length:
        memcpy(&chunk, data, sizeof(chunk))
        if chunk.type == CHUNK_PROCESS:
            memcpy(&placed, data + sizeof(chunk), sizeof(placed))
            process_drop(placed.process)
        data += chunk_step(&chunk)
        length -= chunk_step(&chunk)


@cython.final
@cython.auto_pickle(False)
cdef class Recorder:
    """Makes a file and writes what is added to it.

    Args:
        path: a file that does not exist. It is made with mode 0600: command lines may hold secrets. If it is the
            directory of a store, `pipe` is where the recording goes.
        presentation: of the host.
        redactor: hides what must not be seen of command lines, in the writing thread alone; or None.
        notices: where a sentence goes if something cannot be recorded.
        pipe: the descriptor of a pipe to a store, which is the recorder's from now on; or -1.

    Raises OSError: FileExistsError if there is such a file.
    """

    def __cinit__(self, path, Presentation presentation not None, Redactor redactor, notices, int pipe=-1):
        self.fd = pipe
        if pthread_mutex_init(&self.mutex, NULL) != 0:
            raise MemoryError("mutex")
        self.path = os.fsdecode(path)
        self.to_store = pipe >= 0
        self.what = f"the {'store' if self.to_store else 'recording'} {self.path}"
        self.redactor = redactor
        self.notices = notices
        self.wakeup = Wakeup()
        self.finished = allocate_lock()
        for i in range(2):
            # Untouched pages take no memory.
            self.buffers[i] = <char *>malloc(BUFFER)
            if self.buffers[i] == NULL:
                raise MemoryError("recording")
        if not self.to_store:
            # Never an existing file: others may have made it to read along, or a link to one that is not theirs.
            self.fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(self.fd, beginning(presentation.identity))
        except BrokenPipeError:
            pass        # the store's process has ended, which is heard of otherwise
        if self.to_store:
            os.set_blocking(self.fd, False)     # a write is never waited for without a look at the time

    def __dealloc__(self):
        cdef int i
        self._forget()
        self._discard()
        drop_processes(self.chunks.data, self.complete)
        for i in range(2):
            free(self.buffers[i])
        buffer_free(&self.chunks)
        buffer_free(&self.out)
        if self.fd >= 0:
            close(self.fd)
        pthread_mutex_destroy(&self.mutex)

    def start(self, drop_rights=None) -> None:
        """Start the writing thread. drop_rights: called first in it, to give up privileges."""
        self.finished.acquire()
        self.started = True
        start_new_thread(self._run, (drop_rights,))

    def finish(self, double seconds) -> None:
        """Write what was added, and close the file; when `seconds` have passed, count the rest as not recorded.

        Nothing is added any more. Calling it again is harmless.
        """
        if self.stopping:
            return
        self.stopping = True
        self.wakeup.notify()
        if not self.started or self.finished.acquire(timeout=seconds):
            self.abandon()
            return
        self.given_up = True
        pthread_mutex_lock(&self.mutex)
        self.unrecorded_count += self.filled_flows + self.writing_flows
        self._discard()
        pthread_mutex_unlock(&self.mutex)

    def abandon(self) -> None:
        """Close the descriptors: there is no writing thread, as in a forked child, or not any more."""
        if self.fd >= 0:
            close(self.fd)
        self.fd = -1
        self.wakeup.close()

    @property
    def unrecorded(self) -> int:
        """Flows that are not in the file, as it could not be written, or not fast enough."""
        return self.unrecorded_count

    @property
    def recorded(self) -> int:
        """Flows that were written."""
        return self.written_flows

    def _run(self, drop_rights):
        cdef int result = 0
        try:
            if drop_rights is not None:
                drop_rights()
            while result >= 0:
                with nogil:
                    result = self._write_next()
                self._complain(-result if result < 0 else 0)
                if result == 2:
                    break
        except OSError as error:         # the rights could not be given up
            self.failure = <int>error.errno
            self._complain(error.errno)
        finally:
            # Not `wakeup`, which the reading thread may be about to use.
            close(self.fd)
            self.fd = -1
            self.finished.release()

    def _complain(self, number):
        if number:
            if not self.to_store:
                self.notices.add(f"{self.what} ends here: {os.strerror(number)}")
        elif self.unrecorded_count and not self.complained and not self.failure:
            self.complained = True
            self.notices.add(f"flows are missing in {self.what}: it cannot be written fast enough")

    cdef int _write(self, const char *data, size_t length) noexcept nogil:
        cdef ssize_t written
        while length:
            written = write(self.fd, data, length)
            if written < 0 and errno == EINTR:
                continue
            if written < 0 and errno == EAGAIN:
                if self._wait_for_store() < 0:
                    return -ETIMEDOUT
                continue
            if written < 0:
                return -errno
            data += written
            length -= written
        return 0

    cdef int _wait_for_store(self) noexcept nogil:
        """Wait a little until the pipe has room; 0, or -ETIMEDOUT once nobody waits for that any more."""
        cdef pollfd ready
        ready.fd, ready.events, ready.revents = self.fd, POLLOUT, 0
        if poll(&ready, 1, WRITE_MS) == 0:
            # The store's process is stopped, or its disk is slow.
            with gil:
                self._complain(0)
            if self.given_up:
                return -ETIMEDOUT
        return 0

    cdef int _write_chunks(self, const char *data, size_t length) noexcept nogil:
        """Write a buffer, with processes in place of the pointers to them, whose references it drops; 0 or -errno."""
        cdef chunk_t chunk
        cdef slot_t placed
        self.out.length = 0
        while length:
            memcpy(&chunk, data, sizeof(chunk))
            if chunk.type == CHUNK_PROCESS:
                memcpy(&placed, data + sizeof(chunk), sizeof(placed))
                self._put_process(placed.slot, placed.process)
                process_drop(placed.process)
            else:
                buffer_put(&self.out, data, chunk_step(&chunk))
            data += chunk_step(&chunk)
            length -= chunk_step(&chunk)
        if self.out.failed:
            self.out.failed = False
            return -ENOMEM
        return self._write(self.out.data, self.out.length)

    cdef void _put_process(self, uint32_t slot, process_t *process) noexcept nogil:
        cdef process_t *shown = process
        if self.redactor is not None:
            shown = self.redactor._redacted(process)
        if shown == NULL:
            self.out.failed = True
            return
        put_process(&self.out, slot, shown)
        if shown != process:
            process_drop(shown)

    cdef void _discard(self) noexcept nogil:
        drop_processes(self.buffers[self.filling], self.filled)
        self.filled = self.filled_flows = self.filled_losses = 0

    cdef int _write_next(self) noexcept nogil:
        """Write what waits: 1 if there may be more, 2 at the end, -errno."""
        cdef pollfd ready
        cdef char *data
        cdef size_t length
        cdef uint64_t flows, losses
        cdef bint last = self.stopping
        cdef int result
        pthread_mutex_lock(&self.mutex)
        data, length, flows, losses = self.buffers[self.filling], self.filled, self.filled_flows, self.filled_losses
        if length:
            self.filling ^= 1
            self.filled = self.filled_flows = self.filled_losses = 0
            self.writing_flows = flows
        pthread_mutex_unlock(&self.mutex)
        if length == 0:
            if last:
                return self._write_end() or 2
            ready.fd, ready.events, ready.revents = self.wakeup.fd, POLLIN, 0
            if poll(&ready, 1, WRITE_MS) == 1:
                self.wakeup.drain()
            return 1
        result = self._write_chunks(data, length)
        pthread_mutex_lock(&self.mutex)
        self.writing_flows = 0
        if result == 0:
            self.written_flows += flows
            self.written_losses += losses
            pthread_mutex_unlock(&self.mutex)
            return 1
        self.failure = -result
        if not self.given_up:        # else finish() has counted them
            self.unrecorded_count += flows + self.filled_flows
        self._discard()
        pthread_mutex_unlock(&self.mutex)
        return result

    cdef int _write_end(self) noexcept nogil:
        cdef chunk_t chunk
        cdef end_chunk_t end
        cdef int result
        chunk.size, chunk.type = sizeof(end), CHUNK_END
        end.flows, end.losses = self.written_flows, self.written_losses
        result = self._write(<const char *>&chunk, sizeof(chunk))
        return result or self._write(<const char *>&end, sizeof(end))

    cdef void add(self, const record_t *record, const void *message, size_t length) noexcept nogil:
        cdef chunk_t chunk
        cdef flow_chunk_t fixed
        cdef size_t begin
        memset(&chunk, 0, sizeof(chunk))
        self.flows += 1
        if self.failure:
            return
        if self.missing and self.told == 0:
            self._tell_of_missing()
        self._place(&record.owner, self.placed[0])
        self._place(&record.peer, self.placed[1])
        memset(&fixed, 0, sizeof(fixed))
        fixed.time, fixed.netns, fixed.direction = record.flow.time, record.flow.netns_inode, record.direction
        fixed.has, fixed.type, fixed.seen = record.flow.has & MARKS, record.flow.type, record.first_seen
        fixed.began, fixed.is_responder = record.began, record.is_responder
        begin = self.chunks.length
        buffer_put(&self.chunks, <const char *>&chunk, sizeof(chunk))
        buffer_put(&self.chunks, <const char *>&fixed, sizeof(fixed))
        if message != NULL:
            buffer_put(&self.chunks, <const char *>message, length)
        else:
            message_put(&self.chunks, &record.flow)
        fixed.message_size = <uint32_t>(self.chunks.length - begin - sizeof(chunk) - sizeof(fixed))
        self._put_owner(&record.owner, self.placed[0])
        self._put_owner(&record.peer, self.placed[1])
        if not self.chunks.failed:
            chunk.size, chunk.type = <uint32_t>(self.chunks.length - begin - sizeof(chunk)), CHUNK_FLOW
            memcpy(self.chunks.data + begin, &chunk, sizeof(chunk))
            memcpy(self.chunks.data + begin + sizeof(chunk), &fixed, sizeof(fixed))
        self._complete()

    cdef void add_loss(self, const loss_t *loss) noexcept nogil:
        cdef chunk_t chunk
        cdef loss_chunk_t fixed
        memset(&fixed, 0, sizeof(fixed))
        fixed.time, fixed.since, fixed.netns = loss.time, loss.since, loss.netns_inode
        fixed.events, fixed.at_least = loss.events, loss.at_least
        chunk.size, chunk.type = sizeof(fixed), CHUNK_LOSS
        buffer_put(&self.chunks, <const char *>&chunk, sizeof(chunk))
        buffer_put(&self.chunks, <const char *>&fixed, sizeof(fixed))
        self.losses += 1
        self._complete()

    cdef void add_seen(self, const char *content, size_t length) noexcept nogil:
        cdef chunk_t chunk
        if length == 0 or length > CHUNK_MAX:
            return
        chunk.size, chunk.type = <uint32_t>length, CHUNK_SEEN
        buffer_put(&self.chunks, <const char *>&chunk, sizeof(chunk))
        buffer_put(&self.chunks, content, length)
        self._complete()

    cdef void _complete(self) noexcept nogil:
        pad(&self.chunks)
        if not self.chunks.failed:
            self.complete = self.chunks.length

    cdef void commit(self) noexcept nogil:
        cdef bint wake = False
        cdef bint kept
        pthread_mutex_lock(&self.mutex)
        kept = not self.chunks.failed and self.failure == 0 and self.filled + self.chunks.length <= BUFFER
        if kept:
            memcpy(self.buffers[self.filling] + self.filled, self.chunks.data, self.chunks.length)
            wake = self.filled < WAKE and self.filled + self.chunks.length >= WAKE
            self.filled += self.chunks.length
            self.filled_flows += self.flows
            self.filled_losses += self.losses
        else:
            self.unrecorded_count += self.flows
        pthread_mutex_unlock(&self.mutex)
        if wake:
            self.wakeup.notify()
        if kept:
            self.missing -= self.told
        else:
            # The file does not have the processes of this batch.
            self.missing += self.flows
            self._forget()
            drop_processes(self.chunks.data, self.complete)
        self.chunks.failed = False
        self.chunks.length = self.complete = self.flows = self.losses = self.told = 0

    cdef void _tell_of_missing(self) noexcept nogil:
        cdef loss_t loss
        memset(&loss, 0, sizeof(loss))
        loss.time = realtime_ns()
        loss.events = self.told = self.missing
        self.add_loss(&loss)

    cdef void _forget(self) noexcept nogil:
        cdef int i
        for i in range(SLOTS):
            process_drop(self.slots[i])
            self.slots[i] = NULL

    cdef uint32_t _slot(self, process_t *process) noexcept nogil:
        """The slot of a process, or SLOTS if it is in none that lasts until the end of this flow."""
        cdef uint32_t slot = self.hints[(<size_t>process >> 4) % HINTS]
        # Slots are used again in turn.
        if self.slots[slot] == process and (slot - self.next_slot) % SLOTS >= RESERVED:
            return slot
        return SLOTS

    cdef void _place(self, const owner_t *owner, uint32_t *placed) noexcept nogil:
        """Write those processes of an owner that the file does not have, and fill in the slots + 1 of all."""
        cdef process_t *process
        cdef chunk_t chunk
        cdef slot_t entry
        cdef uint32_t slot
        cdef int i
        for i in range(-2, min(other_count(owner), <int>OTHERS_MAX)):
            process = owner.process if i == -2 else owner.cgroup if i == -1 else owner.others.at[i]
            placed[i + 2] = 0
            if process == NULL:
                continue
            slot = self._slot(process)
            placed[i + 2] = slot + 1
            if slot < SLOTS:
                continue
            slot = self.next_slot
            placed[i + 2] = slot + 1
            self.next_slot = (slot + 1) % SLOTS
            process_drop(self.slots[slot])
            self.slots[slot] = process_take(process)
            self.hints[(<size_t>process >> 4) % HINTS] = <uint16_t>slot
            chunk.size, chunk.type = sizeof(entry), CHUNK_PROCESS
            entry.slot, entry.process = slot, process_take(process)
            buffer_put(&self.chunks, <const char *>&chunk, sizeof(chunk))
            buffer_put(&self.chunks, <const char *>&entry, sizeof(entry))
            self._complete()
            if self.chunks.failed:
                process_drop(process)

    cdef void _put_owner(self, const owner_t *owner, const uint32_t *placed) noexcept nogil:
        cdef owner_part_t part
        memset(&part, 0, sizeof(part))
        part.inode, part.cookie, part.cgroup_id = owner.inode, owner.cookie, owner.cgroup_id
        part.uid, part.gid = owner.uid, owner.gid
        part.other_count = <uint8_t>min(other_count(owner), <int>OTHERS_MAX)
        part.has, part.match, part.reason = owner.has, owner.match, owner.reason
        part.process, part.cgroup = placed[0], placed[1]
        buffer_put(&self.chunks, <const char *>&part, sizeof(part))
        buffer_put(&self.chunks, <const char *>(placed + 2), part.other_count * sizeof(uint32_t))
