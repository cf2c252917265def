"""What is known of a process as JSON. README.md has the schema.

Users choose the names of their processes, and must not thereby be able to choose which records a log collector drops.
So strings are valid UTF-8 that any parser accepts, and if a name is not, its exact bytes are added in base64.
"""
from libc.stdint cimport SIZE_MAX, int32_t, uint64_t
from libc.string cimport memchr, strlen
from nfct_fast.processes.cgroup cimport span_t
from nfct_fast.processes.identity cimport ENTITY_ID_SIZE, START_SIZE, Identity
from nfct_fast.processes.process cimport (
    ANCESTORS, PROCESS_CMDLINE, PROCESS_COMM, PROCESS_EXE, PROCESS_EXE_FILE, PROCESS_FORKED, PROCESS_LOGIN,
    PROCESS_PPID, ancestor_t, process_t,
)
from nfct_fast.processes.process_texts cimport process_text_find, process_text_keep, process_text_t
from nfct_fast.text.json_text cimport json_name, json_number, json_raw, json_string
from nfct_fast.text.text_buffer cimport buffer_put, text_buffer_t

cdef enum:
    # Fluent Bit stops at a line of 32 KiB and Vector drops one of 100 KiB, while escapes can turn each byte of a user's
    # names into six or more. So the JSON of one process is limited: to half of 32 KiB, less the flow's part and that of
    # eight users.
    PROCESS_ROOM = 12000
    CUT = 384                # bytes of exe, cmdline and cgroup that are kept of a process that exceeds this limit


cdef inline void _span(text_buffer_t *out, const char *key, const span_t *span) noexcept nogil:
    json_name(out, key, span.at, span.size)


cdef void _path(text_buffer_t *out, const char *key, const span_t *span, size_t limit) noexcept nogil:
    cdef span_t cut = span[0]
    cut.size = min(cut.size, limit)
    _span(out, key, &cut)
    if cut.size < span.size:
        buffer_put(out, key, strlen(key) - 2)
        json_number(out, b'_size":', span.size)


cdef bint _arguments(text_buffer_t *out, const process_t *process, size_t limit, bint base64) noexcept nogil:
    cdef const char *at = process.cmdline.at
    cdef size_t left = min(process.cmdline.size, limit)
    cdef const char *end
    cdef bint exact = True
    json_raw(out, b',"cmdline_base64":[' if base64 else b',"cmdline":[')
    while left:
        end = <const char *>memchr(at, 0, left)
        if end == NULL:
            exact &= json_string(out, at, left, base64)
            break
        exact &= json_string(out, at, end - at, base64)
        buffer_put(out, b",", 1)
        left -= end - at + 1
        at = end + 1
        if left == 0:
            json_string(out, at, 0, base64)     # the NUL separated an argument from an empty last one
    buffer_put(out, b"]", 1)
    return exact


cdef void _cmdline(text_buffer_t *out, const process_t *process, size_t limit) noexcept nogil:
    if not process.has & PROCESS_CMDLINE:
        return
    if not _arguments(out, process, limit, False):
        _arguments(out, process, limit, True)
    if process.cmdline_size > min(process.cmdline.size, limit):
        json_number(out, b',"cmdline_size":', process.cmdline_size)


cdef void identity_json(text_buffer_t *out, int32_t pid, uint64_t ticks, bint start, Identity identity) noexcept nogil:
    cdef char text[START_SIZE]
    if identity.entity_id(pid, ticks, text):
        json_raw(out, b',"entity_id":"')
        buffer_put(out, text, ENTITY_ID_SIZE)
        if start and identity.boot_time:
            identity.start_text(ticks, text)
            json_raw(out, b'","start":"')
            buffer_put(out, text, START_SIZE)
        buffer_put(out, b'"', 1)


cdef void _ancestors(text_buffer_t *out, const process_t *process, bint cut, Identity identity) noexcept nogil:
    cdef const ancestor_t *at = process.ancestors
    cdef int left = ANCESTORS
    json_raw(out, b',"ancestors":[')
    while at != NULL and left:
        json_number(out, b'{"pid":', at.pid)
        if at.start_ns:
            json_number(out, b',"start_ns":', at.start_ns)
        identity_json(out, at.pid, identity.ticks(at.start_ns), False, identity)
        _span(out, b',"comm":', &at.comm)
        if not cut:
            _span(out, b',"exe":', &at.exe)
        json_raw(out, b'}')
        at = at.next
        left -= 1
        if at != NULL and left:
            json_raw(out, b',')
    json_raw(out, b']')


cdef void _facts(text_buffer_t *out, const process_t *process, size_t limit, Identity identity) noexcept nogil:
    cdef uint64_t start_ns = identity.start_ns(process.start_ns, process.start)
    if process.pid == 0:     # of a socket without a process the cgroup may be known
        json_raw(out, b'"pid":null')
    else:
        json_number(out, b'"pid":', process.pid)
        if process.ns_pid:
            json_number(out, b',"ns_pid":', process.ns_pid)
        if start_ns:
            json_number(out, b',"start_ns":', start_ns)
        identity_json(out, process.pid, process.start, True, identity)
    if process.has & PROCESS_PPID:
        json_number(out, b',"ppid":', process.ppid)
    if process.has & PROCESS_LOGIN:
        json_number(out, b',"login_uid":', process.login_uid)
    if process.has & PROCESS_FORKED:
        json_raw(out, b',"forked":true')
    if process.has & PROCESS_COMM:
        _span(out, b',"comm":', &process.comm)
    if process.has & PROCESS_EXE:
        _path(out, b',"exe":', &process.exe, limit)
    if process.has & PROCESS_EXE_FILE:
        json_number(out, b',"exe_dev":', process.exe_dev)
        json_number(out, b',"exe_inode":', process.exe_inode)
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


cdef void process_json(text_buffer_t *out, const process_t *process, Identity identity) noexcept nogil:
    cdef size_t begin = out.length
    _facts(out, process, SIZE_MAX, identity)
    if out.length - begin > PROCESS_ROOM and not out.failed:
        out.length = begin
        _facts(out, process, CUT, identity)


cdef void process_json_kept(process_text_t *texts, text_buffer_t *out, process_t *process,
                            Identity identity) noexcept nogil:
    cdef process_text_t *slot = process_text_find(texts, process)
    if slot.process == NULL:
        process_json(&slot.text, process, identity)
        if not process_text_keep(slot, process):
            process_json(out, process, identity)
            return
    buffer_put(out, slot.text.data, slot.text.length)
