"""A flow with its owners: the C struct of a batch, and the immutable Python object made from one."""
cimport cython
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy, memset
from nfct_fast.events.flow cimport (
    EVENT_COUNT, FLOW_COUNTERS, FLOW_FORGOTTEN, FLOW_RECOVERED, FLOW_REPLY, FLOW_START, FLOW_STATE, FLOW_STATUS,
    FLOW_STOP, NUMBER_ID, NUMBER_MARK, NUMBER_TIMEOUT, NUMBER_USE, NUMBER_ZONE, flow_t, number_is_known,
    tuple_has_ports, tuple_t,
)
from nfct_fast.events.outcome cimport OUTCOME_COUNT, flow_duration, flow_outcome
from nfct_fast.events.community_id cimport COMMUNITY_ID_SIZE, community_id_differs, community_id_write
from nfct_fast.records.owner cimport (
    REASON_REMOTE, owner_drop, owner_ids, owner_object, owner_restore, owner_state,
)
from nfct_fast.records.flow_json cimport flow_json, json_clock_t, stamp_json
from nfct_fast.records.presentation cimport Presentation
from nfct_fast.text.text_buffer cimport buffer_free, buffer_object, text_buffer_t
from nfct_fast.text.protocol cimport protocol_write
from nfct_fast.records.labels cimport (
    ADDRESS_SIZE, address_write, direction_name, event_name, first_seen_name, outcome_name,
)

import json
from typing import NamedTuple

from nfct_fast.kernel.host import Host
from nfct_fast.records.words import Direction, EventType, FirstSeenMark, Outcome
from nfct_fast.text.status import Status

cdef tuple _DIRECTIONS = (None, *[Direction(direction_name(i).decode("ascii")) for i in range(1, 5)])
cdef dict _EVENT_TYPES = {
    i: EventType(event_name(i).decode("ascii")) for i in range(EVENT_COUNT) if event_name(i) != NULL}
cdef tuple _FIRST_SEEN = ((), *[tuple([FirstSeenMark(word) for word in first_seen_name(i).decode("ascii").split(",")])
                                for i in range(1, SEEN_ALL + 1)])
cdef tuple _OUTCOMES = (None, *[Outcome(outcome_name(i).decode("ascii")) for i in range(1, OUTCOME_COUNT)])


class Tuple(NamedTuple):
    """Addresses and ports of one direction. What the protocol does not have is None."""

    src: str
    sport: int | None
    dst: str
    dport: int | None
    icmp_type: int | None = None
    icmp_code: int | None = None
    icmp_id: int | None = None


class Counters(NamedTuple):
    """Packets and bytes of each direction; only with net.netfilter.nf_conntrack_acct=1, and mostly on DESTROY."""

    original_packets: int
    original_bytes: int
    reply_packets: int
    reply_bytes: int


cdef void record_drop(record_t *record) noexcept nogil:
    owner_drop(&record.owner)
    owner_drop(&record.peer)


cdef str _address(const uint8_t *address, uint8_t family):
    cdef char text[ADDRESS_SIZE]
    cdef int length = address_write(address, family, text)
    return text[:length].decode("ascii")


cdef object _tuple(const tuple_t *tuple):
    src = _address(tuple.src, tuple.family)
    dst = _address(tuple.dst, tuple.family)
    if tuple.proto == 1 or tuple.proto == 58:
        return Tuple(src, None, dst, None, tuple.icmp_type, tuple.icmp_code, tuple.icmp_id)
    if not tuple_has_ports(tuple):
        return Tuple(src, None, dst, None)
    return Tuple(src, tuple.sport, dst, tuple.dport)


