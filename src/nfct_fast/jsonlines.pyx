"""A record as one line of JSON (RFC 8259), for machines. README.md has the schema.

A byte of a name that is not UTF-8 becomes a lone surrogate (\\udc80 to \\udcff), as Python's surrogateescape has it.
"""
cimport cython
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memchr, memset, strlen
from libc.time cimport strftime, time_t, tm
from .cgroup cimport span_t
from .flow cimport (EVENT_LOST, FLOW_COUNTERS, FLOW_ID, FLOW_RECOVERED, FLOW_REPLY, FLOW_START, FLOW_STATE, FLOW_STATUS,
                    FLOW_STOP, FLOW_TIMEOUT, flow_t, tuple_t)
from .formatter cimport Formatter
from .outbuf cimport ESCAPE_JSON, outbuf_escaped, outbuf_free, outbuf_put, outbuf_t, outbuf_unsigned
from .owner cimport OWNER_GID, OWNER_UID, REASON_REMOTE, match_name, owner_t, reason_name
from .process cimport (PROCESS_CMDLINE, PROCESS_COMM, PROCESS_EXE, PROCESS_IDS, PROCESS_PPID, process_drop, process_t,
                      process_take)
from .protocol cimport protocol_write
from .record cimport record_t
from .status cimport status_put
from .words cimport ADDRESS_SIZE, address_write, direction_word, event_word

cdef extern from "<time.h>" nogil:
    tm *gmtime_r(const time_t *time, tm *result)

cdef enum:
    IPPROTO_ICMP = 1
    IPPROTO_ICMPV6 = 58
    KNOWN = 16               # processes

cdef struct known_t:
    process_t *process       # a reference, so that no other can be at its address
    outbuf_t text


cdef inline void _raw(outbuf_t *out, const char *text) noexcept nogil:
    outbuf_put(out, text, strlen(text))


cdef void _number(outbuf_t *out, const char *key, uint64_t value) noexcept nogil:
    _raw(out, key)
    outbuf_unsigned(out, value)


cdef void _word(outbuf_t *out, const char *key, const char *word) noexcept nogil:
    if word != NULL:
        _raw(out, key)
        outbuf_put(out, b'"', 1)
        _raw(out, word)
        outbuf_put(out, b'"', 1)


cdef void _string(outbuf_t *out, const char *text, size_t length) noexcept nogil:
    outbuf_put(out, b'"', 1)
    outbuf_escaped(out, text, length, ESCAPE_JSON)
    outbuf_put(out, b'"', 1)


cdef void _span(outbuf_t *out, const char *key, const span_t *span) noexcept nogil:
    if span.size:
        _raw(out, key)
        _string(out, span.at, span.size)


cdef void _cmdline(outbuf_t *out, const process_t *process) noexcept nogil:
    cdef const char *at = process.cmdline.at
    cdef size_t left = process.cmdline.size
    cdef const char *end
    if not process.has & PROCESS_CMDLINE:
        return
    _raw(out, b',"cmdline":[')
    while left:
        end = <const char *>memchr(at, 0, left)
        if end == NULL:
            _string(out, at, left)
            break
        _string(out, at, end - at)
        outbuf_put(out, b",", 1)
        left -= end - at + 1
        at = end + 1
        if left == 0:
            _string(out, at, 0)     # the NUL stood between an argument and an empty last one
    outbuf_put(out, b"]", 1)
    if process.cmdline_size > process.cmdline.size:
        _number(out, b',"cmdline_size":', process.cmdline_size)


cdef void _process(outbuf_t *out, const process_t *process) noexcept nogil:
    _number(out, b'"pid":', process.pid)
    if process.has & PROCESS_PPID:
        _number(out, b',"ppid":', process.ppid)
    if process.has & PROCESS_COMM:
        _span(out, b',"comm":', &process.comm)
    if process.has & PROCESS_EXE:
        _span(out, b',"exe":', &process.exe)
    _cmdline(out, process)
    _span(out, b',"cgroup":', &process.cgroup)
    _span(out, b',"unit":', &process.names.unit)
    _span(out, b',"user_unit":', &process.names.user_unit)
    _span(out, b',"slice":', &process.names.slice)
    _span(out, b',"container":', &process.names.container)
    _span(out, b',"runtime":', &process.names.runtime)


cdef void _put_process(known_t *memory, outbuf_t *out, process_t *process) noexcept nogil:
    """A process makes flow after flow, and to write of it is half of what a line costs: what was written is kept."""
    cdef known_t *known = &memory[process.pid & (KNOWN - 1)]
    if known.process != process:
        process_drop(known.process)
        known.process = NULL
        known.text.length = 0
        _process(&known.text, process)
        if known.text.failed:
            known.text.failed = False
            _process(out, process)
            return
        known.process = process_take(process)
    outbuf_put(out, known.text.data, known.text.length)


