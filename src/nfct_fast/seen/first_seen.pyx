"""Mark the first flow of a program to an address, and to a port.

The program (the subject) is a user, an executed file and, where there is one, the systemd service or the container:
what the kernel and the host's root say, and the file's path. Within one user's programs a path proves little, as
they may run what they like under any name of theirs (LD_PRELOAD alone will do); but no user can use up or foul what is
remembered of another's, of a service's, or of a container's programs.

A flow counts as seen only once a record with its mark was wanted and goes to the reader, so that a mark is given too
often rather than never.

A subject with FIRST_MARKS new addresses within a day is roaming, as browsers and resolvers are: it is told once, and no
address of it is marked or remembered from then on. The same holds for ports, which is called scanning.
"""
cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy
from sys_socket cimport AF_INET
from nfct_fast.events.flow cimport tuple_has_ports, tuple_t
from nfct_fast.kernel.clock cimport realtime_ns
from nfct_fast.processes.cgroup cimport span_t
from nfct_fast.processes.process cimport PROCESS_EXE, PROCESS_IDS
from nfct_fast.records.record cimport (
    RECORD_FLOW, SEEN_DESTINATION, SEEN_PORT, SEEN_ROAMING, SEEN_SCANNING,
)
from nfct_fast.seen.seen_set cimport SEEN_FULL, SEEN_SYSTEM
from nfct_fast.text.text_buffer cimport buffer_free, buffer_put

import os

cdef extern from "nfct_fast/text/siphash.h" nogil:
    uint64_t nfct_fast_text_hash(const uint64_t *key, const char *data, size_t length)

KNOWN = 786_432      # addresses and ports that are remembered by default: 12 MiB in 16 MiB

cdef enum:
    KIND_DESTINATION = 1
    KIND_PORT = 2
    KIND_ROAMING = 3
    KIND_SCANNING = 4
    KIND_USER = 5
    FIRST_MARKS = 256            # new addresses, or ports, of one subject within a day
    DAY = 24 * 3600
    AGAIN = 6 * 3600             # seconds after which it is noted that something was seen again
    SYSTEM_USERS = 1000          # uids below are of the system
    NAME_ROOM = 256
    PATH_ROOM = 4096


cdef struct subject_t:
    uint32_t uid
    uint32_t unit_size
    uint32_t container_size
    uint32_t exe_size
    char text[2 * NAME_ROOM + PATH_ROOM]


cdef bint _ends(const span_t *span, const char *tail, size_t size) noexcept nogil:
    return span.size > size and memcmp(span.at + span.size - size, tail, size) == 0


cdef bint _is_service(const span_t *unit) noexcept nogil:
    """Whether it is a service of the system's: what runs in user@UID.service is a user's session."""
    if not _ends(unit, b".service", 8):
        return False
    return unit.size < 6 or memcmp(unit.at, b"user@", 5) != 0


cdef char *_after(char *out, const char *data, size_t size) noexcept nogil:
    """Copy a text, and return where it ends. What is empty may be NULL, which memcpy() does not take."""
    if size:
        memcpy(out, data, size)
    return out + size


