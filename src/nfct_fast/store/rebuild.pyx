"""Make a recording of rows of a store: what Conntrack(replay=) plays, and so everything that can be said of a flow."""
cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy
from nfct_fast.replay.recording_format cimport (
    CHUNK_END, CHUNK_FLOW, CHUNK_LOSS, CHUNK_MAX, CHUNK_PROCESS, SLOTS, chunk_step, chunk_t, end_chunk_t, flow_chunk_t,
    owner_part_t, process_chunk_t,
)
from nfct_fast.store.packing cimport unpack
from nfct_fast.text.text_buffer cimport buffer_free, buffer_put, text_buffer_t

import os

from nfct_fast.store.schema import StoreError

cdef enum:
    OF_ONE_FLOW = 600            # processes of one flow, at most: their slots are not used again before its end
    WRITE = 1 << 18              # bytes that are written at once
    PADDED = CHUNK_MAX + 64      # room for a chunk and its chunk_t, and zeros


@cython.final
@cython.auto_pickle(False)
cdef class _Rebuilder:
    cdef text_buffer_t out
    cdef uint8_t *chunk          # PADDED bytes: the one that is being unpacked
    cdef uint8_t *process        # likewise, of a process
    cdef int fd
    cdef object find             # of a process's id -> its packed chunk
    cdef dict slots              # of a process's id -> its slot
    cdef list ids                # by slot, the process's id, or None
    cdef uint32_t next_slot
    cdef uint64_t flows, losses

    def __cinit__(self, int fd, find):
        self.fd, self.find = fd, find
        self.slots, self.ids = {}, [None] * SLOTS
        self.chunk, self.process = <uint8_t *>malloc(PADDED), <uint8_t *>malloc(PADDED)
        if self.chunk == NULL or self.process == NULL:
            raise MemoryError("recording")

    def __dealloc__(self):
        buffer_free(&self.out)
        free(self.chunk)
        free(self.process)

    cdef int flush(self, size_t most) except -1:
        cdef bytes data
        if self.out.failed:
            raise MemoryError("recording")
        if self.out.length > most:
            data = self.out.data[:self.out.length]
            self.out.length = 0
            view = memoryview(data)
            while view:
                view = view[os.write(self.fd, view):]
        return 0

    cdef int unpacked(self, object packed, uint8_t *out, chunk_t *head) except -1:
        """Unpack a chunk to out[0..PADDED), with zeros up to the next multiple of 8."""
        cdef ssize_t size
        if not isinstance(packed, bytes):
            raise StoreError("damaged: a row without a record")
        size = unpack(<const uint8_t *>(<char *><bytes>packed), len(packed), out, PADDED)
        if size < <ssize_t>sizeof(chunk_t):
            raise StoreError("damaged: a record that cannot be unpacked")
        memcpy(head, out, sizeof(chunk_t))
        if head.size > CHUNK_MAX or chunk_step(head) != <size_t>size:
            raise StoreError("damaged: a record of another size")
        return 0

    cdef uint32_t slot(self, uint32_t id) except? 0:
        """The slot + 1 of a process; writes it first if the recording does not have it."""
        cdef chunk_t head
        cdef uint32_t slot
        found = self.slots.get(id)
        # Slots are used again in turn: one that is used soon has to be moved on, lest it goes while a flow is made.
        if found is not None and (<uint32_t>found - self.next_slot) % SLOTS >= OF_ONE_FLOW:
            return <uint32_t>found + 1
        self.unpacked(self.find(id), self.process, &head)
        if head.type != CHUNK_PROCESS or head.size < sizeof(process_chunk_t):
            raise StoreError("damaged: a process that is none")
        slot = self.next_slot
        self.next_slot = (slot + 1) % SLOTS
        if self.ids[slot] is not None:
            self.slots.pop(self.ids[slot], None)
        if found is not None:
            self.ids[found] = None
        self.ids[slot] = id
        self.slots[id] = slot
        memcpy(self.process + sizeof(chunk_t), &slot, sizeof(slot))
        buffer_put(&self.out, <const char *>self.process, chunk_step(&head))
        return slot + 1

    cdef uint32_t owner(self, uint32_t at, uint32_t size) except 0:
        """Put slots in the place of ids in the owner_part_t at chunk[at], and return where it ends."""
        cdef owner_part_t part
        cdef uint32_t id
        cdef int _
        if at + sizeof(part) > size:
            raise StoreError("damaged: a flow that is too short")
        memcpy(&part, self.chunk + at, sizeof(part))
        if part.process:
            part.process = self.slot(part.process)
        if part.cgroup:
            part.cgroup = self.slot(part.cgroup)
        memcpy(self.chunk + at, &part, sizeof(part))
        at += sizeof(part)
        for _ in range(part.other_count):
            if at + sizeof(id) > size:
                raise StoreError("damaged: a flow that is too short")
            memcpy(&id, self.chunk + at, sizeof(id))
            id = self.slot(id)
            memcpy(self.chunk + at, &id, sizeof(id))
            at += sizeof(id)
        return at

    cdef int add(self, object packed) except -1:
        cdef chunk_t head
        cdef flow_chunk_t fixed
        cdef uint32_t at
        self.unpacked(packed, self.chunk, &head)
        if head.type == CHUNK_FLOW:
            if head.size < sizeof(fixed):
                raise StoreError("damaged: a flow that is too short")
            memcpy(&fixed, self.chunk + sizeof(chunk_t), sizeof(fixed))
            if fixed.message_size > CHUNK_MAX:
                raise StoreError("damaged: a flow that is too short")
            at = <uint32_t>(sizeof(chunk_t) + sizeof(fixed)) + fixed.message_size
            self.owner(self.owner(at, <uint32_t>sizeof(chunk_t) + head.size), <uint32_t>sizeof(chunk_t) + head.size)
            self.flows += 1
        elif head.type == CHUNK_LOSS:
            self.losses += 1
        else:
            raise StoreError("damaged: a record of another kind")
        buffer_put(&self.out, <const char *>self.chunk, chunk_step(&head))
        return self.flush(WRITE)

    cdef int end(self) except -1:
        cdef chunk_t head
        cdef end_chunk_t fixed
        head.size, head.type = sizeof(fixed), CHUNK_END
        fixed.flows, fixed.losses = self.flows, self.losses
        buffer_put(&self.out, <const char *>&head, sizeof(head))
        buffer_put(&self.out, <const char *>&fixed, sizeof(fixed))
        return self.flush(0)


