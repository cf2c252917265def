"""Hooks for tests and benchmarks: look up flows, sockets and namespaces without an event, and decode messages."""
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memset

from nfct_fast.attribution.resolver cimport Resolver
from nfct_fast.namespaces.namespace_index cimport NamespaceIndex
from nfct_fast.events.direct_decode cimport direct_decode
from nfct_fast.events.decoder cimport FlowDecoder
from nfct_fast.events.flow cimport EVENT_NEW, FLOW_REPLY, FLOW_STATE, flow_t, tuple_set, tuple_t
from nfct_fast.kernel.clock cimport monotonic_ns
from nfct_fast.records.record cimport flow_object, record_t
from nfct_fast.sockets.socket_info cimport socket_info_t
from nfct_fast.testing.diag_client cimport sock_dict

import os


def find_flow(Resolver resolver not None, proto, src, sport, dst, dport, *, reply=None, netns=0, icmp_id=0,
              double age=0.0, begins=False):
    """Resolve a flow as if its event had been received `age` seconds ago, and return it as a `Flow`. May block.

    Args:
        proto: IPPROTO_* number.
        src, dst: Addresses in any form that ipaddress accepts.
        reply: (src, sport, dst, dport) of the reply direction, if NAT changes it.
        netns: Number of the monitored namespace in which the event was received.
        begins: Whether the flow's state is SYN_SENT; for TCP only.
    """
    cdef record_t record
    memset(&record, 0, sizeof(record))
    tuple_set(&record.flow.orig, proto, src, sport, dst, dport)
    record.flow.orig.icmp_id = icmp_id
    record.flow.type = EVENT_NEW
    record.flow.netns = netns
    if begins:
        record.flow.state = 1      # TCP_CONNTRACK_SYN_SENT
        record.flow.has |= FLOW_STATE
    if reply is not None:
        tuple_set(&record.flow.reply, proto, reply[0], reply[1], reply[2], reply[3])
        record.flow.reply.icmp_id = icmp_id
        record.flow.has |= FLOW_REPLY
    with nogil:
        resolver.begin(monotonic_ns() - <int64_t>(age * 1e9), 0)
        resolver.resolve(&record, 1)
    return flow_object(&record)


def find_sockets(NamespaceIndex namespaces not None, proto, src, sport, dst, dport, *, listener=False):
    """Find the sockets at src:sport in all namespaces that have the address src.

    Returns:
        A list of (inode of the namespace, dict of the socket).

    Raises:
        LookupError: No known namespace has the address.
        OSError: sock_diag failed.
    """
    cdef tuple_t tuple
    cdef socket_info_t sock
    cdef bint only_listener = listener
    cdef int i, rc
    tuple_set(&tuple, proto, src, sport, dst, dport)
    namespaces.refreshed_at = <uint64_t>monotonic_ns()
    i = namespaces.find_address(0, &tuple, -1)
    if i < 0 and namespaces.look_again(&tuple, True):
        i = namespaces.find_address(0, &tuple, -1)
    if i < 0:
        raise LookupError(f"no known network namespace has {src}")
    found = []
    while i >= 0:
        rc = namespaces.lookup_at(i, &tuple, only_listener, &sock)
        if rc < 0:
            raise OSError(-rc, os.strerror(-rc), "sock_diag")
        if rc == 1:
            found.append((namespaces.namespace_map.nodes[i].namespace.inode, sock_dict(&sock)))
        i = namespaces.find_address(0, &tuple, i)
    return found


def refresh_addresses(NamespaceIndex namespaces not None):
    """Apply the address changes of monitored namespaces that the discovery thread has received."""
    namespaces.refresh_monitored()


def may_come_from(NamespaceIndex namespaces not None, address, inode, *, monitored=0):
    """Return whether a packet from that address, seen in a monitored namespace, can come from the other namespace."""
    cdef tuple_t tuple
    cdef int i
    tuple_set(&tuple, 17, address, 1, address, 1)
    for i in range(namespaces.namespace_map.count):
        if (namespaces.namespace_map.nodes[i].namespace != NULL
                and namespaces.namespace_map.nodes[i].namespace.inode == inode):
            return namespaces.may_come_from(monitored, i, &tuple)
    raise LookupError(f"no known network namespace is {inode}")


def decode_directly(bytes message not None):
    """Decode one conntrack message by direct_decode. Return the C struct as bytes, None if the library has to do it."""
    cdef flow_t flow
    memset(&flow, 0, sizeof(flow))
    if len(message) < 20 or not direct_decode(<const uint8_t *>message, len(message), &flow):
        return None
    return (<const char *>&flow)[:sizeof(flow)]


def decode_by_library(bytes message not None):
    """Decode one conntrack message by the library. Return the C struct without type and time, None if it is refused.

    The struct is returned because comparing its bytes covers all fields; comparing `Flow` objects would cover only
    some.
    """
    cdef FlowDecoder decoder = FlowDecoder(by_library=True)
    cdef flow_t flow
    memset(&flow, 0, sizeof(flow))
    if decoder.decode(<const char *>message, len(message), &flow, 1, 0, 0) != 1:
        return None
    flow.type = 0
    return (<const char *>&flow)[:sizeof(flow)]
