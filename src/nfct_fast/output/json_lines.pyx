"""Write a record as one line of JSON (RFC 8259). README.md has the schema.

Users choose the names of their processes, and must not thereby be able to choose which records a log collector drops.
So strings are valid UTF-8 that any parser accepts, and if a name is not, its exact bytes are added in base64.

This file has more than 400 lines: one function for each object of the schema.
"""
cimport cython
from libc.stdint cimport SIZE_MAX, int32_t, int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memchr, memset, strlen
from libc.time cimport strftime, time_t, tm
from nfct_fast.processes.cgroup cimport span_t
from nfct_fast.events.community_id cimport COMMUNITY_ID_SIZE, community_id_differs, community_id_write
from nfct_fast.events.flow cimport (
    FLOW_COUNTERS, FLOW_FORGOTTEN, FLOW_RECOVERED, FLOW_REPLY, FLOW_START, FLOW_STATE, FLOW_STATUS, FLOW_STOP, NUMBERS,
    flow_t, number_is_known, number_name, tuple_has_ports, tuple_t,
)
from nfct_fast.events.outcome cimport flow_duration, flow_outcome
from nfct_fast.output.formatter cimport Formatter
from nfct_fast.output.process_texts cimport (
    PROCESS_TEXTS, process_text_find, process_text_keep, process_text_t, process_texts_free,
)
from nfct_fast.text.text_buffer cimport (
    ESCAPE_JSON, buffer_base64, buffer_escaped, buffer_free, buffer_put, text_buffer_t, buffer_unsigned,
)
from nfct_fast.records.owner cimport (
    OWNER_GID, OWNER_UID, OWNER_USERS, REASON_REMOTE, match_name, other_count, owner_t, reason_name,
)
from nfct_fast.processes.account_names cimport ACCOUNT_NAME_MAX
from nfct_fast.processes.identity cimport ENTITY_ID_SIZE, START_SIZE, Identity
from nfct_fast.processes.process cimport (
    ANCESTORS, PROCESS_CMDLINE, PROCESS_COMM, PROCESS_EXE, PROCESS_EXE_FILE, PROCESS_FORKED, PROCESS_IDS, PROCESS_LOGIN,
    PROCESS_PPID, ancestor_t, process_t,
)
from nfct_fast.text.protocol cimport protocol_write
from nfct_fast.records.presentation cimport Presentation
from nfct_fast.records.record cimport RECORD_LOSS, loss_t, record_t
from nfct_fast.text.status cimport status_put
from nfct_fast.records.labels cimport ADDRESS_SIZE, address_write, direction_name, event_name, outcome_name

import os

cdef extern from "<time.h>" nogil:
    tm *gmtime_r(const time_t *time, tm *result)

cdef enum:
    SCHEMA = 1               # changes when a key that was there means something else, or is gone
    IPPROTO_ICMP = 1
    IPPROTO_ICMPV6 = 58
    # Fluent Bit stops at a line of 32 KiB and Vector drops one of 100 KiB, while escapes can turn each byte of a user's
    # names into six or more. So the JSON of one process is limited: to half of 32 KiB, less the flow's part and that of
    # eight users.
    PROCESS_ROOM = 12000
    CUT = 384                # bytes of exe, cmdline and cgroup that are kept of a process that exceeds this limit


cdef inline void _raw(text_buffer_t *out, const char *text) noexcept nogil:
    buffer_put(out, text, strlen(text))


cdef inline void _number(text_buffer_t *out, const char *key, uint64_t value) noexcept nogil:
    # Inline, so that the keys' lengths are known to the compiler.
    _raw(out, key)
    buffer_unsigned(out, value)


cdef void _label(text_buffer_t *out, const char *key, const char *word) noexcept nogil:
    if word != NULL:
        _raw(out, key)
        buffer_put(out, b'"', 1)
        _raw(out, word)
        buffer_put(out, b'"', 1)


cdef bint _string(text_buffer_t *out, const char *text, size_t length, bint base64) noexcept nogil:
    # Return whether the string stands for exactly these bytes.
    cdef bint exact = True
    buffer_put(out, b'"', 1)
    if base64:
        buffer_base64(out, text, length)
    else:
        exact = buffer_escaped(out, text, length, ESCAPE_JSON)
    buffer_put(out, b'"', 1)
    return exact


cdef void _span(text_buffer_t *out, const char *key, const span_t *span) noexcept nogil:
    if span.size:
        _raw(out, key)
        if not _string(out, span.at, span.size, False):
            buffer_put(out, key, strlen(key) - 2)
            _raw(out, b'_base64":')
            _string(out, span.at, span.size, True)


cdef void _path(text_buffer_t *out, const char *key, const span_t *span, size_t limit) noexcept nogil:
    cdef span_t cut = span[0]
    cut.size = min(cut.size, limit)
    _span(out, key, &cut)
    if cut.size < span.size:
        buffer_put(out, key, strlen(key) - 2)
        _number(out, b'_size":', span.size)


cdef bint _arguments(text_buffer_t *out, const process_t *process, size_t limit, bint base64) noexcept nogil:
    cdef const char *at = process.cmdline.at
    cdef size_t left = min(process.cmdline.size, limit)
    cdef const char *end
    cdef bint exact = True
    _raw(out, b',"cmdline_base64":[' if base64 else b',"cmdline":[')
    while left:
        end = <const char *>memchr(at, 0, left)
        if end == NULL:
            exact &= _string(out, at, left, base64)
            break
        exact &= _string(out, at, end - at, base64)
        buffer_put(out, b",", 1)
        left -= end - at + 1
        at = end + 1
        if left == 0:
            _string(out, at, 0, base64)     # the NUL separated an argument from an empty last one
    buffer_put(out, b"]", 1)
    return exact


cdef void _cmdline(text_buffer_t *out, const process_t *process, size_t limit) noexcept nogil:
    if not process.has & PROCESS_CMDLINE:
        return
    if not _arguments(out, process, limit, False):
        _arguments(out, process, limit, True)
    if process.cmdline_size > min(process.cmdline.size, limit):
        _number(out, b',"cmdline_size":', process.cmdline_size)


cdef void _identity(text_buffer_t *out, int32_t pid, uint64_t ticks, Identity identity) noexcept nogil:
    cdef char text[START_SIZE]
    if identity.entity_id(pid, ticks, text):
        _raw(out, b',"entity_id":"')
        buffer_put(out, text, ENTITY_ID_SIZE)
        identity.start_text(ticks, text)
        _raw(out, b'","start":"')
        buffer_put(out, text, START_SIZE)
        buffer_put(out, b'"', 1)


cdef void _ancestors(text_buffer_t *out, const process_t *process, bint cut, Identity identity) noexcept nogil:
    cdef const ancestor_t *at = process.ancestors
    cdef int left = ANCESTORS
    _raw(out, b',"ancestors":[')
    while at != NULL and left:
        _number(out, b'{"pid":', at.pid)
        if at.start_ns:
            _number(out, b',"start_ns":', at.start_ns)
        _identity(out, at.pid, identity.ticks(at.start_ns), identity)
        _span(out, b',"comm":', &at.comm)
        if not cut:
            _span(out, b',"exe":', &at.exe)
        _raw(out, b'}')
        at = at.next
        left -= 1
        if at != NULL and left:
            _raw(out, b',')
    _raw(out, b']')


cdef void _facts(text_buffer_t *out, const process_t *process, size_t limit, Identity identity) noexcept nogil:
    _number(out, b'"pid":', process.pid)
    if process.ns_pid:
        _number(out, b',"ns_pid":', process.ns_pid)
    if process.start_ns:
        _number(out, b',"start_ns":', process.start_ns)
    _identity(out, process.pid, process.start, identity)
    if process.has & PROCESS_PPID:
        _number(out, b',"ppid":', process.ppid)
    if process.has & PROCESS_LOGIN:
        _number(out, b',"login_uid":', process.login_uid)
    if process.has & PROCESS_FORKED:
        _raw(out, b',"forked":true')
    if process.has & PROCESS_COMM:
        _span(out, b',"comm":', &process.comm)
    if process.has & PROCESS_EXE:
        _path(out, b',"exe":', &process.exe, limit)
    if process.has & PROCESS_EXE_FILE:
        _number(out, b',"exe_dev":', process.exe_dev)
        _number(out, b',"exe_inode":', process.exe_inode)
    _cmdline(out, process, limit)
    _path(out, b',"cgroup":', &process.cgroup, limit)
    _span(out, b',"unit":', &process.names.unit)
    _span(out, b',"user_unit":', &process.names.user_unit)
    _span(out, b',"slice":', &process.names.slice)
    _span(out, b',"container":', &process.names.container)
    _span(out, b',"runtime":', &process.names.runtime)
    _span(out, b',"claimed_unit":', &process.names.claimed_unit)
    _span(out, b',"claimed_container":', &process.names.claimed_container)
    _span(out, b',"claimed_runtime":', &process.names.claimed_runtime)
    if process.ancestors != NULL:
        _ancestors(out, process, limit == CUT, identity)


cdef void _process(text_buffer_t *out, const process_t *process, Identity identity) noexcept nogil:
    cdef size_t begin = out.length
    _facts(out, process, SIZE_MAX, identity)
    if out.length - begin > PROCESS_ROOM and not out.failed:
        out.length = begin
        _facts(out, process, CUT, identity)


cdef void _put_process(process_text_t *texts, text_buffer_t *out, process_t *process, Identity identity) noexcept nogil:
    cdef process_text_t *slot = process_text_find(texts, process)
    if slot.process == NULL:
        _process(&slot.text, process, identity)
        if not process_text_keep(slot, process):
            _process(out, process, identity)
            return
    buffer_put(out, slot.text.data, slot.text.length)


cdef void _name(text_buffer_t *out, const char *key, const char *name, int size) noexcept nogil:
    cdef span_t span
    span.at, span.size = name, size
    _span(out, key, &span)


cdef void _user(text_buffer_t *out, const process_t *process, Identity identity) noexcept nogil:
    _number(out, b'{"pid":', process.pid)
    _number(out, b',"start_ns":', process.start_ns)
    _identity(out, process.pid, process.start, identity)
    _number(out, b',"uid":', process.uid)
    _number(out, b',"gid":', process.gid)
    _span(out, b',"comm":', &process.comm)
    buffer_put(out, b"}", 1)


cdef void _owner(process_text_t *texts, text_buffer_t *out, const char *key, const owner_t *owner,
                 Identity identity) noexcept nogil:
    cdef bint ids = owner.process != NULL and owner.process.has & PROCESS_IDS
    cdef int others = other_count(owner)
    cdef char name[ACCOUNT_NAME_MAX]
    cdef uint32_t id
    cdef int i
    _raw(out, key)
    if owner.process != NULL:
        _put_process(texts, out, owner.process, identity)
    else:
        _raw(out, b'"pid":null')
    if ids or owner.has & OWNER_UID:
        id = owner.process.uid if ids else owner.uid
        _number(out, b',"uid":', id)
        _name(out, b',"user":', name, identity.names.user(id, name))
    if ids or owner.has & OWNER_GID:
        id = owner.process.gid if ids else owner.gid
        _number(out, b',"gid":', id)
        _name(out, b',"group":', name, identity.names.group(id, name))
    if owner.inode:
        _number(out, b',"inode":', owner.inode)
    if owner.cookie:
        _number(out, b',"cookie":', owner.cookie)
    if owner.cgroup_id:
        _number(out, b',"cgroup_id":', owner.cgroup_id)
    if others and owner.has & OWNER_USERS:
        _raw(out, b',"users":[')
        if owner.process != NULL:
            _user(out, owner.process, identity)
        for i in range(others):
            if i or owner.process != NULL:
                buffer_put(out, b",", 1)
            _user(out, owner.others.at[i], identity)
        buffer_put(out, b"]", 1)
    elif others:
        for i in range(others):
            _number(out, b"," if i else b',"others":[', owner.others.at[i].pid)
        buffer_put(out, b"]", 1)
    _label(out, b',"match":', match_name(owner.match))
    _label(out, b',"reason":', reason_name(owner.reason))
    buffer_put(out, b"}", 1)


cdef void _tuple(text_buffer_t *out, const char *key, const tuple_t *tuple) noexcept nogil:
    cdef char text[ADDRESS_SIZE]
    _raw(out, key)
    _raw(out, b'"src":"')
    buffer_put(out, text, address_write(tuple.src, tuple.family, text))
    _raw(out, b'","dst":"')
    buffer_put(out, text, address_write(tuple.dst, tuple.family, text))
    buffer_put(out, b'"', 1)
    if tuple.proto == IPPROTO_ICMP or tuple.proto == IPPROTO_ICMPV6:
        _number(out, b',"icmp_type":', tuple.icmp_type)
        _number(out, b',"icmp_code":', tuple.icmp_code)
        _number(out, b',"icmp_id":', tuple.icmp_id)
    elif tuple_has_ports(tuple):
        _number(out, b',"sport":', tuple.sport)
        _number(out, b',"dport":', tuple.dport)
    buffer_put(out, b"}", 1)


cdef void _community_id(text_buffer_t *out, const char *key, const tuple_t *tuple, uint16_t seed) noexcept nogil:
    cdef char text[COMMUNITY_ID_SIZE]
    community_id_write(tuple, seed, text)
    _raw(out, key)
    buffer_put(out, text, COMMUNITY_ID_SIZE)
    buffer_put(out, b'"', 1)


cdef void _counters(text_buffer_t *out, const flow_t *flow) noexcept nogil:
    if flow.has & FLOW_COUNTERS:
        _number(out, b',"original_packets":', flow.packets[0])
        _number(out, b',"original_bytes":', flow.bytes[0])
        _number(out, b',"reply_packets":', flow.packets[1])
        _number(out, b',"reply_bytes":', flow.bytes[1])
    if flow.has & FLOW_START:
        _number(out, b',"start_ns":', <uint64_t>flow.start)
    if flow.has & FLOW_STOP:
        _number(out, b',"stop_ns":', <uint64_t>flow.stop)


cdef void _end(text_buffer_t *out, const flow_t *flow, int64_t began) noexcept nogil:
    cdef int64_t duration = flow_duration(flow, began)
    if duration >= 0:
        _number(out, b',"duration_ns":', <uint64_t>duration)
    _label(out, b',"outcome":', outcome_name(flow_outcome(flow)))


cdef void _host(text_buffer_t *out, Identity identity):
    cdef bytes name = os.fsencode(identity.host.name)
    _number(out, b',"schema":', SCHEMA)
    _name(out, b',"host":', name, <int>len(name))
    for key, id in ((b',"machine_id":', identity.host.machine_id), (b',"boot_id":', identity.host.boot_id)):
        if id is not None:
            _label(out, key, <bytes>id.encode("ascii"))


@cython.final
@cython.auto_pickle(False)
cdef class JsonLines(Formatter):
    """A format with one JSON object per line for each flow, and one of type LOST where events are missing.

    presentation: a Presentation.
    """
    cdef char time[40]
    cdef size_t time_size
    cdef int64_t second
    cdef text_buffer_t stamp     # of `stamped`: events that were received together have one time
    cdef int64_t stamped
    cdef process_text_t texts[PROCESS_TEXTS]
    cdef Presentation presentation
    cdef text_buffer_t host      # the same in all lines

    def __cinit__(self, Presentation presentation=None):
        self.presentation = presentation if presentation is not None else Presentation()
        _host(&self.host, self.presentation.identity)
        if self.host.failed:
            raise MemoryError("host")
        self.second = -1

    def __dealloc__(self):
        buffer_free(&self.stamp)
        buffer_free(&self.host)
        process_texts_free(self.texts)

    cdef void _put_time(self, text_buffer_t *out, int64_t time) noexcept nogil:
        # ISO 8601 in UTC with nanoseconds; the part up to the second is cached for the second.
        cdef time_t second = <time_t>(time // 1000000000)
        cdef char digits[11]
        cdef int64_t rest = time % 1000000000
        cdef tm parts
        cdef int i
        if second != self.second:
            memset(&parts, 0, sizeof(parts))
            gmtime_r(&second, &parts)
            self.time_size = strftime(self.time, sizeof(self.time), b',"time":"%Y-%m-%dT%H:%M:%S.', &parts)
            self.second = second
        buffer_put(out, self.time, self.time_size)
        for i in range(8, -1, -1):
            digits[i] = <char>(48 + rest % 10)
            rest //= 10
        digits[9] = c"Z"
        digits[10] = c'"'
        buffer_put(out, digits, 11)
        _number(out, b',"time_ns":', <uint64_t>time)
        buffer_put(out, self.host.data, self.host.length)

    cdef void _put_loss(self, text_buffer_t *out, const loss_t *loss) noexcept nogil:
        if loss.events == 0 and not loss.at_least:      # all of them were recovered
            return
        _raw(out, b'{"type":"LOST"')
        self._put_time(out, loss.time)
        _number(out, b',"lost":', loss.events)
        _raw(out, b',"at_least":true}\n' if loss.at_least else b"}\n")

    cdef void put(self, text_buffer_t *out, const record_t *record) noexcept nogil:
        cdef const flow_t *flow = &record.flow
        cdef char name[32]
        cdef int number
        if record.kind == RECORD_LOSS:
            self._put_loss(out, &record.loss)
            return
        _label(out, b'{"type":', event_name(flow.type))
        if flow.time != self.stamped or self.stamp.length == 0 or self.stamp.failed:
            self.stamp.failed = False
            self.stamp.length = 0
            self._put_time(&self.stamp, flow.time)
            self.stamped = flow.time
        out.failed = out.failed or self.stamp.failed
        buffer_put(out, self.stamp.data, self.stamp.length)
        _raw(out, b',"proto":"')
        buffer_put(out, name, protocol_write(flow.orig.family, flow.orig.proto, name))
        _number(out, b'","protonum":', flow.orig.proto)
        _tuple(out, b',"original":{', &flow.orig)
        if flow.has & FLOW_REPLY:
            _tuple(out, b',"reply":{', &flow.reply)
        if self.presentation.has_community_id:
            _community_id(out, b',"community_id":"', &flow.orig, self.presentation.seed)
            if community_id_differs(flow):
                _community_id(out, b',"community_id_nat":"', &flow.reply, self.presentation.seed)
        _label(out, b',"direction":', direction_name(record.direction))
        if flow.has & FLOW_STATUS:
            _raw(out, b',"status":["' if flow.status else b',"status":[')
            status_put(out, flow.status, b'","')
            _raw(out, b'"]' if flow.status else b"]")
        for number in range(NUMBERS):
            if number_is_known(flow, number):
                _raw(out, b',"')
                _raw(out, number_name(number))
                _number(out, b'":', flow.numbers[number])
        if flow.has & FLOW_STATE:
            _number(out, b',"state":', flow.state)
        if flow.netns_inode:
            _number(out, b',"netns":', flow.netns_inode)
        _counters(out, flow)
        _end(out, flow, record.began)
        if flow.has & FLOW_RECOVERED:
            _raw(out, b',"recovered":true')
        if flow.has & FLOW_FORGOTTEN:
            _raw(out, b',"forgotten":true')
        _owner(self.texts, out, b',"owner":{', &record.owner, self.presentation.identity)
        if record.direction and record.peer.reason != REASON_REMOTE:
            _owner(self.texts, out, b',"peer":{', &record.peer, self.presentation.identity)
        _raw(out, b"}\n")
