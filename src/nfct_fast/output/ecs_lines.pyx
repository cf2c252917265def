"""Write a record as one line of JSON with the names of the Elastic Common Schema. README.md has the mapping.

Objects are nested, as the schema's own documents have them. What the schema has no field for is under `nfct`.
"""
cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memset
from netinet_in cimport IPPROTO_TCP
from nfct_fast.events.community_id cimport community_id_differs
from nfct_fast.events.flow cimport (
    EVENT_DESTROY, EVENT_ENTRY, EVENT_FLOW, EVENT_NEW, FLOW_COUNTERS, FLOW_MERGED, FLOW_RECOVERED, FLOW_REPLY,
    FLOW_START, FLOW_STATE, FLOW_STATUS, FLOW_STOP, NUMBER_ID, flow_first, flow_t, tuple_has_ports, tuple_t,
)
from nfct_fast.events.outcome cimport (
    OUTCOME_ANSWERED, OUTCOME_REFUSED, OUTCOME_RESET, OUTCOME_TIMED_OUT, OUTCOME_UNANSWERED, flow_duration,
    flow_outcome,
)
from nfct_fast.namespaces.direction cimport DIRECTION_IN, DIRECTION_LOCAL, DIRECTION_OUT
from nfct_fast.output.ecs_process cimport ecs_owner, ecs_owner_details
from nfct_fast.output.formatter cimport Formatter
from nfct_fast.processes.account_names cimport ACCOUNT_NAME_MAX
from nfct_fast.processes.process_texts cimport PROCESS_TEXTS, process_text_t, process_texts_free
from nfct_fast.records.flow_json cimport (
    community_id_json, entry_json, json_clock_t, marks_json, merged_json, time_json,
)
from nfct_fast.records.labels cimport ADDRESS_SIZE, address_write, direction_name, event_name, outcome_name
from nfct_fast.records.owner cimport REASON_REMOTE, owner_t, owner_uid
from nfct_fast.records.presentation cimport Presentation
from nfct_fast.records.record cimport RECORD_LOSS, loss_t, record_t
from nfct_fast.text.json_text cimport json_label, json_number, json_raw, json_string
from nfct_fast.text.protocol cimport protocol_write
from nfct_fast.text.text_buffer cimport buffer_free, buffer_put, text_buffer_t
from sys_socket cimport AF_INET

import os

cdef extern from "nfct_fast/text/siphash.h" nogil:
    uint64_t nfct_fast_text_hash(const uint64_t *key, const char *data, size_t length)

cdef enum:
    IPPROTO_ICMP = 1
    IPPROTO_ICMPV6 = 58
    CLOCKS = 2               # seconds that are kept as text: of now, and of when flows began

ECS_VERSION = "9.4.0"

ctypedef struct identified_t:
    uint64_t netns
    uint32_t id
    uint32_t status
    tuple_t tuple
    uint8_t type
    uint8_t state


cdef void _address(text_buffer_t *out, const char *key, const uint8_t *address, uint8_t family) noexcept nogil:
    cdef char text[ADDRESS_SIZE]
    json_raw(out, key)
    buffer_put(out, text, address_write(address, family, text))
    buffer_put(out, b'"', 1)


cdef bint _same(const uint8_t *one, const uint8_t *other) noexcept nogil:
    return memcmp(one, other, 16) == 0


cdef const uint8_t *_nth_address(const flow_t *flow, int number) noexcept nogil:
    if number == 0:
        return &flow.orig.src[0]
    if number == 1:
        return &flow.orig.dst[0]
    if number == 2:
        return &flow.reply.src[0]
    return &flow.reply.dst[0]