cdef void _owner(known_t *memory, outbuf_t *out, const char *key, const owner_t *owner) noexcept nogil:
    cdef bint ids = owner.process != NULL and owner.process.has & PROCESS_IDS
    cdef int i
    _raw(out, key)
    if owner.process != NULL:
        _put_process(memory, out, owner.process)
    else:
        _raw(out, b'"pid":null')
    if ids or owner.has & OWNER_UID:
        _number(out, b',"uid":', owner.process.uid if ids else owner.uid)
    if ids or owner.has & OWNER_GID:
        _number(out, b',"gid":', owner.process.gid if ids else owner.gid)
    if owner.inode:
        _number(out, b',"inode":', owner.inode)
    if owner.cookie:
        _number(out, b',"cookie":', owner.cookie)
    if owner.cgroup_id:
        _number(out, b',"cgroup_id":', owner.cgroup_id)
    if owner.other_count:
        for i in range(owner.other_count):
            _number(out, b"," if i else b',"others":[', owner.others[i].pid)
        outbuf_put(out, b"]", 1)
    _word(out, b',"match":', match_name(owner.match))
    _word(out, b',"reason":', reason_name(owner.reason))
    outbuf_put(out, b"}", 1)


cdef void _tuple(outbuf_t *out, const char *key, const tuple_t *tuple) noexcept nogil:
    cdef char text[ADDRESS_SIZE]
    _raw(out, key)
    _raw(out, b'"src":"')
    outbuf_put(out, text, address_write(tuple.src, tuple.family, text))
    _raw(out, b'","dst":"')
    outbuf_put(out, text, address_write(tuple.dst, tuple.family, text))
    if tuple.proto == IPPROTO_ICMP or tuple.proto == IPPROTO_ICMPV6:
        _number(out, b'","icmp_type":', tuple.icmp_type)
        _number(out, b',"icmp_code":', tuple.icmp_code)
        _number(out, b',"icmp_id":', tuple.icmp_id)
    else:
        _number(out, b'","sport":', tuple.sport)
        _number(out, b',"dport":', tuple.dport)
    outbuf_put(out, b"}", 1)


cdef void _counters(outbuf_t *out, const flow_t *flow) noexcept nogil:
    if flow.has & FLOW_COUNTERS:
        _number(out, b',"original_packets":', flow.packets[0])
        _number(out, b',"original_bytes":', flow.bytes[0])
        _number(out, b',"reply_packets":', flow.packets[1])
        _number(out, b',"reply_bytes":', flow.bytes[1])
    if flow.has & FLOW_START:
        _number(out, b',"start_ns":', <uint64_t>flow.start)
    if flow.has & FLOW_STOP:
        _number(out, b',"stop_ns":', <uint64_t>flow.stop)


@cython.final
@cython.auto_pickle(False)
cdef class JsonLines(Formatter):
    """One JSON object a line for each flow, and one of type LOST where events are missing."""
    cdef char time[40]
    cdef size_t time_size
    cdef int64_t second
    cdef known_t known[KNOWN]

    def __cinit__(self):
        self.second = -1

    def __dealloc__(self):
        cdef int i
        for i in range(KNOWN):
            process_drop(self.known[i].process)
            outbuf_free(&self.known[i].text)

    cdef void _put_time(self, outbuf_t *out, int64_t time) noexcept nogil:
        # ISO 8601 in UTC with nanoseconds; the part up to the second is made anew once a second.
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
        outbuf_put(out, self.time, self.time_size)
        for i in range(8, -1, -1):
            digits[i] = <char>(48 + rest % 10)
            rest //= 10
        digits[9] = c"Z"
        digits[10] = c'"'
        outbuf_put(out, digits, 11)
        _number(out, b',"time_ns":', <uint64_t>time)

    cdef void put(self, outbuf_t *out, const record_t *record) noexcept nogil:
        cdef const flow_t *flow = &record.flow
        cdef char name[32]
        if flow.type == EVENT_LOST and flow.packets[0] == 0:
            return
        _word(out, b'{"type":', event_word(flow.type))
        self._put_time(out, flow.time)
        if flow.type == EVENT_LOST:
            _number(out, b',"lost":', flow.packets[0])
            _raw(out, b"}\n")
            return
        _raw(out, b',"proto":"')
        outbuf_put(out, name, protocol_write(flow.orig.family, flow.orig.proto, name))
        _number(out, b'","protonum":', flow.orig.proto)
        _tuple(out, b',"original":{', &flow.orig)
        if flow.has & FLOW_REPLY:
            _tuple(out, b',"reply":{', &flow.reply)
        _word(out, b',"direction":', direction_word(record.direction))
        if flow.has & FLOW_STATUS:
            _raw(out, b',"status":["' if flow.status else b',"status":[')
            status_put(out, flow.status, b'","')
            _raw(out, b'"]' if flow.status else b"]")
        _number(out, b',"mark":', flow.mark)
        _number(out, b',"zone":', flow.zone)
        if flow.has & FLOW_TIMEOUT:
            _number(out, b',"timeout":', flow.timeout)
        if flow.has & FLOW_STATE:
            _number(out, b',"state":', flow.state)
        if flow.has & FLOW_ID:
            _number(out, b',"id":', flow.id)
        if flow.netns_inode:
            _number(out, b',"netns":', flow.netns_inode)
        _counters(out, flow)
        if flow.has & FLOW_RECOVERED:
            _raw(out, b',"recovered":true')
        _owner(self.known, out, b',"owner":{', &record.owner)
        if record.direction and record.peer.reason != REASON_REMOTE:
            _owner(self.known, out, b',"peer":{', &record.peer)
        _raw(out, b"}\n")