def rebuild(connection, boot, records) -> int:
    """Return a descriptor of an anonymous file with a recording of rows, for Conntrack(replay=) and read_identity().

    Args:
        connection: A file of a store, from open_file().
        boot: `boot` of all these rows.
        records: Their `record`, of flow or loss, in the order in which they are played. About 10,000 at once are a
            good measure: they take 4 MB.

    Raises:
        StoreError: A row is damaged; what a row contains beyond its form, Conntrack(replay=) checks.
        sqlite3.Error: Reading a process failed.
        OSError: There is no memory.
    """
    cdef _Rebuilder rebuilder

    def find(id):
        row = connection.execute("SELECT record FROM process WHERE id = ?", (id,)).fetchone()
        return None if row is None else row[0]

    beginning = connection.execute("SELECT value FROM meta WHERE key = ?", (f"boot:{boot}",)).fetchone()
    if beginning is None or not isinstance(beginning[0], bytes):
        raise StoreError("damaged: it does not say who recorded a row")
    fd = os.memfd_create("nfct-fast-rows", os.MFD_CLOEXEC)
    try:
        rebuilder = _Rebuilder(fd, find)
        buffer_put(&rebuilder.out, <bytes>beginning[0], len(beginning[0]))
        for record in records:
            rebuilder.add(record)
        rebuilder.end()
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd
