"""Make rows of a recording as it comes through a pipe: the chunks themselves, packed, and columns to find them by."""
cimport cython
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memmove
from posix.unistd cimport read
from sys_socket cimport AF_INET6
from nfct_fast.events.community_id cimport COMMUNITY_DIGEST_SIZE, community_id_differs, community_id_digest
from nfct_fast.events.flow cimport EVENT_FLOW, EVENT_NEW, FLOW_REPLY, FLOW_START, flow_t, tuple_has_ports, tuple_t
from nfct_fast.processes.process cimport PROCESS_IDS, process_take
from nfct_fast.processes.process_object cimport Process, process_object
from nfct_fast.records.labels cimport event_name
from nfct_fast.records.record cimport record_drop, record_t
from nfct_fast.replay.recording_format cimport (
    CHUNK_END, CHUNK_FLOW, CHUNK_HOST, CHUNK_LOSS, CHUNK_MAX, CHUNK_PROCESS, CHUNK_SEEN, chunk_step, chunk_t,
    flow_chunk_t, loss_chunk_t, owner_part_t,
)
from nfct_fast.store.packing cimport pack, packed_room
from nfct_fast.text.protocol cimport protocol_write

import os

from nfct_fast.replay.recording_error import RecordingError
from nfct_fast.replay.recording_host import identity_of

cdef enum:
    HEADER = 16                  # bytes before the first chunk
    BUFFER = 1 << 20             # room for several chunks
    CHUNK_ROOM = CHUNK_MAX + 64

cdef int64_t HOUR_NS = 3600 * <int64_t>1000000000
cdef int64_t LAST_HOUR = 70_000_000      # the year 9955: later ones have no name

_NAMES = {number: event_name(number).decode() for number in range(256) if event_name(number) != NULL}


