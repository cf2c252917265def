"""Find the socket of a tuple with one exact sock_diag request.

A request names one tuple and takes microseconds, however many sockets there are. The kernel looks the tuple up as it
would for an incoming packet. If several sockets share the port, it therefore returns one of them, which need not be the
one that sent: the caller has to look at all of them (diag_survey).
"""
from libc.errno cimport EAGAIN, ENOSPC, EPROTONOSUPPORT
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memset

from linux_inet_diag cimport SOCK_DIAG_BY_FAMILY
from linux_netlink cimport NETLINK_SOCK_DIAG
from sys_socket cimport AF_INET, AF_INET6

from nfct_fast.sockets.diag_message cimport (
    DIAG_EQUAL, DIAG_GROUP, diag_has_ports, diag_match, diag_match_t, diag_port, diag_reply, diag_request,
    diag_request_dump, diag_request_t,
)
from nfct_fast.events.flow cimport tuple_set, tuple_t
from nfct_fast.kernel.netlink_query cimport (
    NETQUERY_SIZE, netquery_request, netquery_close, netquery_dump, netquery_open, netquery_receive, netquery_t,
)
from nfct_fast.sockets.socket_info cimport SOCK_EXACT, SOCK_LISTENER, SOCK_WILDCARD, socket_info_t

import os

cdef extern from "<netinet/in.h>" nogil:
    enum: IPPROTO_TCP

cdef extern from "<netinet/tcp.h>" nogil:
    enum: TCP_LISTEN


cdef int diag_ask(netquery_t *diag, const tuple_t *tuple, uint32_t ifindex, diag_match_t *match) noexcept nogil:
    cdef diag_request_t request
    cdef uint8_t buffer[NETQUERY_SIZE]
    cdef ssize_t got
    cdef int rc
    diag_request(&request, tuple, ifindex)
    rc = netquery_request(diag, &request.header)
    if rc < 0:
        return rc
    while True:
        got = netquery_receive(diag, buffer)
        if got < 0:
            return <int>got
        # -EAGAIN: this is the reply to an earlier request whose caller gave up waiting.
        rc = diag_reply(buffer, got, diag.seq, tuple, match)
        if rc != -EAGAIN:
            return rc


cdef struct survey_t:
    const tuple_t *tuple
    diag_match_t *out
    int room
    int count


cdef int survey_add(uint16_t type, const uint8_t *message, size_t size, void *context) noexcept nogil:
    cdef survey_t *survey = <survey_t *>context
    cdef bint stream = survey.tuple.proto == IPPROTO_TCP
    cdef diag_match_t match
    if type != SOCK_DIAG_BY_FAMILY or diag_match(message, size, survey.tuple, &match) != 1:
        return 0
    if stream and match.local == DIAG_GROUP:
        return 0
    match.sock.kind = (SOCK_LISTENER if stream
                       else SOCK_EXACT if match.local == DIAG_EQUAL and match.remote == DIAG_EQUAL
                       else SOCK_WILDCARD)
    if survey.count < survey.room:
        survey.out[survey.count] = match
    survey.count += 1
    return 0


cdef int survey_family(netquery_t *diag, survey_t *survey, uint8_t family) noexcept nogil:
    cdef diag_request_t request
    cdef bint changed = False      # ignored: sockets come and go at any time
    diag_request_dump(&request, survey.tuple, family,
                      1 << TCP_LISTEN if survey.tuple.proto == IPPROTO_TCP else 0xffffffff)
    return netquery_dump(diag, &request.header, survey_add, survey, &changed)


cdef int diag_survey(netquery_t *diag, const tuple_t *tuple, diag_match_t *out, int room) noexcept nogil:
    if not diag_has_ports(tuple.proto):
        return -EPROTONOSUPPORT
    cdef survey_t survey = survey_t(tuple, out, room, 0)
    cdef int rc = survey_family(diag, &survey, AF_INET6)
    if rc == 0 and tuple.family != AF_INET6:
        rc = survey_family(diag, &survey, AF_INET)
    return rc if rc < 0 else survey.count


cdef struct ports_t:
    uint8_t *taken
    int room


cdef int ports_add(uint16_t type, const uint8_t *message, size_t size, void *context) noexcept nogil:
    cdef ports_t *ports = <ports_t *>context
    cdef uint16_t port = diag_port(message, size)
    cdef uint8_t bit = <uint8_t>(1 << (port & 7))
    ports.taken[PORT_BYTES + (port >> 3)] |= ports.taken[port >> 3] & bit
    ports.taken[port >> 3] |= bit
    ports.room -= 1
    return 0 if ports.room >= 0 else -ENOSPC


cdef int diag_ports(netquery_t *diag, uint8_t proto, uint8_t *taken, int max_sockets) noexcept nogil:
    cdef ports_t ports = ports_t(taken, max_sockets)
    cdef diag_request_t request
    cdef tuple_t any_port
    cdef bint changed = False
    cdef int rc = 0, i
    memset(&any_port, 0, sizeof(any_port))
    any_port.proto = proto
    for i in range(2):
        diag_request_dump(&request, &any_port, AF_INET6 if i else AF_INET,
                          1 << TCP_LISTEN if proto == IPPROTO_TCP else 0xffffffff)
        rc = netquery_dump(diag, &request.header, ports_add, &ports, &changed)
        if rc < 0:
            return rc
    return -EAGAIN if changed else 0


cdef int diag_lookup(netquery_t *diag, const tuple_t *tuple, uint32_t ifindex, socket_info_t *out) noexcept nogil:
    cdef diag_match_t match
    cdef int rc
    memset(out, 0, sizeof(out[0]))
    if not diag_has_ports(tuple.proto):
        return -EPROTONOSUPPORT
    rc = diag_ask(diag, tuple, ifindex, &match)
    if rc == 1:
        out[0] = match.sock
    return rc


cdef int diag_lookup_listener(netquery_t *diag, const tuple_t *tuple, uint32_t ifindex,
                              socket_info_t *out) noexcept nogil:
    cdef tuple_t any_peer = tuple[0]
    if tuple.proto != IPPROTO_TCP:
        return -EPROTONOSUPPORT
    # No connection has remote port 0, so only the listener can match.
    any_peer.dport = 0
    cdef int rc = diag_lookup(diag, &any_peer, ifindex, out)
    return 0 if rc == 1 and out.kind != SOCK_LISTENER else rc


def check_answers(int proto):
    """Raise OSError unless sock_diag answers for this protocol in the calling thread's network namespace.

    An exact look-up would not show it: without inet_diag or udp_diag the kernel replies as if no such socket existed.
    """
    cdef netquery_t diag
    cdef diag_match_t match
    cdef tuple_t tuple
    cdef int rc = netquery_open(&diag, NETLINK_SOCK_DIAG)
    if rc < 0:
        raise OSError(-rc, f"socket(NETLINK_SOCK_DIAG): {os.strerror(-rc)}")
    tuple_set(&tuple, proto, "127.0.0.1", 1, "127.0.0.1", 1)
    with nogil:
        rc = diag_survey(&diag, &tuple, &match, 1)
        netquery_close(&diag)
    if rc < 0:
        raise OSError(-rc, f"sock_diag for protocol {proto}: {os.strerror(-rc)}")