@cython.final
@cython.auto_pickle(False)
cdef class FirstSeen:
    """What programs were seen to talk to, at 16 bytes for each address and port of each.

    Args:
        limit: how many of these are remembered.
        key: 16 secret bytes by which they were hashed; None for new ones.
        entries: what dump() returned, with the same key.
        kept: collect what is new in `news`.

    Raises MemoryError, ValueError.
    """

    def __cinit__(self, limit=KNOWN, bytes key=None, bytes entries=b"", bint kept=False):
        key = os.urandom(16) if key is None else key
        if len(key) != 16:
            raise ValueError("the key has 16 bytes")
        memcpy(self.key, <const char *>key, 16)
        self.known = SeenSet(limit)
        self.known.load(entries)
        self.kept = kept

    def __dealloc__(self):
        buffer_free(&self.news)

    cdef uint64_t _subject(self, const process_t *process) noexcept nogil:
        cdef subject_t subject
        cdef span_t unit = process.names.unit
        cdef span_t container = process.names.container
        cdef span_t exe = process.exe
        cdef char *out = subject.text
        if not _is_service(&unit):
            unit.size = 0
        # Of a service that is a container (Quadlet, nspawn), root chose the name; the id is another at each start.
        elif (process.names.runtime.size == 6 and memcmp(process.names.runtime.at, b"libpod", 6) == 0
                or process.names.runtime.size == 14 and memcmp(process.names.runtime.at, b"systemd-nspawn", 14) == 0):
            container.size = 0
        # The file was replaced while the program runs: it is the same program.
        if _ends(&exe, b" (deleted)", 10):
            exe.size -= 10
        subject.uid = process.uid
        subject.unit_size = <uint32_t>min(unit.size, <size_t>NAME_ROOM)
        subject.container_size = <uint32_t>min(container.size, <size_t>NAME_ROOM)
        subject.exe_size = <uint32_t>min(exe.size, <size_t>PATH_ROOM)
        out = _after(out, unit.at, subject.unit_size)
        out = _after(out, container.at, subject.container_size)
        out = _after(out, exe.at, subject.exe_size)
        return nfct_fast_text_hash(self.key, <const char *>&subject, out - <char *>&subject) or 1

    cdef uint64_t _hash(self, uint64_t subject, uint64_t kind, const uint64_t *address) noexcept nogil:
        cdef uint64_t words[4]
        words[0], words[1] = subject, kind
        if address != NULL:
            words[2], words[3] = address[0], address[1]
        # 0 is no entry.
        return nfct_fast_text_hash(self.key, <const char *>words, 32 if address != NULL else 16) or 1

    cdef void _seek(self, const record_t *record, sought_t *sought) noexcept nogil:
        cdef process_t *process = record.owner.process
        cdef const tuple_t *orig = &record.flow.orig
        cdef uint64_t address[2]
        sought.destination = sought.port = 0
        # Of a flow that came in, the server would be marked for whoever scans it.
        if (record.kind != RECORD_FLOW or process == NULL or record.is_responder
                or process.has & (PROCESS_EXE | PROCESS_IDS) != PROCESS_EXE | PROCESS_IDS or process.exe.size == 0):
            return
        if process.subject == 0:
            process.subject = self._subject(process)
        address[0] = address[1] = 0
        memcpy(address, orig.dst, 4 if orig.family == AF_INET else 16)
        sought.destination = self._hash(process.subject, KIND_DESTINATION | <uint64_t>orig.family << 8, address)
        sought.port = self._hash(
            process.subject, KIND_PORT | <uint64_t>orig.proto << 16
            | (<uint64_t>orig.dport << 32 if tuple_has_ports(orig) else 0), NULL)
        self.known.approach(sought.destination)
        self.known.approach(sought.port)

    cdef int _mark(self, uint64_t hash, uint64_t subject, uint64_t budget, int mark, int last_mark) noexcept nogil:
        """What a hash that is not known is marked with. budget: the KIND of the entry that counts these marks."""
        cdef seen_entry_t *entry = self.known.find(hash)
        if entry == NULL:
            entry = self.known.find(self._hash(subject, budget, NULL))
            if entry == NULL or entry.count != SEEN_FULL and self.now - entry.last >= <uint32_t>DAY:
                return mark
            if entry.count != SEEN_FULL:
                return mark if entry.count + 1 < FIRST_MARKS else mark | last_mark
        if self.now > entry.last and self.now - entry.last >= <uint32_t>AGAIN:
            entry.last = self.now
            self._tell(entry)
        return 0

    cdef void _look(self, record_t *record, const sought_t *sought) noexcept nogil:
        cdef uint64_t subject
        if sought.destination == 0:
            return
        subject = record.owner.process.subject
        record.first_seen = <uint8_t>(
            self._mark(sought.destination, subject, KIND_ROAMING, SEEN_DESTINATION, SEEN_ROAMING)
            | self._mark(sought.port, subject, KIND_SCANNING, SEEN_PORT, SEEN_SCANNING))

    cdef void _tell(self, const seen_entry_t *entry) noexcept nogil:
        cdef uint32_t sizes[2]
        if not self.kept:
            return
        if self.news.length == 0:
            sizes[0], sizes[1] = self.known.limit, 0
            self.news.failed = False
            buffer_put(&self.news, <const char *>self.key, 16)
            buffer_put(&self.news, <const char *>sizes, sizeof(sizes))
        buffer_put(&self.news, <const char *>entry, sizeof(entry[0]))

    cdef void _add(self, uint64_t hash, uint16_t group, uint16_t count, uint32_t last) noexcept nogil:
        cdef seen_entry_t entry
        entry.hash, entry.last, entry.group, entry.count = hash, last, group, count
        # Without memory it is not remembered, and will be marked again.
        if self.known.add(&entry) == 0:
            self._tell(&entry)

    cdef void _count(self, uint64_t budget, uint16_t group) noexcept nogil:
        """Note one more mark of a subject."""
        cdef seen_entry_t *entry = self.known.find(budget)
        if entry == NULL or self.now - entry.last >= <uint32_t>DAY:
            self._add(budget, group, 1, self.now)
        elif entry.count != SEEN_FULL:
            self._add(budget, group, entry.count + 1 if entry.count + 1 < FIRST_MARKS else SEEN_FULL, entry.last)

    cdef void _keep(self, const record_t *record, const sought_t *sought) noexcept nogil:
        cdef const process_t *process = record.owner.process
        cdef uint64_t subject = process.subject
        cdef uint16_t group
        if process.uid < SYSTEM_USERS:
            group = <uint16_t>(process.uid % SEEN_SYSTEM)
        else:
            group = <uint16_t>(SEEN_SYSTEM + self._hash(process.uid, KIND_USER, NULL) % SEEN_SYSTEM)
        self.marked += 1
        if record.first_seen & SEEN_DESTINATION:
            self._add(sought.destination, group, 0, self.now)
            self._count(self._hash(subject, KIND_ROAMING, NULL), group)
        if record.first_seen & SEEN_PORT:
            self._add(sought.port, group, 0, self.now)
            self._count(self._hash(subject, KIND_SCANNING, NULL), group)

    cdef int keep_wanted(self, FlowFilter flow_filter, record_t *records, int count) noexcept nogil:
        cdef int kept = 0
        cdef int begin = 0
        cdef int i, some
        self.now = <uint32_t>(realtime_ns() // 1000000000)
        while begin < count:
            some = min(count - begin, <int>LOOKED)
            # First load what they need, then look: that does not wait for the memory of one flow after the other.
            for i in range(some):
                self._seek(&records[begin + i], &self.sought[i])
            for i in range(some):
                self._look(&records[begin + i], &self.sought[i])
                if flow_filter.keep_wanted(&records[begin + i], 1) == 0:      # which has dropped it
                    continue
                if records[begin + i].first_seen:
                    self._keep(&records[begin + i], &self.sought[i])
                if kept != begin + i:
                    records[kept] = records[begin + i]
                kept += 1
            begin += some
        return kept

    def dump(self) -> tuple[bytes, bytes]:
        """Return the key and all entries. Not while the reading thread runs."""
        return (<const char *>self.key)[:16], self.known.dump()