cdef int64_t _hour(int64_t time) noexcept nogil:
    return min(max(time, <int64_t>0) // HOUR_NS, LAST_HOUR)


cdef object _text(value):
    # SQLite's text is UTF-8: what is not is shown as in JSON. The packed chunk has the bytes.
    return None if value is None else value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


cdef object _address(const uint8_t *address, uint8_t family):
    return (<const char *>address)[:16 if family == AF_INET6 else 4]


cdef int64_t _community(const tuple_t *tuple) noexcept nogil:
    cdef uint8_t digest[COMMUNITY_DIGEST_SIZE]
    cdef uint64_t key = 0
    cdef int i
    community_id_digest(tuple, 0, digest)
    for i in range(8):
        key = key << 8 | digest[i]
    return <int64_t>key


@cython.final
@cython.auto_pickle(False)
cdef class FileRows:
    """Rows that wait to be inserted into one file.

    Args:
        hour: of the file, in hours since the epoch.
        boot: the row of `meta` that tells of this run.
        next_id: a process.id that is not used in the file, nor any above it.
        most: rows of flows to keep; further flows are counted in `refused`.
    """

    def __cinit__(self, int64_t hour, int boot, uint32_t next_id, Py_ssize_t most):
        self.hour, self.boot, self.next_id, self.most = hour, boot, next_id, most
        self.processes, self.flows, self.losses = [], [], []

    def __len__(self):
        return len(self.flows) + len(self.losses)

    def clear(self) -> None:
        """Forget the rows, which are in the file."""
        self.processes.clear()
        self.flows.clear()
        self.losses.clear()

    cdef uint32_t _process(self, RowMaker maker, uint32_t number) except? 0xffffffff:
        """The process.id of what is in slot `number` - 1, of which there is a row then; 0 for none."""
        cdef uint32_t slot = number - 1
        if number == 0:
            return 0
        if self.serials[slot] != maker.serials[slot]:
            self.serials[slot] = maker.serials[slot]
            self.ids[slot] = self.next_id
            self.next_id += 1
            self.processes.append((self.ids[slot], *maker.process_rows[slot], self.boot, maker.process_chunks[slot]))
        return self.ids[slot]


@cython.final
@cython.auto_pickle(False)
cdef class RowMaker:
    """Reads a recording from a descriptor, which stays the caller's, and makes rows of it.

    What has a damaged form is refused with RecordingError; a recording that ends early is not.
    """

    def __cinit__(self, int fd):
        self.fd = fd
        self.seen = []
        self.chunks = ChunkDecoder()
        self.process_rows, self.process_chunks, self.protocols = [None] * SLOTS, [None] * SLOTS, {}
        self.buffer = <uint8_t *>malloc(BUFFER)
        self.copy = <uint8_t *>malloc(CHUNK_ROOM)
        self.packed = <uint8_t *>malloc(packed_room(CHUNK_ROOM))
        if self.buffer == NULL or self.copy == NULL or self.packed == NULL:
            raise MemoryError("rows")

    def __dealloc__(self):
        free(self.buffer)
        free(self.copy)
        free(self.packed)

    def read(self) -> bool:
        """Read what there is, once; False if nothing will ever come. OSError."""
        cdef ssize_t got
        memmove(self.buffer, self.buffer + self.at, self.end - self.at)
        self.end -= self.at
        self.at = 0
        with nogil:
            got = read(self.fd, self.buffer + self.end, BUFFER - self.end)
        if got < 0 and errno != EINTR and errno != EAGAIN:
            raise OSError(errno, os.strerror(errno))
        self.end += max(<ssize_t>0, got)
        return got != 0

    def take(self, FileRows rows) -> int | None:
        """Put what was read into `rows`, as far as it belongs there.

        rows: of one hour; None before there are any.

        Returns the hour of the next record if it is another one, None once all that was read is taken.
        """
        cdef chunk_t head
        cdef const uint8_t *data
        cdef int64_t hour, time
        if self.beginning is None and not self._begin():
            return None
        while not self.over and self._has_chunk(&head):
            data = self.buffer + self.at
            if head.type == CHUNK_FLOW or head.type == CHUNK_LOSS:
                if head.size < sizeof(time):
                    raise RecordingError("damaged: a record that is too short")
                memcpy(&time, data + sizeof(head), sizeof(time))      # both begin with it
                hour = _hour(time)
                if rows is None or rows.hour != hour:
                    return hour
            if head.type == CHUNK_FLOW:
                self._take_flow(data, &head, rows)
            elif head.type == CHUNK_PROCESS:
                self._take_process(data, &head)
            elif head.type == CHUNK_LOSS:
                self._take_loss(data, &head, rows)
            elif head.type == CHUNK_SEEN:
                self.seen.append((<const char *>data)[sizeof(head):sizeof(head) + head.size])
            elif head.type == CHUNK_END:
                self.over = True
            self.at += chunk_step(&head)
        return None

    cdef bint _has_chunk(self, chunk_t *head) except -1:
        if self.end - self.at < sizeof(chunk_t):
            return False
        memcpy(head, self.buffer + self.at, sizeof(chunk_t))
        if head.size > CHUNK_MAX or not CHUNK_HOST <= head.type <= CHUNK_SEEN:
            raise RecordingError("damaged: there is no such chunk")
        return self.end - self.at >= chunk_step(head)

    cdef int _begin(self) except -1:
        """Read who recorded it, once that is there."""
        cdef chunk_t head
        cdef const uint8_t *data
        if self.end - self.at < HEADER + sizeof(head):
            return 0
        self.at += HEADER
        if not self._has_chunk(&head):
            self.at -= HEADER
            return 0
        data = self.buffer + self.at + sizeof(head)
        self.identity = Identity(*identity_of((<const char *>data)[:head.size], "the flows to be stored"))
        self.at += chunk_step(&head)
        self.beginning = (<const char *>self.buffer)[:self.at]
        return 1

    cdef int _check(self, int result) except -1:
        if self.chunks.problem != NULL:
            raise RecordingError(self.chunks.problem.decode())
        if result < 0:
            raise MemoryError("rows")
        return 0

    cdef object _pack(self, const uint8_t *data, const chunk_t *head):
        cdef size_t size = pack(data, chunk_step(head), self.packed)
        return (<const char *>self.packed)[:size]

    cdef int _take_process(self, const uint8_t *data, const chunk_t *head) except -1:
        cdef uint32_t slot = 0
        cdef Process process
        self._check(self.chunks.take_process(<const char *>data + sizeof(chunk_t), head.size, &slot))
        process = process_object(process_take(self.chunks.slots[slot]), self.identity)
        cmdline = process.cmdline
        self.process_rows[slot] = (
            process.entity_id if process.pid else None,
            process.pid or None,
            process._process.uid if process._process.has & PROCESS_IDS else None,
            _text(process.comm) or None,
            _text(process.exe),
            None if cmdline is None else _text(" ".join(cmdline)),
            _text(process.unit),
            _text(process.container),
        )
        self.process_chunks[slot] = self._pack(data, head)
        self.serial += 1
        self.serials[slot] = self.serial
        return 0

    cdef uint8_t *_number_owner(self, uint8_t *at, FileRows rows, uint32_t *id) except NULL:
        """Put ids in the place of slots in the owner_part_t there, and return where it ends. It was decoded before."""
        cdef owner_part_t part
        cdef uint32_t number
        cdef int _
        memcpy(&part, at, sizeof(part))
        if part.process or part.cgroup:
            part.process = rows._process(self, part.process)
            part.cgroup = rows._process(self, part.cgroup)
            memcpy(at, &part, sizeof(part))
        id[0] = part.process or part.cgroup
        at += sizeof(part)
        for _ in range(part.other_count):
            memcpy(&number, at, sizeof(number))
            number = rows._process(self, number)
            memcpy(at, &number, sizeof(number))
            at += sizeof(number)
        return at

    cdef object _protocol(self, const tuple_t *tuple):
        cdef char out[32]
        cdef int length
        key = tuple.family << 8 | tuple.proto
        name = self.protocols.get(key)
        if name is None:
            length = protocol_write(tuple.family, tuple.proto, out)
            name = self.protocols[key] = out[:length].decode("ascii")
        return name

    cdef int _take_flow(self, const uint8_t *data, const chunk_t *head, FileRows rows) except -1:
        cdef record_t record
        cdef flow_chunk_t fixed
        cdef flow_t *flow = &record.flow
        cdef tuple_t *orig = &flow.orig
        cdef tuple_t *reply = &flow.reply
        cdef bint ports, nat
        cdef uint32_t owner = 0, peer = 0
        cdef int64_t began = 0
        cdef uint8_t *at
        if len(rows.flows) >= rows.most:
            rows.refused += 1
            return 0
        self._check(self.chunks.take_flow(<const char *>data + sizeof(chunk_t), head.size, &record))
        record_drop(&record)         # its owners; all else stays
        memcpy(self.copy, data, chunk_step(head))
        memcpy(&fixed, self.copy + sizeof(chunk_t), sizeof(fixed))
        at = self.copy + sizeof(chunk_t) + sizeof(fixed) + fixed.message_size
        self._number_owner(self._number_owner(at, rows, &owner), rows, &peer)
        ports = tuple_has_ports(orig)
        nat = flow.has & FLOW_REPLY and (
            memcmp(orig.src, reply.dst, 16) != 0 or memcmp(orig.dst, reply.src, 16) != 0
            or ports and (orig.sport != reply.dport or orig.dport != reply.sport))
        if fixed.type != EVENT_NEW and flow.has & FLOW_START:
            began = flow.start
        elif fixed.type == EVENT_FLOW:
            began = fixed.began
        rows.flows.append((
            fixed.time,
            began or None,
            _NAMES[fixed.type],
            self._protocol(orig),
            _address(orig.src, orig.family),
            _address(orig.dst, orig.family),
            orig.sport if ports else None,
            orig.dport if ports else None,
            _address(reply.dst, orig.family) if nat else None,
            _address(reply.src, orig.family) if nat else None,
            reply.dport if nat and ports else None,
            reply.sport if nat and ports else None,
            _community(orig),
            _community(reply) if nat and community_id_differs(flow) else None,
            owner or None,
            peer or None,
            fixed.seen or None,
            rows.boot,
            self._pack(self.copy, head),
        ))
        return 0

    cdef int _take_loss(self, const uint8_t *data, const chunk_t *head, FileRows rows) except -1:
        cdef loss_chunk_t fixed
        if head.size != sizeof(fixed):
            raise RecordingError("damaged: a loss of another size")
        memcpy(&fixed, data + sizeof(chunk_t), sizeof(fixed))
        rows.losses.append((fixed.time, fixed.since or None, <int64_t>fixed.events, fixed.at_least, rows.boot,
                            self._pack(data, head)))
        return 0


def packed_loss(int64_t time, int64_t since, int64_t events) -> bytes:
    """Return the `record` of a loss, such as that of flows which could not be stored; times in ns since the epoch."""
    cdef uint8_t chunk[64]       # 48 are used
    cdef uint8_t packed[72]
    cdef chunk_t head
    cdef loss_chunk_t fixed
    cdef size_t size
    head.size, head.type = sizeof(fixed), CHUNK_LOSS
    fixed.time, fixed.since, fixed.netns, fixed.events, fixed.at_least, fixed.unused = time, since, 0, events, 0, 0
    memcpy(chunk, &head, sizeof(head))
    memcpy(chunk + sizeof(head), &fixed, sizeof(fixed))
    size = pack(chunk, sizeof(head) + sizeof(fixed), packed)
    return (<const char *>packed)[:size]
