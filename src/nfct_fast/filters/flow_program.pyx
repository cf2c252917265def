"""An expression as a program over a flow and its owners: conditions, each with two steps of which one follows.

Every step leads to a later one, so a program ends, and takes each of its conditions once at the most.
"""
cimport cython
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy
from nfct_fast.events.flow cimport FLOW_REPLY, NUMBER_MARK, NUMBER_ZONE, tuple_has_ports, tuple_t
from nfct_fast.filters.name_match cimport name_match
from nfct_fast.processes.cgroup cimport span_t
from nfct_fast.processes.process cimport PROCESS_CMDLINE, process_t
from nfct_fast.namespaces.direction cimport DIRECTION_FORWARD, DIRECTION_OUT
from nfct_fast.records.labels cimport direction_name, first_seen_name
from nfct_fast.records.owner cimport REASON_COUNT, REASON_REMOTE, owner_gid, owner_uid, reason_name
from sys_socket cimport AF_INET, AF_INET6

from nfct_fast.filters.expression import AllOf, Condition

cdef enum:
    ACCEPT = -1
    REFUSE = -2
    END_OWNER = 1
    END_PEER = 2
    CMDLINE_ROOM = 4096          # bytes that are kept of a command line

# What a condition looks at, in the order of FIELDS.
cdef enum:
    FIELD_PAIR, FIELD_ZONE, FIELD_MARK, FIELD_NETNS, FIELD_SPORT, FIELD_DPORT, FIELD_REPLY_SPORT, FIELD_REPLY_DPORT,
    FIELD_SRC4, FIELD_DST4, FIELD_REPLY_SRC4, FIELD_REPLY_DST4,
    FIELD_SRC6, FIELD_DST6, FIELD_REPLY_SRC6, FIELD_REPLY_DST6,
    FIELD_FIRST_SEEN,            # from here on known after attribution only
    FIELD_DIR,                   # from here on of owners
    FIELD_PID, FIELD_UID, FIELD_GID, FIELD_REASON,
    FIELD_COMM, FIELD_EXE, FIELD_CMDLINE, FIELD_UNIT, FIELD_CONTAINER

FIELDS = ("pair", "zone", "mark", "netns", "sport", "dport", "reply_sport", "reply_dport",
          "src4", "dst4", "reply_src4", "reply_dst4", "src6", "dst6", "reply_src6", "reply_dst6",
          "first_seen", "dir", "pid", "uid", "gid", "reason", "comm", "exe", "cmdline", "unit", "container")
FLOW_FIELDS = frozenset(FIELDS[:FIELD_FIRST_SEEN])      # known before attribution
DIRECTIONS = {direction_name(number).decode("ascii"): number for number in range(DIRECTION_OUT, DIRECTION_FORWARD + 1)}
MARKS = {first_seen_name(1 << bit).decode("ascii"): 1 << bit for bit in range(4)}
REASONS = tuple([reason_name(number).decode("ascii") for number in range(1, REASON_COUNT)])      # from 1 on


def _emit(expression, yes, no, out):
    """Add an expression's steps to `out`, the last one first, and return the index of its first step.

    yes, no: indices of the steps that follow, ACCEPT or REFUSE.
    """
    if isinstance(expression, Condition):
        out.append((expression, no, yes) if expression.negated else (expression, yes, no))
        return len(out) - 1
    for part in reversed(expression.parts):
        if isinstance(expression, AllOf):
            yes = _emit(part, yes, no, out)
        else:
            no = _emit(part, yes, no, out)
    return yes if isinstance(expression, AllOf) else no


cdef void *_room(size_t count, size_t size) except NULL:
    cdef void *result = calloc(count + 1, size)
    if result == NULL:
        raise MemoryError("filter")
    return result


def _address(number, field):
    return number.to_bytes(16, "big") if field.endswith("6") else number.to_bytes(4, "big") + bytes(12)


