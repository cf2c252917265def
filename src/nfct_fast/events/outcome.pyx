"""What became of a flow, as far as its conntrack entry says at its end.

The kernel never says why an entry ended, but what it sends with DESTROY tells: IPS_SEEN_REPLY, the TCP state, and the
seconds that were left (nf_conntrack_proto_tcp.c, nf_conntrack_netlink.c). A reset that answers the first SYN has the
entry deleted at once, before IPS_SEEN_REPLY is set; any later one leaves it in the state CLOSE for ten seconds. State
and seconds are in DESTROY since Linux 5.10; the seconds are left out if none are left: then the entry has expired. ICMP
errors leave no trace in the entry: a closed UDP port is "unanswered".
"""
from nfct_fast.events.flow cimport (
    EVENT_DESTROY, EVENT_FLOW, FLOW_COUNTERS, FLOW_START, FLOW_STATE, FLOW_STATUS, FLOW_STOP, NUMBER_TIMEOUT,
    flow_last,
)
from netinet_in cimport IPPROTO_TCP

cdef enum:
    IPS_SEEN_REPLY = 2
    TCP_CONNTRACK_TIME_WAIT = 7
    TCP_CONNTRACK_CLOSE = 8


cdef inline bint _has_ended(const flow_t *flow) noexcept nogil:
    return flow.type == EVENT_DESTROY or flow.type == EVENT_FLOW


cdef uint8_t _of_tcp(const flow_t *flow) noexcept nogil:
    cdef bint silent = flow.has & FLOW_COUNTERS and flow.packets[1] == 0
    if not flow.has & FLOW_STATE:
        if flow.status & IPS_SEEN_REPLY or not flow.has & FLOW_COUNTERS:
            return OUTCOME_UNKNOWN
        return OUTCOME_UNANSWERED if silent else OUTCOME_REFUSED
    if flow.state == TCP_CONNTRACK_CLOSE:
        if flow.status & IPS_SEEN_REPLY:
            return OUTCOME_RESET
        return OUTCOME_UNANSWERED if silent else OUTCOME_REFUSED      # silent: its own end sent the reset
    if not flow.status & IPS_SEEN_REPLY:
        return OUTCOME_UNANSWERED
    if flow.state == TCP_CONNTRACK_TIME_WAIT or flow.has_numbers >> NUMBER_TIMEOUT & 1:
        return OUTCOME_ANSWERED
    return OUTCOME_TIMED_OUT


cdef uint8_t flow_outcome(const flow_t *flow) noexcept nogil:
    if not _has_ended(flow) or not flow.has & FLOW_STATUS:
        return OUTCOME_UNKNOWN
    if flow.orig.proto == IPPROTO_TCP:
        return _of_tcp(flow)
    return OUTCOME_ANSWERED if flow.status & IPS_SEEN_REPLY else OUTCOME_UNANSWERED


cdef int64_t flow_duration(const flow_t *flow, int64_t began) noexcept nogil:
    # Both are wall-clock times, which may be set back in between.
    if not _has_ended(flow):
        return -1
    if flow.has & FLOW_START and flow.has & FLOW_STOP:
        return max(0, flow.stop - flow.start)
    return max(0, flow_last(flow) - began) if began else -1
