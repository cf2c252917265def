"""What would be found for a flow, or a socket, that nobody heard of: for tests and benchmarks."""
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


def find_flow(Resolver attribution not None, proto, src, sport, dst, dport, *, reply=None, netns=0, icmp_id=0,
              double age=0.0, begins=False):
    """A `Flow` as it would be told of one heard `age` seconds ago: to see what is found, and how.

    proto: IPPROTO_* number; addresses as ipaddress takes them; reply: the same four of the reply direction where
    NAT applies; netns: the number of the home it was heard in; begins: of TCP, that it is a SYN. Blocks while it looks.
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
        attribution.begin(monotonic_ns() - <int64_t>(age * 1e9), 0)
        attribution.resolve(&record, 1)
    return flow_object(&record)


def find_sockets(NamespaceIndex directory not None, proto, src, sport, dst, dport, *, listener=False):
    """The sockets at src:sport in the namespaces that have src, as [(inode of the namespace, dict)].

    Raise LookupError if no known namespace has the address, OSError.
    """
    cdef tuple_t tuple
    cdef socket_info_t sock
    cdef bint only_listener = listener
    cdef int i, rc
    tuple_set(&tuple, proto, src, sport, dst, dport)
    directory.refreshed_at = <uint64_t>monotonic_ns()
    i = directory.find_address(0, &tuple, -1)
    if i < 0 and directory.look_again(&tuple, True):
        i = directory.find_address(0, &tuple, -1)
    if i < 0:
        raise LookupError(f"no known network namespace has {src}")
    found = []
    while i >= 0:
        rc = directory.lookup_at(i, &tuple, only_listener, &sock)
        if rc < 0:
            raise OSError(-rc, os.strerror(-rc), "sock_diag")
        if rc == 1:
            found.append((directory.namespace_map.nodes[i].namespace.inode, sock_dict(&sock)))
        i = directory.find_address(0, &tuple, i)
    return found


def refresh_addresses(NamespaceIndex directory not None):
    """Takes in the changes of home's addresses heard of."""
    directory.refresh_monitored()


def may_come_from(NamespaceIndex directory not None, address, inode, *, home=0):
    """Whether a packet from that address, seen in a home, can have come out of the namespace with that inode."""
    cdef tuple_t tuple
    cdef int i
    tuple_set(&tuple, 17, address, 1, address, 1)
    for i in range(directory.namespace_map.count):
        if directory.namespace_map.nodes[i].namespace != NULL and directory.namespace_map.nodes[i].namespace.inode == inode:
            return directory.may_come_from(home, i, &tuple)
    raise LookupError(f"no known network namespace is {inode}")


def by_cookie(NamespaceIndex directory not None, cookie):
    """The inode of the namespace with that cookie, or None."""
    cdef int index = directory.find_cookie(cookie)
    return directory.namespace_map.nodes[index].namespace.inode if index >= 0 else None


def decode_directly(bytes message not None):
    """The C struct of one conntrack message as direct_decode fills it in, as bytes; None: it leaves it to the library."""
    cdef flow_t flow
    memset(&flow, 0, sizeof(flow))
    if len(message) < 20 or not direct_decode(<const uint8_t *>message, len(message), &flow):
        return None
    return (<const char *>&flow)[:sizeof(flow)]


def decode_by_library(bytes message not None):
    """The same as the library has it, but for type and time; None: it refuses it. `Flow` objects compare less than all of it."""
    cdef FlowDecoder decoder = FlowDecoder(by_library=True)
    cdef flow_t flow
    memset(&flow, 0, sizeof(flow))
    if decoder.decode(<const char *>message, len(message), &flow, 1, 0, 0) != 1:
        return None
    flow.type = 0
    return (<const char *>&flow)[:sizeof(flow)]