@cython.final
@cython.auto_pickle(False)
cdef class Flow:
    """One conntrack event with the owners of its ends. Immutable; it outlives the Conntrack it came from.

    Attributes the kernel did not send are None.
    """
    cdef record_t record
    cdef Presentation presentation

    def __init__(self):
        raise TypeError("a Flow cannot be made directly; Conntrack makes it")

    def __dealloc__(self):
        record_drop(&self.record)

    cdef object _number(self, int number):
        return self.record.flow.numbers[number] if number_is_known(&self.record.flow, number) else None

    @property
    def type(self) -> EventType:
        """What happened: "NEW", "UPDATE" or "DESTROY"; "FLOW" of Conntrack(flows=True), "ENTRY" of list_flows()."""
        return _EVENT_TYPES[self.record.flow.type]

    @property
    def proto(self) -> str:
        """Names of address family and protocol, as -p matches them: "ipv4/tcp"."""
        cdef char name[32]
        cdef int length = protocol_write(self.record.flow.orig.family, self.record.flow.orig.proto, name)
        return name[:length].decode("ascii")

    @property
    def l3proto(self) -> int:
        """Address family: AF_INET or AF_INET6."""
        return self.record.flow.orig.family

    @property
    def protonum(self) -> int:
        """IP protocol number, IPPROTO_*."""
        return self.record.flow.orig.proto

    @property
    def original(self) -> Tuple:
        """The direction of the first packet, before NAT."""
        return _tuple(&self.record.flow.orig)

    @property
    def reply(self) -> Tuple | None:
        """The direction of the replies; with NAT it is not the inverse of `original`."""
        return _tuple(&self.record.flow.reply) if self.record.flow.has & FLOW_REPLY else None

    @property
    def src(self) -> str:
        """Source address of the original direction."""
        return _address(self.record.flow.orig.src, self.record.flow.orig.family)

    @property
    def sport(self) -> int | None:
        """Source port of the original direction; None if the protocol has no ports."""
        return self.record.flow.orig.sport if tuple_has_ports(&self.record.flow.orig) else None

    @property
    def dst(self) -> str:
        """Destination address of the original direction."""
        return _address(self.record.flow.orig.dst, self.record.flow.orig.family)

    @property
    def dport(self) -> int | None:
        """Destination port of the original direction; None if the protocol has no ports."""
        return self.record.flow.orig.dport if tuple_has_ports(&self.record.flow.orig) else None

    cdef str _community_id(self, const tuple_t *tuple):
        cdef char out[COMMUNITY_ID_SIZE]
        community_id_write(tuple, self.presentation.seed, out)
        return out[:COMMUNITY_ID_SIZE].decode("ascii")

    @property
    def community_id(self) -> str:
        """Community ID v1 of `original`, the same in both directions; with the seed of Conntrack(community_id=), or 0.

        Computed at each access, in 0.4 us.
        """
        return self._community_id(&self.record.flow.orig)

    @property
    def community_id_nat(self) -> str | None:
        """Community ID v1 of `reply` if NAT made it another: what is seen on the other side of the NAT."""
        return self._community_id(&self.record.flow.reply) if community_id_differs(&self.record.flow) else None

    @property
    def direction(self) -> Direction | None:
        """Which ends are on this host: "out", "in", "local" (both) or "forward" (neither)."""
        return _DIRECTIONS[self.record.direction]

    @property
    def time_ns(self) -> int:
        """When the event was received, in ns since the epoch."""
        return self.record.flow.time

    @property
    def start_ns(self) -> int | None:
        """When the flow began, in ns since the epoch; needs net.netfilter.nf_conntrack_timestamp=1."""
        return self.record.flow.start if self.record.flow.has & FLOW_START else None

    @property
    def stop_ns(self) -> int | None:
        """When the flow ended, in ns since the epoch; needs net.netfilter.nf_conntrack_timestamp=1."""
        return self.record.flow.stop if self.record.flow.has & FLOW_STOP else None

    @property
    def duration_ns(self) -> int | None:
        """How long a flow that has ended lasted: from start_ns to stop_ns, or without them, for a "FLOW", from when its
        beginning was received to time_ns. The entry ends its timeout after the last packet, or when it is deleted."""
        cdef int64_t duration = flow_duration(&self.record.flow, self.record.began)
        return None if duration < 0 else duration

    @property
    def outcome(self) -> Outcome | None:
        """What became of a flow that has ended, as far as its conntrack entry says.

        "answered": a packet came back; of TCP, and both ends closed the connection, or its entry was deleted.
        "unanswered": nothing came back. For TCP alone: "refused" by a reset, "reset" later by either end, and
        "timed_out": nobody spoke any more until the entry expired, though the connection was not closed.
        """
        return _OUTCOMES[flow_outcome(&self.record.flow)]

    @property
    def forgotten(self) -> bool:
        """Whether, of a "FLOW", the beginning is not remembered: it was before the start or lost, or there was no room.
        Its owners are then what the DESTROY event alone can tell."""
        return bool(self.record.flow.has & FLOW_FORGOTTEN)

    @property
    def first_seen(self) -> tuple[FirstSeenMark, ...]:
        """What this flow is the first of, with Conntrack(first_seen=): "destination" if the program that began it has
        never before talked to that address, "port" if never before to that port. "roaming" and "scanning": it has
        talked to so many new ones that no more addresses or ports of it will be marked. Else empty."""
        return _FIRST_SEEN[self.record.first_seen]

    @property
    def status(self) -> Status | None:
        """Status bits."""
        return Status(self.record.flow.status) if self.record.flow.has & FLOW_STATUS else None

    @property
    def mark(self) -> int:
        """Connection mark; 0 if there is none."""
        return self.record.flow.numbers[NUMBER_MARK]

    @property
    def zone(self) -> int:
        """Conntrack zone; 0 is the default zone."""
        return self.record.flow.numbers[NUMBER_ZONE]

    @property
    def timeout(self) -> int | None:
        """Seconds until the entry expires if no further packet comes."""
        return self._number(NUMBER_TIMEOUT)

    @property
    def state(self) -> int | None:
        """State of the protocol's state machine: TCP_CONNTRACK_*, SCTP_CONNTRACK_* or CT_DCCP_*."""
        return self.record.flow.state if self.record.flow.has & FLOW_STATE else None

    @property
    def id(self) -> int | None:
        """The kernel's id of the entry, unique only while it lives."""
        return self._number(NUMBER_ID)

    @property
    def use(self) -> int | None:
        """References that the kernel holds to the entry; only for flows read from the conntrack table (`recovered`)."""
        return self._number(NUMBER_USE)

    @property
    def netns(self) -> int:
        """The network namespace the event came from: the inode that lsns(8) shows."""
        return self.record.flow.netns_inode

    @property
    def host(self) -> Host:
        """The host that it was recorded on, as of that time: this one, unless the flow was read from elsewhere."""
        return self.presentation.identity.host

    @property
    def recovered(self) -> bool:
        """Whether it was read from the conntrack table instead of an event; time_ns is then the time of reading. Of a
        "FLOW", whether its beginning was."""
        return bool(self.record.flow.has & FLOW_RECOVERED)

    @property
    def counters(self) -> Counters | None:
        """Packets and bytes of each direction."""
        cdef record_t *record = &self.record
        if not record.flow.has & FLOW_COUNTERS:
            return None
        return Counters(record.flow.packets[0], record.flow.bytes[0], record.flow.packets[1], record.flow.bytes[1])

    @property
    def owner(self):
        """The `Owner` of the originator's end, or of the responder's if only that one is on this host."""
        return owner_object(&self.record.owner, self.presentation.identity)

    @property
    def peer(self):
        """The `Owner` of the responder's end if both ends are on this host; else None."""
        if self.record.direction == 0 or self.record.peer.reason == REASON_REMOTE:
            return None
        return owner_object(&self.record.peer, self.presentation.identity)

    def __repr__(self):
        return (f"<Flow {self.type} {self.proto} {self.src}/{self.sport} > {self.dst}/{self.dport}"
                f" pid={self.owner.pid}>")

    def to_json(self) -> str:
        """Return the object that --json writes of it, without the newline.

        With `community_id` if that was asked for by Conntrack(community_id=).
        """
        cdef text_buffer_t out
        cdef text_buffer_t stamp
        cdef json_clock_t clock
        memset(&out, 0, sizeof(out))
        memset(&stamp, 0, sizeof(stamp))
        clock.size = 0
        stamp_json(&stamp, &clock, self.record.flow.time, self.presentation)
        flow_json(&out, &self.record.flow, self.record.began, self.record.direction, self.record.first_seen,
                  &self.record.owner, &self.record.peer, &stamp, NULL, self.presentation)
        buffer_free(&stamp)
        return buffer_object(&out)

    def to_dict(self) -> dict:
        """Return what to_json() writes as a dict."""
        return json.loads(self.to_json())

    __match_args__ = ("type", "proto", "src", "sport", "dst", "dport")

    def __eq__(self, other):
        if not isinstance(other, Flow):
            return NotImplemented
        return (record_state(&self.record) == record_state(&(<Flow>other).record)
                and self.presentation.identity.host == (<Flow>other).presentation.identity.host)

    def __hash__(self):
        return hash(record_state(&self.record))

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        uids, gids = owner_ids(&self.record.owner)
        peer_uids, peer_gids = owner_ids(&self.record.peer)
        return _restored, (record_state(&self.record), self.presentation.saved(uids | peer_uids, gids | peer_gids))


