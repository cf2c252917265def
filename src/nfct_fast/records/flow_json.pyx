"""A flow with its owners as a JSON object. README.md has the schema; see process_json.pyx for names."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint64_t
from libc.string cimport memset
from libc.time cimport strftime, time_t, tm
from nfct_fast.events.community_id cimport COMMUNITY_ID_SIZE, community_id_differs, community_id_write
from nfct_fast.events.flow cimport (
    FLOW_COUNTERS, FLOW_FORGOTTEN, FLOW_MERGED, FLOW_RECOVERED, FLOW_REPLY, FLOW_START, FLOW_STATE, FLOW_STATUS,
    FLOW_STOP, NUMBERS, flow_first, flow_t, number_is_known, number_name, tuple_has_ports, tuple_t,
)
from nfct_fast.events.outcome cimport flow_duration, flow_outcome
from nfct_fast.processes.process_texts cimport process_text_t
from nfct_fast.records.labels cimport (
    ADDRESS_SIZE, address_write, direction_name, event_name, first_seen_name, outcome_name,
)
from nfct_fast.records.owner cimport REASON_REMOTE, owner_json, owner_t
from nfct_fast.records.presentation cimport Presentation
from nfct_fast.text.json_text cimport json_label, json_number, json_raw
from nfct_fast.text.protocol cimport protocol_write
from nfct_fast.text.status cimport status_put
from nfct_fast.text.text_buffer cimport buffer_put, text_buffer_t

cdef extern from "<time.h>" nogil:
    tm *gmtime_r(const time_t *time, tm *result)

cdef enum:
    IPPROTO_ICMP = 1
    IPPROTO_ICMPV6 = 58


cdef void _tuple(text_buffer_t *out, const char *key, const tuple_t *tuple, bint sport, bint dport) noexcept nogil:
    """Append addresses, and those ports that are wanted; an echo's id goes with the source port."""
    cdef char text[ADDRESS_SIZE]
    json_raw(out, key)
    json_raw(out, b'"src":"')
    buffer_put(out, text, address_write(tuple.src, tuple.family, text))
    json_raw(out, b'","dst":"')
    buffer_put(out, text, address_write(tuple.dst, tuple.family, text))
    buffer_put(out, b'"', 1)
    if tuple.proto == IPPROTO_ICMP or tuple.proto == IPPROTO_ICMPV6:
        json_number(out, b',"icmp_type":', tuple.icmp_type)
        json_number(out, b',"icmp_code":', tuple.icmp_code)
        if sport and dport:
            json_number(out, b',"icmp_id":', tuple.icmp_id)
    elif tuple_has_ports(tuple):
        if sport:
            json_number(out, b',"sport":', tuple.sport)
        if dport:
            json_number(out, b',"dport":', tuple.dport)
    buffer_put(out, b"}", 1)


cdef void community_id_json(text_buffer_t *out, const char *key, const tuple_t *tuple, uint16_t seed) noexcept nogil:
    cdef char text[COMMUNITY_ID_SIZE]
    community_id_write(tuple, seed, text)
    json_raw(out, key)
    buffer_put(out, text, COMMUNITY_ID_SIZE)
    buffer_put(out, b'"', 1)


cdef void entry_json(text_buffer_t *out, const flow_t *flow) noexcept nogil:
    cdef int number
    cdef bint one = not flow.has & FLOW_MERGED
    if flow.has & FLOW_STATUS and one:
        json_raw(out, b',"status":["' if flow.status else b',"status":[')
        status_put(out, flow.status, b'","')
        json_raw(out, b'"]' if flow.status else b"]")
    for number in range(NUMBERS):
        if number_is_known(flow, number):
            json_raw(out, b',"')
            json_raw(out, number_name(number))
            json_number(out, b'":', flow.numbers[number])
    if flow.has & FLOW_STATE and one:
        json_number(out, b',"state":', flow.state)
    if flow.netns_inode:
        json_number(out, b',"netns":', flow.netns_inode)


cdef void _first_seen(text_buffer_t *out, uint8_t marks) noexcept nogil:
    cdef const char *name
    cdef int i
    cdef bint any = False
    for i in range(4):
        if marks & 1 << i:
            name = first_seen_name(<uint8_t>(1 << i))
            json_raw(out, b',"' if any else b',"first_seen":["')
            json_raw(out, name)
            buffer_put(out, b'"', 1)
            any = True
    if any:
        buffer_put(out, b"]", 1)