cdef void _end(text_buffer_t *out, const char *key, const flow_t *flow, bint source) noexcept nogil:
    """Write source or destination: before NAT, and what NAT made of it for the other end."""
    cdef const tuple_t *orig = &flow.orig
    cdef const uint8_t *address = _nth_address(flow, 0 if source else 1)
    cdef const uint8_t *changed = _nth_address(flow, 3 if source else 2)
    cdef int port = orig.sport if source else orig.dport
    cdef int changed_port = flow.reply.dport if source else flow.reply.sport
    cdef bint ports = tuple_has_ports(orig) and not (source and flow.has & FLOW_MERGED)
    json_raw(out, key)
    _address(out, b'{"ip":"', address, orig.family)
    if ports:
        json_number(out, b',"port":', port)
    if flow.has & FLOW_REPLY and (not _same(address, changed) or ports and port != changed_port):
        _address(out, b',"nat":{"ip":"', changed, flow.reply.family)
        if ports:
            json_number(out, b',"port":', changed_port)
        buffer_put(out, b"}", 1)
    if flow.has & FLOW_COUNTERS:
        json_number(out, b',"bytes":', flow.bytes[0 if source else 1])
        json_number(out, b',"packets":', flow.packets[0 if source else 1])
    buffer_put(out, b"}", 1)


cdef void _network(text_buffer_t *out, const record_t *record, Presentation presentation) noexcept nogil:
    cdef const flow_t *flow = &record.flow
    cdef char name[32]
    cdef int length = protocol_write(flow.orig.family, flow.orig.proto, name)
    cdef int slash = 5                  # after "ipv4" or "ipv6"
    json_raw(out, b',"network":{"type":"ipv4","transport":"' if flow.orig.family == AF_INET
             else b',"network":{"type":"ipv6","transport":"')
    if flow.orig.proto == IPPROTO_ICMPV6:
        json_raw(out, b"ipv6-icmp")     # IANA's keyword, which the schema asks for
    else:
        buffer_put(out, name + slash, length - slash)
    json_number(out, b'","iana_number":"', flow.orig.proto)
    buffer_put(out, b'"', 1)
    # As seen from this host.
    if record.direction == DIRECTION_IN:
        json_raw(out, b',"direction":"ingress"')
    elif record.direction == DIRECTION_OUT or record.direction == DIRECTION_LOCAL:
        json_raw(out, b',"direction":"egress"')
    else:
        json_raw(out, b',"direction":"unknown"')
    if not flow.has & FLOW_MERGED:
        community_id_json(out, b',"community_id":"', &flow.orig, presentation.seed)
    if flow.has & FLOW_COUNTERS:
        json_number(out, b',"bytes":', flow.bytes[0] + flow.bytes[1])
        json_number(out, b',"packets":', flow.packets[0] + flow.packets[1])
    buffer_put(out, b"}", 1)


cdef void _hexadecimal(text_buffer_t *out, uint64_t value) noexcept nogil:
    cdef char text[16]
    cdef int i
    for i in range(15, -1, -1):
        text[i] = b"0123456789abcdef"[value & 15]
        value >>= 4
    buffer_put(out, text, 16)


cdef void _event_id(text_buffer_t *out, const flow_t *flow) noexcept nogil:
    # With host.id it is the same wherever this record comes from again, and another one for every other record: those
    # received at one time differ in their tuple, or in the entry's id, or in what happened to it. What stands for
    # several flows has the tuple of the first, and with their number another id than that.
    cdef identified_t one
    cdef uint64_t key[2]
    key[0], key[1] = 0x6e6663745f666173, 0x74
    memset(&one, 0, sizeof(one))
    one.tuple, one.type, one.netns = flow.orig, flow.type, flow.netns_inode
    one.id = flow.numbers[NUMBER_ID]
    if flow.has & FLOW_STATUS:
        one.status = flow.status
    if flow.has & FLOW_STATE:
        one.state = flow.state
    if flow.has & FLOW_MERGED:
        key[0] ^= <uint64_t>flow.last
        key[1] ^= flow.count
    json_raw(out, b',"id":"')
    _hexadecimal(out, <uint64_t>flow.time)
    _hexadecimal(out, nfct_fast_text_hash(key, <const char *>&one, sizeof(one)))
    buffer_put(out, b'"', 1)


cdef const char *_action(const record_t *record) noexcept nogil:
    # The first two as Elastic's own rules for Linux ask for them.
    if record.flow.type == EVENT_NEW:
        return b"connection_accepted" if record.direction == DIRECTION_IN else b"connection_attempted"
    if record.flow.type == EVENT_FLOW:
        return b"network_flow"
    if record.flow.type == EVENT_DESTROY:
        return b"connection_ended"
    return b"connection_listed" if record.flow.type == EVENT_ENTRY else b"connection_updated"


