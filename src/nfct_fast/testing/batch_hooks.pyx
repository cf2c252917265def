"""Make batches of saved messages and of processes with any names: hooks for tests and benchmarks."""
from libc.stdint cimport int64_t
from libc.string cimport memset

from nfct_fast.columns.batch_builder cimport BatchBuilder
from nfct_fast.events.decoder cimport FlowDecoder
from nfct_fast.events.flow cimport flow_t
from nfct_fast.kernel.fork_guard cimport ForkGuard
from nfct_fast.processes.cgroup cimport span_t
from nfct_fast.processes.process cimport (
    PROCESS_CGROUP, PROCESS_CMDLINE, PROCESS_COMM, PROCESS_EXE, PROCESS_IDS, process_build, process_t, process_take,
)
from nfct_fast.processes.process_object cimport Process, process_object
from nfct_fast.records.owner cimport MATCH_BPF, MATCH_SOCKET, REASON_CLOSED
from nfct_fast.records.record cimport RECORD_LOSS, record_t
from nfct_fast.records.ring cimport Ring
from nfct_fast.records.taken_records cimport TakenRecords

cdef enum:
    LOCAL = 3                # DIRECTION_LOCAL
    PER_MESSAGE = 8


cdef span_t _span(bytes text):
    cdef span_t span
    span.at, span.size = <const char *>text, len(text)
    return span


def make_process(pid, bytes comm=None, bytes exe=b"", bytes cmdline=None, bytes cgroup=b"", uid=None, start_ns=1):
    """Return a `Process` with these facts; None: not known. All of the cgroup's path is of the host's root."""
    cdef process_t facts
    memset(&facts, 0, sizeof(facts))
    facts.pid, facts.start_ns = pid, start_ns
    facts.comm, facts.exe, facts.cmdline = _span(comm or b""), _span(exe), _span(cmdline or b"")
    facts.cgroup, facts.cgroup_trusted = _span(cgroup), len(cgroup)
    facts.cmdline_size = facts.cmdline.size
    facts.has = ((PROCESS_COMM if comm is not None else 0) | (PROCESS_EXE if exe else 0)
                 | (PROCESS_CMDLINE if cmdline is not None else 0) | (PROCESS_CGROUP if cgroup else 0))
    if uid is not None:
        facts.uid = facts.gid = uid
        facts.has |= PROCESS_IDS
    return process_object(process_build(&facts))


cdef void _own(record_t *record, Process owner, Process peer):
    record.direction = LOCAL
    record.owner.reason = record.peer.reason = REASON_CLOSED
    if owner is not None:
        record.owner.process, record.owner.match, record.owner.reason = process_take(owner._process), MATCH_BPF, 0
        record.owner.cookie = 1 << 40
    if peer is not None:
        record.peer.process, record.peer.match, record.peer.reason = process_take(peer._process), MATCH_SOCKET, 0
        record.peer.inode = 4711


cdef int _decode(FlowDecoder decoder, bytes message, record_t *records, int room, int64_t time):
    cdef flow_t flows[PER_MESSAGE]
    cdef int count = decoder.decode(<const char *>message, len(message), flows, min(PER_MESSAGE, room), time, 0)
    cdef int i
    for i in range(count):
        memset(&records[i], 0, sizeof(record_t))
        records[i].flow = flows[i]
        records[i].flow.netns_inode = 4026531840
    return max(count, 0)


cdef class Rows:
    """A ring of records that batches are made of.

    fill() adds the flows of messages, batches() returns what they are as columns, flows() as `Flow` objects.
    """
    cdef Ring ring
    cdef TakenRecords records
    cdef FlowDecoder decoder
    cdef BatchBuilder builder

    def __init__(self, capacity=32768, presentation=None):
        self.ring = Ring(capacity)
        self.records = TakenRecords(self.ring, ForkGuard(), presentation)
        self.decoder = FlowDecoder()
        self.builder = BatchBuilder({"host": "here"})

    def fill(self, messages, owners=(None,), peers=(None,), time=1700000000123456789):
        """Add the flows of the messages, with the processes in turn, and return how many there are; one ns apart."""
        cdef record_t *records
        cdef int room = 0, count, i, number = 0
        for message in messages:
            records = self.ring.room(&room)
            count = _decode(self.decoder, message, records, room, time + number)
            for i in range(count):
                _own(&records[i], owners[number % len(owners)], peers[number % len(peers)])
                number += 1
            self.ring.publish(count)
        return number

    def lose(self, count, at_least=False, since=0, until=1):
        """Add the report of a loss."""
        cdef int room = 0
        cdef record_t *record = self.ring.room(&room)
        memset(record, 0, sizeof(record_t))
        record.kind, record.loss.events, record.loss.at_least = RECORD_LOSS, count, at_least
        record.loss.since, record.loss.time = since, until
        self.ring.publish(1)

    def flows(self):
        """Take all, as `Flow` objects."""
        flows = []
        while self.records.fill() > 0:
            flows += self.records
        return flows

    def batches(self, int64_t most=65536):
        """Take all, as a list of `Batch`."""
        found = []
        while self.records.consumed < self.records.count or self.records.fill() > 0:
            if self.builder.add(self.records, most) < 0:
                raise MemoryError("batches")
            if self.builder.is_full(most):
                self.builder.finish()
                found.append(self.builder.pop())
        if self.builder.has_any():
            self.builder.finish()
            found.append(self.builder.pop())
        return found


def replay(messages, owners=(None,), peers=(None,), int64_t rows=1000000, int64_t most=65536, bint columns=True):
    """Decode the messages over and over, each with a process in turn, and make batches of `most` rows of them.

    Return how many rows there were, and the batches. Without `columns` only decode, for comparison.
    """
    cdef Ring ring = Ring(1024)
    cdef TakenRecords taken = TakenRecords(ring, ForkGuard())
    cdef FlowDecoder decoder = FlowDecoder()
    cdef BatchBuilder builder = BatchBuilder()
    cdef int64_t done = 0
    cdef record_t *records
    cdef int room = 0, count, i, at = 0, known = len(messages), batches = 0
    while done < rows:
        records = ring.room(&room)
        for i in range(min(room, 512)):
            count = _decode(decoder, messages[at], &records[i], 1, 1700000000123456789 + done)
            _own(&records[i], owners[done % len(owners)], peers[done % len(peers)])
            at = at + 1 if at + 1 < known else 0
            done += count
        ring.publish(min(room, 512))
        if not columns:
            taken.fill()
            taken.consume(taken.count)
            continue
        while taken.consumed < taken.count or taken.fill() > 0:
            if builder.add(taken, most) < 0:
                raise MemoryError("replay")
            if builder.is_full(most):
                builder.finish()
                builder.pop()
                batches += 1
    return done, batches
