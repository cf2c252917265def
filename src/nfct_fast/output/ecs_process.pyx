"""An owner in the Elastic Common Schema: process.*, user.*, group.* and container.*; the rest is ours, under nfct.*.

As in process_json.pyx, strings are valid UTF-8 that any parser accepts, and the text of one process is limited. What
cannot be written exactly has U+FFFD in it; the exact bytes are in --json.
"""
from libc.stdint cimport SIZE_MAX, int32_t, uint32_t, uint64_t
from libc.string cimport memchr
from nfct_fast.processes.account_names cimport ACCOUNT_NAME_MAX
from nfct_fast.processes.cgroup cimport span_t
from nfct_fast.processes.identity cimport ENTITY_ID_SIZE, START_SIZE, Identity
from nfct_fast.processes.process cimport (
    PROCESS_CMDLINE, PROCESS_COMM, PROCESS_EXE, PROCESS_EXE_FILE, PROCESS_FORKED, PROCESS_LOGIN, PROCESS_PPID,
    ancestor_t, process_t,
)
from nfct_fast.processes.process_texts cimport process_text_find, process_text_keep, process_text_t
from nfct_fast.records.owner cimport (
    OWNER_USERS, match_name, other_count, owner_gid, owner_t, owner_uid, reason_name,
)
from nfct_fast.text.json_text cimport json_label, json_number, json_raw, json_string
from nfct_fast.text.text_buffer cimport ESCAPE_JSON, ESCAPE_NUL, buffer_escaped, buffer_put, text_buffer_t

cdef enum:
    # Of a line of 32 KiB, which two processes share with the flow; see process_json.pyx.
    ROOM = 7000              # bytes of process and container
    DETAILS_ROOM = 4000      # bytes of what is under nfct
    CUT = 256                # bytes of exe, cmdline and cgroup that are kept of a process that exceeds this limit


cdef inline void _span(text_buffer_t *out, const char *key, const span_t *span, size_t limit) noexcept nogil:
    if span.size:
        json_raw(out, key)
        json_string(out, span.at, min(span.size, limit), False)


cdef void _identity(text_buffer_t *out, int32_t pid, uint64_t ticks, Identity identity) noexcept nogil:
    cdef char text[START_SIZE]
    json_number(out, b'{"pid":', pid)
    if identity.entity_id(pid, ticks, text):
        json_raw(out, b',"entity_id":"')
        buffer_put(out, text, ENTITY_ID_SIZE)
        identity.start_text(ticks, text)
        json_raw(out, b'","start":"')
        buffer_put(out, text, START_SIZE)
        buffer_put(out, b'"', 1)


cdef void _command_line(text_buffer_t *out, const process_t *process, size_t limit) noexcept nogil:
    cdef const char *at = process.cmdline.at
    cdef size_t left = min(process.cmdline.size, limit)
    cdef bint whole = process.cmdline_size <= left
    cdef uint64_t count = 0
    cdef const char *end
    if not process.has & PROCESS_CMDLINE or left == 0:
        return
    json_raw(out, b',"command_line":"')
    buffer_escaped(out, at, left, ESCAPE_JSON | ESCAPE_NUL)
    json_raw(out, b'","args":[')
    while True:
        end = <const char *>memchr(at, 0, left)
        if count:
            buffer_put(out, b",", 1)
        json_string(out, at, left if end == NULL else end - at, False)
        count += 1
        if end == NULL:
            break
        left -= end - at + 1
        at = end + 1
    buffer_put(out, b"]", 1)
    if whole:
        json_number(out, b',"args_count":', count)


cdef void _process(text_buffer_t *out, const process_t *process, size_t limit, Identity identity) noexcept nogil:
    cdef const ancestor_t *parent = process.ancestors
    json_raw(out, b',"process":')
    _identity(out, process.pid, process.start, identity)
    if process.has & PROCESS_COMM:
        _span(out, b',"name":', &process.comm, limit)
    if process.has & PROCESS_EXE:
        _span(out, b',"executable":', &process.exe, limit)
    _command_line(out, process, limit)
    if process.ns_pid:
        json_number(out, b',"vpid":', process.ns_pid)
    if parent != NULL and (not process.has & PROCESS_PPID or parent.pid == process.ppid):
        json_raw(out, b',"parent":')
        _identity(out, parent.pid, identity.ticks(parent.start_ns), identity)
        _span(out, b',"name":', &parent.comm, limit)
        _span(out, b',"executable":', &parent.exe, limit)
        buffer_put(out, b"}", 1)
    elif process.has & PROCESS_PPID:
        json_number(out, b',"parent":{"pid":', process.ppid)
        buffer_put(out, b"}", 1)
    buffer_put(out, b"}", 1)
    if process.names.container.size:
        _span(out, b',"container":{"id":', &process.names.container, limit)
        _span(out, b',"runtime":', &process.names.runtime, limit)
        buffer_put(out, b"}", 1)