@cython.final
@cython.auto_pickle(False)
cdef class FlowProgram:
    """A program made of an expression of filters.expression. Immutable; any thread may use it."""

    def __cinit__(self, expression):
        cdef step_t *step
        backwards = []
        first = _emit(expression, ACCEPT, REFUSE, backwards)
        last = len(backwards) - 1
        self.start = first if first < 0 else last - first
        self.steps = <step_t *>_room(len(backwards), sizeof(step_t))
        ranges, addresses, patterns = [], [], []
        for i, (condition, yes, no) in enumerate(reversed(backwards)):
            step = &self.steps[<int>i]
            step.field, step.ends, step.mask = FIELDS.index(condition.field), condition.ends, condition.mask
            step.yes = yes if yes < 0 else last - yes
            step.no = no if no < 0 else last - no
            if FIELD_SRC4 <= step.field <= FIELD_REPLY_DST6:
                into, found = addresses, [[_address(end, condition.field) for end in one] for one in condition.ranges]
            elif step.field >= FIELD_COMM:
                into, found = patterns, condition.patterns
            else:
                into, found = ranges, condition.ranges
            step.first, step.count = len(into), len(found)
            into.extend(found)
        self._keep_ranges(ranges, addresses)
        self._keep_patterns(patterns)

    cdef int _keep_ranges(self, list ranges, list addresses) except -1:
        cdef int i
        self.ranges = <range_t *>_room(len(ranges), sizeof(range_t))
        for i, (low, high) in enumerate(ranges):
            self.ranges[i].low, self.ranges[i].high = low, high
        self.addresses = <address_range_t *>_room(len(addresses), sizeof(address_range_t))
        for i, (low, high) in enumerate(addresses):
            memcpy(self.addresses[i].low, <const char *>(<bytes>low), 16)
            memcpy(self.addresses[i].high, <const char *>(<bytes>high), 16)
        return 0

    cdef int _keep_patterns(self, list patterns) except -1:
        cdef const char *at
        cdef int i
        pieces = [piece for pattern in patterns for piece in pattern]
        self.text = b"".join(pieces)
        self.pieces = <piece_t *>_room(len(pieces), sizeof(piece_t))
        at = self.text
        for i, piece in enumerate(pieces):
            self.pieces[i].at, self.pieces[i].size, self.pieces[i].has_any = at, len(piece), b"\0" in piece
            at += len(piece)
        self.patterns = <pattern_t *>_room(len(patterns), sizeof(pattern_t))
        first = 0
        for i, pattern in enumerate(patterns):
            self.patterns[i].first, self.patterns[i].count = first, len(pattern)
            first += len(pattern)
        return 0

    def __dealloc__(self):
        free(self.steps)
        free(self.ranges)
        free(self.addresses)
        free(self.patterns)
        free(self.pieces)

    cdef bint passes(self, const flow_t *flow, const record_t *record) noexcept nogil:
        cdef int32_t at = self.start
        while at >= 0:
            at = self.steps[at].yes if self._holds(&self.steps[at], flow, record) else self.steps[at].no
        return at == ACCEPT

    cdef bint _holds(self, const step_t *step, const flow_t *flow, const record_t *record) noexcept nogil:
        cdef const tuple_t *tuple = &flow.orig
        if step.field > FIELD_DIR:
            if step.ends & END_OWNER and self._owner_has(step, &record.owner):
                return True
            # Of a peer elsewhere nothing is known; Flow.peer is None then, too.
            return (step.ends & END_PEER and record.direction != 0 and record.peer.reason != REASON_REMOTE
                    and self._owner_has(step, &record.peer))
        if step.field == FIELD_DIR:
            return record.direction != 0 and self._has_number(step, record.direction)
        if step.field == FIELD_FIRST_SEEN:
            return self._has_number(step, record.first_seen)
        if step.field >= FIELD_SRC4:
            return self._has_address(step, flow)
        if step.field == FIELD_PAIR:
            return self._has_number(step, tuple.proto + (256 if tuple.family == AF_INET6 else 0))
        if step.field == FIELD_ZONE:
            return self._has_number(step, flow.numbers[NUMBER_ZONE])
        if step.field == FIELD_MARK:
            return self._has_number(step, flow.numbers[NUMBER_MARK])
        if step.field == FIELD_NETNS:
            return flow.netns_inode != 0 and self._has_number(step, flow.netns_inode)
        if step.field >= FIELD_REPLY_SPORT:
            if not flow.has & FLOW_REPLY:
                return False
            tuple = &flow.reply
        return tuple_has_ports(tuple) and self._has_number(
            step, tuple.sport if step.field == FIELD_SPORT or step.field == FIELD_REPLY_SPORT else tuple.dport)

    cdef bint _has_address(self, const step_t *step, const flow_t *flow) noexcept nogil:
        # The fields of each family: source and destination, then those of the reply.
        cdef uint8_t field = step.field - (FIELD_SRC4 if step.field < FIELD_SRC6 else FIELD_SRC6)
        cdef const tuple_t *tuple = &flow.orig if field < 2 else &flow.reply
        if flow.orig.family != (AF_INET if step.field < FIELD_SRC6 else AF_INET6):
            return False
        if field >= 2 and not flow.has & FLOW_REPLY:
            return False
        return self._is_within(step, tuple.dst) if field & 1 else self._is_within(step, tuple.src)

    cdef bint _is_within(self, const step_t *step, const uint8_t *address) noexcept nogil:
        cdef const address_range_t *ranges = self.addresses + step.first
        cdef uint32_t below = 0, above = step.count, middle
        while below < above:
            middle = (below + above) // 2
            if memcmp(address, ranges[middle].low, 16) < 0:
                above = middle
            elif memcmp(address, ranges[middle].high, 16) > 0:
                below = middle + 1
            else:
                return True
        return False

    cdef bint _has_number(self, const step_t *step, uint64_t value) noexcept nogil:
        cdef const range_t *ranges = self.ranges + step.first
        cdef uint32_t below = 0, above = step.count, middle
        value &= step.mask
        while below < above:
            middle = (below + above) // 2
            if value < ranges[middle].low:
                above = middle
            elif value > ranges[middle].high:
                below = middle + 1
            else:
                return True
        return False

    cdef bint _has_name(self, const step_t *step, const char *text, size_t size) noexcept nogil:
        cdef const pattern_t *pattern
        cdef uint32_t i
        for i in range(step.count):
            pattern = &self.patterns[step.first + i]
            if name_match(text, size, self.pieces + pattern.first, pattern.count):
                return True
        return False

    cdef bint _owner_has(self, const step_t *step, const owner_t *owner) noexcept nogil:
        cdef const process_t *process = owner.process
        cdef const span_t *name = NULL
        cdef uint32_t id = 0
        if step.field == FIELD_PID:
            return process != NULL and self._has_number(step, process.pid)
        if step.field == FIELD_UID:
            return owner_uid(owner, &id) and self._has_number(step, id)
        if step.field == FIELD_GID:
            return owner_gid(owner, &id) and self._has_number(step, id)
        if step.field == FIELD_REASON:
            return owner.reason != 0 and self._has_number(step, owner.reason)
        if process == NULL and step.field >= FIELD_UNIT:
            process = owner.cgroup
        if process == NULL:
            return False
        if step.field == FIELD_COMM:
            name = &process.comm
        elif step.field == FIELD_EXE:
            name = &process.exe
        elif step.field == FIELD_CMDLINE:
            return self._has_cmdline(step, process)
        else:
            name = &process.names.unit if step.field == FIELD_UNIT else &process.names.container
        return name.size != 0 and self._has_name(step, name.at, name.size)

    cdef bint _has_cmdline(self, const step_t *step, const process_t *process) noexcept nogil:
        """The same for the command line, a blank between its arguments."""
        cdef char text[CMDLINE_ROOM]
        cdef size_t size = min(process.cmdline.size, <size_t>CMDLINE_ROOM)
        cdef size_t i
        if not process.has & PROCESS_CMDLINE or size == 0:
            return False
        for i in range(size):
            text[i] = process.cmdline.at[i] or c" "
        return self._has_name(step, text, size)
