"""The fields a template can name, as text: `ev.` for the flow, `info.` for its owner, `peer.` for the other one.

An unknown field is written as `-`, an unknown pid as `?`.
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport strlen
from nfct_fast.processes.cgroup cimport span_t
from nfct_fast.events.community_id cimport COMMUNITY_ID_SIZE, community_id_differs, community_id_write
from nfct_fast.events.flow cimport (
    FLOW_COUNTERS, FLOW_FORGOTTEN, FLOW_MERGED, FLOW_RECOVERED, FLOW_REPLY, FLOW_STATE, FLOW_STATUS, NUMBERS,
    flow_count, flow_first, flow_last, flow_t, number_is_known, number_name, tuple_t,
)
from nfct_fast.events.outcome cimport flow_duration, flow_outcome
from nfct_fast.text.text_buffer cimport (
    ESCAPE_NUL, ESCAPE_SPACE, buffer_escaped, buffer_put, text_buffer_t, buffer_unsigned,
)
from nfct_fast.records.owner cimport match_name, owner_gid, owner_t, owner_uid, reason_name
from nfct_fast.processes.account_names cimport ACCOUNT_NAME_MAX
from nfct_fast.processes.identity cimport ENTITY_ID_SIZE, START_SIZE, Identity
from nfct_fast.processes.process cimport PROCESS_COMM, PROCESS_EXE_FILE, PROCESS_PPID, process_t
from nfct_fast.text.protocol cimport protocol_write
from nfct_fast.records.presentation cimport Presentation
from nfct_fast.records.record cimport record_t
from nfct_fast.text.status cimport status_put
from nfct_fast.records.labels cimport (
    ADDRESS_SIZE, address_write, direction_name, event_name, first_seen_name, outcome_name,
)

cdef enum:
    EV_TYPE, EV_PROTO, EV_SRC, EV_SPORT, EV_DST, EV_DPORT, EV_REPLY_SRC, EV_REPLY_SPORT, EV_REPLY_DST, EV_REPLY_DPORT,
    EV_ICMP_TYPE, EV_ICMP_CODE, EV_ICMP_ID, EV_STATUS, EV_STATE, EV_DIRECTION, EV_NETNS, EV_RECOVERED,
    EV_FORGOTTEN, EV_OUTCOME, EV_DURATION, EV_ORIGINAL_PACKETS, EV_ORIGINAL_BYTES, EV_REPLY_PACKETS, EV_REPLY_BYTES,
    EV_COMMUNITY_ID, EV_COMMUNITY_ID_NAT, EV_FIRST_SEEN, EV_HOST, EV_MERGED, EV_FIRST, EV_LAST,
    EV_NUMBERS               # NUMBERS of them
    EV_COUNT = EV_NUMBERS + NUMBERS

cdef enum:
    INFO_PID, INFO_PPID, INFO_PARENT, INFO_UID, INFO_GID, INFO_USER, INFO_GROUP, INFO_START, INFO_ENTITY_ID,
    INFO_COMM, INFO_EXE, INFO_EXE_DEV, INFO_EXE_INODE,
    INFO_CMDLINE, INFO_SERVICE, INFO_UNIT, INFO_USER_UNIT, INFO_SLICE, INFO_CONTAINER, INFO_CLAIMED_UNIT,
    INFO_CLAIMED_CONTAINER, INFO_INODE, INFO_MATCH, INFO_REASON,
    INFO_COUNT

_EV = ("type", "proto", "src", "sport", "dst", "dport", "reply_src", "reply_sport", "reply_dst", "reply_dport",
       "icmp_type", "icmp_code", "icmp_id", "status", "state", "direction", "netns", "recovered",
       "forgotten", "outcome", "duration", "original_packets", "original_bytes", "reply_packets", "reply_bytes",
       "community_id", "community_id_nat", "first_seen", "host", "count", "first", "last",
       *[number_name(number).decode("ascii") for number in range(NUMBERS)])
_INFO = ("pid", "ppid", "parent", "uid", "gid", "user", "group", "start", "entity_id", "comm", "exe", "exe_dev",
         "exe_inode", "cmdline", "service", "unit", "user_unit", "slice", "container", "claimed_unit",
         "claimed_container", "inode", "match", "reason")

FIELDS = (*[f"ev.{name}" for name in _EV], *[f"info.{name}" for name in _INFO], *[f"peer.{name}" for name in _INFO])


cdef int field_find(str name):
    return FIELDS.index(name) if name in FIELDS else -1


cdef void _put_label(text_buffer_t *out, const char *word) noexcept nogil:
    if word == NULL:
        word = b"-"
    buffer_put(out, word, strlen(word))


cdef void _put_flag(text_buffer_t *out, const char *word, bint is_set) noexcept nogil:
    _put_label(out, word if is_set else NULL)


cdef void _put_known(text_buffer_t *out, bint known, uint64_t value) noexcept nogil:
    if known:
        buffer_unsigned(out, value)
    else:
        buffer_put(out, b"-", 1)


cdef void _put_span(text_buffer_t *out, const span_t *span) noexcept nogil:
    if span.size:
        buffer_escaped(out, span.at, span.size, ESCAPE_SPACE)
    else:
        buffer_put(out, b"-", 1)


cdef void _put_address(text_buffer_t *out, const uint8_t *address, uint8_t family) noexcept nogil:
    cdef char text[ADDRESS_SIZE]
    buffer_put(out, text, address_write(address, family, text))


cdef void _put_tuple(text_buffer_t *out, const tuple_t *tuple, int field) noexcept nogil:
    cdef char name[32]
    if field == EV_PROTO:
        buffer_put(out, name, protocol_write(tuple.family, tuple.proto, name))
    elif field == EV_SRC:
        _put_address(out, tuple.src, tuple.family)
    elif field == EV_DST:
        _put_address(out, tuple.dst, tuple.family)
    else:
        buffer_unsigned(out, tuple.sport if field == EV_SPORT else tuple.dport)


cdef void _put_seconds(text_buffer_t *out, int64_t time) noexcept nogil:
    """ns as seconds with three digits behind the point."""
    cdef int64_t ms = time // 1000000
    if time < 0:
        buffer_put(out, b"-", 1)
        return
    buffer_unsigned(out, ms // 1000)
    buffer_put(out, b".", 1)
    if ms % 1000 < 100:
        buffer_put(out, b"00", 2 if ms % 1000 < 10 else 1)
    buffer_unsigned(out, ms % 1000)


cdef void _put_community_id(text_buffer_t *out, const flow_t *flow, bint nat, Presentation presentation) noexcept nogil:
    cdef char text[COMMUNITY_ID_SIZE]
    if flow.has & FLOW_MERGED or nat and not community_id_differs(flow):
        buffer_put(out, b"-", 1)
        return
    community_id_write(&flow.reply if nat else &flow.orig, presentation.seed, text)
    buffer_put(out, text, COMMUNITY_ID_SIZE)


cdef void _put_event(text_buffer_t *out, const record_t *record, int field, Presentation presentation) noexcept nogil:
    cdef const flow_t *flow = &record.flow
    if field == EV_TYPE:
        _put_label(out, event_name(flow.type))
    elif flow.has & FLOW_MERGED and (field == EV_SPORT or field == EV_REPLY_DPORT or field == EV_ICMP_ID):
        buffer_put(out, b"*", 1)        # any, as ss(8) writes it
    elif field <= EV_DPORT:
        _put_tuple(out, &flow.orig, field)
    elif field <= EV_REPLY_DPORT:
        if flow.has & FLOW_REPLY:
            _put_tuple(out, &flow.reply, field - EV_REPLY_SRC + EV_SRC)
        else:
            buffer_put(out, b"-", 1)
    elif field == EV_ICMP_TYPE:
        buffer_unsigned(out, flow.orig.icmp_type)
    elif field == EV_ICMP_CODE:
        buffer_unsigned(out, flow.orig.icmp_code)
    elif field == EV_ICMP_ID:
        buffer_unsigned(out, flow.orig.icmp_id)
    elif field == EV_STATUS:
        if flow.has & FLOW_STATUS and flow.status and not flow.has & FLOW_MERGED:
            status_put(out, flow.status, b"|")
        else:
            buffer_put(out, b"-", 1)
    elif field == EV_STATE:
        _put_known(out, flow.has & FLOW_STATE and not flow.has & FLOW_MERGED, flow.state)
    elif field == EV_DIRECTION:
        _put_label(out, direction_name(record.direction))
    elif field == EV_NETNS:
        buffer_unsigned(out, flow.netns_inode)
    elif field == EV_COMMUNITY_ID or field == EV_COMMUNITY_ID_NAT:
        _put_community_id(out, flow, field == EV_COMMUNITY_ID_NAT, presentation)
    elif field == EV_FIRST_SEEN:
        _put_label(out, first_seen_name(record.first_seen))
    elif field == EV_HOST:
        _put_span(out, &presentation.name)
    elif field == EV_MERGED:
        buffer_unsigned(out, flow_count(flow))
    elif field == EV_FIRST or field == EV_LAST:
        _put_seconds(out, flow_first(flow, record.began) if field == EV_FIRST else flow_last(flow))
    elif field >= EV_NUMBERS:
        _put_known(out, number_is_known(flow, field - EV_NUMBERS), flow.numbers[field - EV_NUMBERS])
    elif field == EV_RECOVERED:
        _put_flag(out, b"recovered", flow.has & FLOW_RECOVERED)
    elif field == EV_FORGOTTEN:
        _put_flag(out, b"forgotten", flow.has & FLOW_FORGOTTEN)
    elif field == EV_OUTCOME:
        _put_label(out, outcome_name(flow_outcome(flow)))
    elif field == EV_DURATION:
        _put_seconds(out, flow_duration(flow, record.began))
    elif field == EV_ORIGINAL_PACKETS or field == EV_REPLY_PACKETS:
        _put_known(out, flow.has & FLOW_COUNTERS, flow.packets[field == EV_REPLY_PACKETS])
    else:
        _put_known(out, flow.has & FLOW_COUNTERS, flow.bytes[field == EV_REPLY_BYTES])


cdef void _put_cmdline(text_buffer_t *out, const process_t *process) noexcept nogil:
    # Like ps, show the name in brackets if there is no command line: kernel threads and exiting processes have none.
    if process.cmdline.size == 0:
        if process.has & PROCESS_COMM:
            buffer_put(out, b"[", 1)
            buffer_escaped(out, process.comm.at, process.comm.size, 0)
            buffer_put(out, b"]", 1)
        else:
            buffer_put(out, b"-", 1)
        return
    buffer_escaped(out, process.cmdline.at, process.cmdline.size, ESCAPE_NUL)
    if process.cmdline_size > process.cmdline.size:
        buffer_put(out, b"...", 3)


cdef void _put_identity(text_buffer_t *out, const process_t *process, bint entity, Identity identity) noexcept nogil:
    cdef char text[START_SIZE]
    cdef bint known = identity.entity_id(process.pid, process.start, text)
    if not known or not entity and identity.boot_time == 0:
        buffer_put(out, b"-", 1)
    elif entity:
        buffer_put(out, text, ENTITY_ID_SIZE)
    else:
        identity.start_text(process.start, text)
        buffer_put(out, text, START_SIZE)


cdef void _put_process(text_buffer_t *out, const process_t *process, const process_t *cgroup, int field,
                       Identity identity) noexcept nogil:
    if process == NULL and cgroup != NULL and INFO_SERVICE <= field <= INFO_CLAIMED_CONTAINER:
        process = cgroup
    if process == NULL:
        buffer_put(out, b"?" if field == INFO_PID else b"-", 1)
    elif field == INFO_PID:
        buffer_unsigned(out, process.pid)
    elif field == INFO_PPID:
        _put_known(out, process.has & PROCESS_PPID, process.ppid)
    elif field == INFO_PARENT:
        if process.ancestors != NULL:
            _put_span(out, &process.ancestors.comm)
        else:
            buffer_put(out, b"-", 1)
    elif field == INFO_START or field == INFO_ENTITY_ID:
        _put_identity(out, process, field == INFO_ENTITY_ID, identity)
    elif field == INFO_COMM:
        _put_span(out, &process.comm)
    elif field == INFO_EXE:
        _put_span(out, &process.exe)
    elif field == INFO_EXE_DEV:
        _put_known(out, process.has & PROCESS_EXE_FILE, process.exe_dev)
    elif field == INFO_EXE_INODE:
        _put_known(out, process.has & PROCESS_EXE_FILE, process.exe_inode)
    elif field == INFO_CMDLINE:
        _put_cmdline(out, process)
    elif field == INFO_SERVICE:
        _put_span(out, &process.cgroup)
    elif field == INFO_UNIT:
        _put_span(out, &process.names.unit)
    elif field == INFO_USER_UNIT:
        _put_span(out, &process.names.user_unit)
    elif field == INFO_SLICE:
        _put_span(out, &process.names.slice)
    elif field == INFO_CONTAINER:
        _put_span(out, &process.names.container)
    elif field == INFO_CLAIMED_UNIT:
        _put_span(out, &process.names.claimed_unit)
    else:
        _put_span(out, &process.names.claimed_container)


cdef void _put_name(text_buffer_t *out, int field, bint known, uint32_t id, Identity identity) noexcept nogil:
    cdef char name[ACCOUNT_NAME_MAX]
    cdef span_t span
    span.at, span.size = name, 0
    if known:
        span.size = identity.names.user(id, name) if field == INFO_USER else identity.names.group(id, name)
    _put_span(out, &span)


cdef void _put_owner(text_buffer_t *out, const owner_t *owner, int field, Identity identity) noexcept nogil:
    cdef uint32_t id = 0
    cdef bint known
    if field == INFO_UID or field == INFO_USER:
        known = owner_uid(owner, &id)
    elif field == INFO_GID or field == INFO_GROUP:
        known = owner_gid(owner, &id)
    if field == INFO_UID or field == INFO_GID:
        _put_known(out, known, id)
    elif field == INFO_USER or field == INFO_GROUP:
        _put_name(out, field, known, id, identity)
    elif field == INFO_INODE:
        if owner.inode:
            buffer_unsigned(out, owner.inode)
        else:
            buffer_put(out, b"-", 1)
    elif field == INFO_MATCH:
        _put_label(out, match_name(owner.match))
    elif field == INFO_REASON:
        _put_label(out, reason_name(owner.reason))
    else:
        _put_process(out, owner.process, owner.cgroup, field, identity)


cdef bint field_name(const record_t *record, int field, span_t *out) noexcept nogil:
    cdef const owner_t *owner = &record.owner if field < EV_COUNT + INFO_COUNT else &record.peer
    cdef int name = (field - EV_COUNT) % INFO_COUNT
    cdef const process_t *process = owner.process
    if field < EV_COUNT or not INFO_COMM <= name <= INFO_CLAIMED_CONTAINER or INFO_EXE_DEV <= name <= INFO_EXE_INODE:
        return False
    if process == NULL and name >= INFO_SERVICE:
        process = owner.cgroup
    out.size = 0
    if process == NULL:
        return True
    if name == INFO_COMM:
        out[0] = process.comm
    elif name == INFO_EXE:
        out[0] = process.exe
    elif name == INFO_CMDLINE:
        out[0] = process.cmdline
    elif name == INFO_SERVICE:
        out[0] = process.cgroup
    elif name == INFO_UNIT:
        out[0] = process.names.unit
    elif name == INFO_USER_UNIT:
        out[0] = process.names.user_unit
    elif name == INFO_SLICE:
        out[0] = process.names.slice
    elif name == INFO_CONTAINER:
        out[0] = process.names.container
    elif name == INFO_CLAIMED_UNIT:
        out[0] = process.names.claimed_unit
    else:
        out[0] = process.names.claimed_container
    return True


cdef bint field_is_of_merged(int field) noexcept nogil:
    return EV_MERGED <= field <= EV_LAST


cdef bint field_is_of_process(int field) noexcept nogil:
    return EV_COUNT <= field < EV_COUNT + INFO_INODE


cdef void field_put(text_buffer_t *out, const record_t *record, int field, Presentation presentation) noexcept nogil:
    if field < EV_COUNT:
        _put_event(out, record, field, presentation)
    elif field < EV_COUNT + INFO_COUNT:
        _put_owner(out, &record.owner, field - EV_COUNT, presentation.identity)
    else:
        _put_owner(out, &record.peer, field - EV_COUNT - INFO_COUNT, presentation.identity)