cdef tuple record_state(const record_t *record):
    return ((<const char *>&record.flow)[:sizeof(flow_t)], record.direction, owner_state(&record.owner),
            owner_state(&record.peer), record.began, record.first_seen)


def _restored(state, saved):
    """Make a Flow of what __reduce__() saved, by the same version of this package."""
    cdef Flow flow = Flow.__new__(Flow)
    cdef bytes event
    flow.presentation = Presentation(*saved)
    event, flow.record.direction, owner, peer, flow.record.began, flow.record.first_seen = state
    if len(event) != sizeof(flow_t) or flow.record.direction >= 5 or flow.record.first_seen > SEEN_ALL:
        raise ValueError("not the state of a Flow of this version of nfct_fast")
    memcpy(&flow.record.flow, <const char *>event, sizeof(flow_t))
    owner_restore(&flow.record.owner, owner)
    owner_restore(&flow.record.peer, peer)
    return flow


cdef object flow_object(record_t *record, Presentation presentation=None):
    cdef Flow flow = Flow.__new__(Flow)
    flow.presentation = presentation if presentation is not None else Presentation()
    flow.record = record[0]
    memset(record, 0, sizeof(record_t))
    return flow


cdef const record_t *flow_record(object flow) except NULL:
    return &(<Flow?>flow).record


cdef Presentation flow_presentation(object flow):
    return (<Flow?>flow).presentation