cdef const char *_result(const flow_t *flow) noexcept nogil:
    cdef uint8_t outcome = flow_outcome(flow)
    if outcome == OUTCOME_ANSWERED or outcome == OUTCOME_RESET or outcome == OUTCOME_TIMED_OUT:
        return b"success"        # there was a connection
    if outcome == OUTCOME_REFUSED or outcome == OUTCOME_UNANSWERED and flow.orig.proto == IPPROTO_TCP:
        return b"failure"
    return b"unknown"


@cython.final
@cython.auto_pickle(False)
cdef class EcsLines(Formatter):
    """A format with one document of the Elastic Common Schema per line.

    presentation: a Presentation; network.community_id has its seed.
    """
    cdef json_clock_t clocks[CLOCKS]
    cdef process_text_t texts[PROCESS_TEXTS]
    cdef process_text_t details[PROCESS_TEXTS]
    cdef text_buffer_t host      # the same in all lines
    cdef Presentation presentation

    def __cinit__(self, Presentation presentation=None):
        self.presentation = presentation if presentation is not None else Presentation()
        host = self.presentation.identity.host
        cdef bytes name = os.fsencode(host.name)
        json_raw(&self.host, b',"host":{"hostname":')
        json_string(&self.host, name, len(name), False)
        json_raw(&self.host, b',"name":')
        json_string(&self.host, name, len(name), False)
        if host.machine_id is not None:
            json_label(&self.host, b',"id":', <bytes>host.machine_id.encode("ascii"))
        if host.boot_id is not None:
            json_label(&self.host, b',"boot":{"id":', <bytes>host.boot_id.encode("ascii"))
            buffer_put(&self.host, b"}", 1)
        json_raw(&self.host, b',"os":{"type":"linux"}},"ecs":{"version":"')
        json_raw(&self.host, <bytes>ECS_VERSION.encode("ascii"))
        json_raw(&self.host, b'"}')
        if self.host.failed:
            raise MemoryError("host")

    def __dealloc__(self):
        buffer_free(&self.host)
        process_texts_free(self.texts)
        process_texts_free(self.details)

    cdef void put(self, text_buffer_t *out, const record_t *record) noexcept nogil:
        if record.kind == RECORD_LOSS:
            self._put_loss(out, &record.loss)
            return
        self._put_event(out, record)
        _network(out, record, self.presentation)
        _end(out, b',"source":', &record.flow, True)
        _end(out, b',"destination":', &record.flow, False)
        ecs_owner(out, &record.owner, self.texts, self.presentation.identity)
        buffer_put(out, self.host.data, self.host.length)
        self._put_related(out, record)
        self._put_ours(out, record)
        buffer_put(out, b"}\n", 2)

    cdef void _put_loss(self, text_buffer_t *out, const loss_t *loss) noexcept nogil:
        if loss.events == 0 and not loss.at_least:      # all of them were recovered
            return
        time_json(out, b'{"@timestamp":"', &self.clocks[0], loss.time)
        json_raw(out, b',"event":{"kind":"event","category":["network"],"type":["info"],"action":"events_lost",'
                 b'"module":"nfct_fast","dataset":"nfct_fast.flow"}')
        buffer_put(out, self.host.data, self.host.length)
        json_number(out, b',"nfct":{"type":"LOST","time_ns":', <uint64_t>loss.time)
        json_number(out, b',"lost":', loss.events)
        json_raw(out, b',"at_least":true}}\n' if loss.at_least else b"}}\n")

    cdef void _put_event(self, text_buffer_t *out, const record_t *record) noexcept nogil:
        cdef const flow_t *flow = &record.flow
        cdef int64_t duration = flow_duration(flow, record.began)
        cdef bint merged = flow.has & FLOW_MERGED != 0
        cdef int64_t time = flow.occurred if flow.occurred > 0 and not flow.has & FLOW_RECOVERED else flow.time
        cdef int64_t start = flow.start if flow.has & FLOW_START else record.began
        cdef bint ended = flow.type == EVENT_FLOW or flow.type == EVENT_DESTROY
        if flow.type == EVENT_NEW and not start and not flow.has & FLOW_RECOVERED:
            start = time
        time_json(out, b'{"@timestamp":"', &self.clocks[0], time)
        json_raw(out, b',"event":{"kind":"state"' if flow.type == EVENT_ENTRY else b',"event":{"kind":"event"')
        json_raw(out, b',"category":["network"],"type":["connection",')
        if flow.type == EVENT_NEW:
            json_raw(out, b'"start"]')
        else:
            json_raw(out, b'"end"]' if ended else b'"info"]')
        json_label(out, b',"action":', _action(record))
        json_raw(out, b',"module":"nfct_fast","dataset":"nfct_fast.flow"')
        _event_id(out, flow)
        time_json(out, b',"created":"', &self.clocks[0], flow.time)
        if merged:
            start = flow_first(flow, record.began)
            duration = max(0, flow.last - start)
        if start > 0:
            time_json(out, b',"start":"', &self.clocks[1], start)
        if merged:
            time_json(out, b',"end":"', &self.clocks[0], flow.last)
        elif ended:
            time_json(out, b',"end":"', &self.clocks[0], flow.stop if flow.has & FLOW_STOP else time)
        if (ended or merged) and duration >= 0:
            json_number(out, b',"duration":', <uint64_t>duration)
        if ended:
            json_label(out, b',"outcome":', _result(flow))
        buffer_put(out, b"}", 1)

    cdef void _put_related(self, text_buffer_t *out, const record_t *record) noexcept nogil:
        cdef const flow_t *flow = &record.flow
        cdef const uint8_t *found
        cdef const uint8_t *before
        cdef char names[2][ACCOUNT_NAME_MAX]
        cdef size_t sizes[2]
        cdef uint32_t id = 0
        cdef int count = 0
        cdef int i, j
        json_raw(out, b',"related":{"ip":[')
        for i in range(4 if flow.has & FLOW_REPLY else 2):
            found = _nth_address(flow, i)
            for j in range(i):
                before = _nth_address(flow, j)
                if _same(found, before):
                    break
            else:
                _address(out, b',"' if i else b'"', found, flow.orig.family)
        buffer_put(out, b"]", 1)
        for i in range(2):
            sizes[i] = 0
            if owner_uid(&record.owner if i == 0 else &record.peer, &id):
                sizes[i] = self.presentation.identity.names.user(id, names[i])
            if sizes[i] and not (i and sizes[0] == sizes[1] and memcmp(names[0], names[1], sizes[0]) == 0):
                json_raw(out, b"," if count else b',"user":[')
                json_string(out, names[i], sizes[i], False)
                count += 1
        json_raw(out, b"]}" if count else b"}")

    cdef void _put_ours(self, text_buffer_t *out, const record_t *record) noexcept nogil:
        cdef const flow_t *flow = &record.flow
        json_label(out, b',"nfct":{"type":', event_name(flow.type))
        json_number(out, b',"time_ns":', <uint64_t>flow.time)
        json_label(out, b',"direction":', direction_name(record.direction))
        json_label(out, b',"outcome":', outcome_name(flow_outcome(flow)))
        if not flow.has & FLOW_MERGED and community_id_differs(flow):
            community_id_json(out, b',"community_id_nat":"', &flow.reply, self.presentation.seed)
        if flow.orig.proto == IPPROTO_ICMP or flow.orig.proto == IPPROTO_ICMPV6:
            json_number(out, b',"icmp":{"type":', flow.orig.icmp_type)
            json_number(out, b',"code":', flow.orig.icmp_code)
            if not flow.has & FLOW_MERGED:
                json_number(out, b',"id":', flow.orig.icmp_id)
            buffer_put(out, b"}", 1)
        entry_json(out, flow)
        merged_json(out, flow, record.began)
        marks_json(out, flow, record.first_seen)
        ecs_owner_details(out, b',"owner":{', &record.owner, self.details, self.presentation.identity)
        if record.direction and record.peer.reason != REASON_REMOTE:
            self._put_peer(out, &record.peer)
        buffer_put(out, b"}", 1)

    cdef void _put_peer(self, text_buffer_t *out, const owner_t *peer) noexcept nogil:
        # With the same names as the owner, below nfct.peer.
        ecs_owner_details(out, b',"peer":{"owner":{', peer, self.details, self.presentation.identity)
        ecs_owner(out, peer, self.texts, self.presentation.identity)
        buffer_put(out, b"}", 1)