cdef void marks_json(text_buffer_t *out, const flow_t *flow, uint8_t first_seen) noexcept nogil:
    if flow.has & FLOW_RECOVERED:
        json_raw(out, b',"recovered":true')
    if flow.has & FLOW_FORGOTTEN:
        json_raw(out, b',"forgotten":true')
    if first_seen:
        _first_seen(out, first_seen)


cdef void _counters(text_buffer_t *out, const flow_t *flow) noexcept nogil:
    if flow.has & FLOW_COUNTERS:
        json_number(out, b',"original_packets":', flow.packets[0])
        json_number(out, b',"original_bytes":', flow.bytes[0])
        json_number(out, b',"reply_packets":', flow.packets[1])
        json_number(out, b',"reply_bytes":', flow.bytes[1])
    if flow.has & FLOW_START:
        json_number(out, b',"start_ns":', <uint64_t>flow.start)
    if flow.has & FLOW_STOP:
        json_number(out, b',"stop_ns":', <uint64_t>flow.stop)


cdef void _end(text_buffer_t *out, const flow_t *flow, int64_t began) noexcept nogil:
    cdef int64_t duration = flow_duration(flow, began)
    if duration >= 0:
        json_number(out, b',"duration_ns":', <uint64_t>duration)
    json_label(out, b',"outcome":', outcome_name(flow_outcome(flow)))


cdef void merged_json(text_buffer_t *out, const flow_t *flow, int64_t began) noexcept nogil:
    if flow.has & FLOW_MERGED:
        json_number(out, b',"count":', flow.count)
        json_number(out, b',"first_ns":', <uint64_t>flow_first(flow, began))
        json_number(out, b',"last_ns":', <uint64_t>flow.last)


cdef void time_json(text_buffer_t *out, const char *key, json_clock_t *clock, int64_t time) noexcept nogil:
    cdef time_t second = <time_t>(time // 1000000000)
    cdef char digits[11]
    cdef int64_t rest = time % 1000000000
    cdef tm parts
    cdef int i
    if clock.size == 0 or second != clock.second:
        memset(&parts, 0, sizeof(parts))
        gmtime_r(&second, &parts)
        clock.size = strftime(clock.text, sizeof(clock.text), b"%Y-%m-%dT%H:%M:%S.", &parts)
        clock.second = second
    for i in range(8, -1, -1):
        digits[i] = <char>(48 + rest % 10)
        rest //= 10
    digits[9] = c"Z"
    digits[10] = c'"'
    json_raw(out, key)
    buffer_put(out, clock.text, clock.size)
    buffer_put(out, digits, 11)


cdef void stamp_json(text_buffer_t *out, json_clock_t *clock, int64_t time, Presentation presentation) noexcept nogil:
    time_json(out, b',"time":"', clock, time)
    json_number(out, b',"time_ns":', <uint64_t>time)
    buffer_put(out, presentation.host.data, presentation.host.length)


cdef void flow_json(text_buffer_t *out, const flow_t *flow, int64_t began, uint8_t direction, uint8_t first_seen,
                    const owner_t *owner, const owner_t *peer, const text_buffer_t *stamp, process_text_t *texts,
                    Presentation presentation) noexcept nogil:
    cdef bint one = not flow.has & FLOW_MERGED
    cdef char name[32]
    json_label(out, b'{"type":', event_name(flow.type))
    out.failed = out.failed or stamp.failed
    buffer_put(out, stamp.data, stamp.length)
    json_raw(out, b',"proto":"')
    buffer_put(out, name, protocol_write(flow.orig.family, flow.orig.proto, name))
    json_number(out, b'","protonum":', flow.orig.proto)
    _tuple(out, b',"original":{', &flow.orig, one, True)
    if flow.has & FLOW_REPLY:
        _tuple(out, b',"reply":{', &flow.reply, True, one)
    if presentation.has_community_id and one:           # which is of the source port as well
        community_id_json(out, b',"community_id":"', &flow.orig, presentation.seed)
        if community_id_differs(flow):
            community_id_json(out, b',"community_id_nat":"', &flow.reply, presentation.seed)
    json_label(out, b',"direction":', direction_name(direction))
    entry_json(out, flow)
    _counters(out, flow)
    _end(out, flow, began)
    merged_json(out, flow, began)
    marks_json(out, flow, first_seen)
    owner_json(out, b',"owner":{', owner, texts, presentation.identity)
    if direction and peer.reason != REASON_REMOTE:
        owner_json(out, b',"peer":{', peer, texts, presentation.identity)
    json_raw(out, b"}")