cdef void _kept_process(text_buffer_t *out, process_t *process, process_text_t *texts,
                        Identity identity) noexcept nogil:
    cdef process_text_t *slot = process_text_find(texts, process)
    if slot.process == NULL:
        _process(&slot.text, process, SIZE_MAX, identity)
        if slot.text.length > ROOM:
            slot.text.length = 0
            _process(&slot.text, process, CUT, identity)
        if not process_text_keep(slot, process):
            _process(out, process, CUT, identity)
            return
    buffer_put(out, slot.text.data, slot.text.length)


cdef void _account(text_buffer_t *out, const char *key, uint32_t id, const char *name, size_t size) noexcept nogil:
    """Write a user or a group; size: of its name, 0 if it has none."""
    json_number(out, key, id)
    buffer_put(out, b'"', 1)
    if size:
        json_raw(out, b',"name":')
        json_string(out, name, size, False)
    buffer_put(out, b"}", 1)


cdef void ecs_owner(text_buffer_t *out, const owner_t *owner, process_text_t *texts, Identity identity) noexcept nogil:
    cdef char name[ACCOUNT_NAME_MAX]
    cdef uint32_t id = 0
    if owner.process != NULL:
        _kept_process(out, owner.process, texts, identity)
    if owner_uid(owner, &id):
        _account(out, b',"user":{"id":"', id, name, identity.names.user(id, name))
    if owner_gid(owner, &id):
        _account(out, b',"group":{"id":"', id, name, identity.names.group(id, name))


cdef void _details(text_buffer_t *out, const process_t *process, bint cut) noexcept nogil:
    cdef size_t limit = CUT if cut else SIZE_MAX
    if process.start_ns:
        json_number(out, b',"start_ns":', process.start_ns)
    if process.has & PROCESS_LOGIN:
        json_number(out, b',"login_uid":', process.login_uid)
    if process.has & PROCESS_FORKED:
        json_raw(out, b',"forked":true')
    if process.has & PROCESS_EXE_FILE:
        json_number(out, b',"exe_dev":', process.exe_dev)
        json_number(out, b',"exe_inode":', process.exe_inode)
    _span(out, b',"cgroup":', &process.cgroup, limit)
    _span(out, b',"unit":', &process.names.unit, limit)
    _span(out, b',"user_unit":', &process.names.user_unit, limit)
    _span(out, b',"slice":', &process.names.slice, limit)
    if not cut:
        _span(out, b',"claimed_unit":', &process.names.claimed_unit, limit)
        _span(out, b',"claimed_container":', &process.names.claimed_container, limit)
        _span(out, b',"claimed_runtime":', &process.names.claimed_runtime, limit)


cdef void _kept_details(text_buffer_t *out, process_t *process, process_text_t *texts) noexcept nogil:
    cdef process_text_t *slot = process_text_find(texts, process)
    if slot.process == NULL:
        _details(&slot.text, process, False)
        if slot.text.length > DETAILS_ROOM:
            slot.text.length = 0
            _details(&slot.text, process, True)
        if not process_text_keep(slot, process):
            _details(out, process, True)
            return
    buffer_put(out, slot.text.data, slot.text.length)


cdef void _user(text_buffer_t *out, const process_t *process, Identity identity) noexcept nogil:
    _identity(out, process.pid, process.start, identity)
    json_number(out, b',"uid":', process.uid)
    _span(out, b',"name":', &process.comm, SIZE_MAX)
    buffer_put(out, b"}", 1)


cdef void ecs_owner_details(text_buffer_t *out, const char *key, const owner_t *owner, process_text_t *texts,
                            Identity identity) noexcept nogil:
    cdef int others = other_count(owner)
    cdef bint users = owner.has & OWNER_USERS
    cdef const char *word
    cdef int i
    json_raw(out, key)
    if owner.process != NULL:
        word = match_name(owner.match)
    else:
        word = reason_name(owner.reason)
    if word == NULL:
        word = b"unknown"
    json_label(out, b'"match":' if owner.process != NULL else b'"reason":', word)
    if owner.process != NULL:
        _kept_details(out, owner.process, texts)
    elif owner.cgroup != NULL:
        _details(out, owner.cgroup, True)
    if owner.inode:
        json_number(out, b',"inode":', owner.inode)
    if owner.cookie:
        json_number(out, b',"cookie":', owner.cookie)
    if owner.cgroup_id:
        json_number(out, b',"cgroup_id":', owner.cgroup_id)
    for i in range(others):
        if not users:
            json_number(out, b"," if i else b',"others":[', owner.others.at[i].pid)
            continue
        json_raw(out, b"," if i else b',"users":[')
        _user(out, owner.others.at[i], identity)
    json_raw(out, b"]}" if others else b"}")
