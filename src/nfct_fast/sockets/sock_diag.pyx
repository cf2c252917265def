"""Which socket a tuple belongs to, by one exact sock_diag request.

A request names one tuple and costs microseconds, however many sockets there are. The kernel looks the tuple up as it
would for an incoming packet, so what it finds for a port that several sockets share is one of them, not the one that
sent: such answers are marked ambiguous.
"""
cimport cython
from libc.errno cimport EAGAIN, ENOPROTOOPT, ENOSPC, EPROTONOSUPPORT, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from linux_inet_diag cimport SOCK_DIAG_BY_FAMILY
from linux_netlink cimport NETLINK_SOCK_DIAG
from sys_socket cimport AF_INET, AF_INET6, SO_NETNS_COOKIE, SOL_SOCKET, getsockopt, socklen_t

from nfct_fast.sockets.diag_message cimport (
    DIAG_EQUAL, DIAG_GROUP, diag_has_ports, diag_match, diag_match_t, diag_port, diag_reply, diag_request,
    diag_request_dump, diag_request_t,
)
from nfct_fast.events.flow cimport tuple_set, tuple_t
from nfct_fast.kernel.netlink_query cimport (
    NETQUERY_SIZE, netquery_ask, netquery_close, netquery_dump, netquery_open, netquery_receive, netquery_t,
)
from nfct_fast.sockets.socket_info cimport (
    SOCK_CGROUP, SOCK_COOKIE, SOCK_EXACT, SOCK_LISTENER, SOCK_UID, SOCK_WILDCARD, socket_info_t,
)

import os
import time

cdef extern from "<netinet/in.h>" nogil:
    enum: IPPROTO_TCP

cdef extern from "<netinet/tcp.h>" nogil:
    enum: TCP_LISTEN

cdef enum:
    ROOM = 16


cdef int diag_ask(netquery_t *diag, const tuple_t *tuple, uint32_t ifindex, diag_match_t *match) noexcept nogil:
    cdef diag_request_t request
    cdef uint8_t buffer[NETQUERY_SIZE]
    cdef ssize_t got
    cdef int rc
    diag_request(&request, tuple, ifindex)
    rc = netquery_ask(diag, &request.header)
    if rc < 0:
        return rc
    while True:
        got = netquery_receive(diag, buffer)
        if got < 0:
            return <int>got
        # -EAGAIN: an answer to an earlier request that was given up.
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
    cdef bint changed = False      # sockets come and go at any time
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


cdef int diag_ports(netquery_t *diag, uint8_t proto, uint8_t *taken, int most) noexcept nogil:
    cdef ports_t ports = ports_t(taken, most)
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


cdef int diag_lookup_listener(netquery_t *diag, const tuple_t *tuple, uint32_t ifindex, socket_info_t *out) noexcept nogil:
    cdef tuple_t asked = tuple[0]
    if tuple.proto != IPPROTO_TCP:
        return -EPROTONOSUPPORT
    # No connection has port 0, so only the listener is left to find.
    asked.dport = 0
    cdef int rc = diag_lookup(diag, &asked, ifindex, out)
    return 0 if rc == 1 and out.kind != SOCK_LISTENER else rc


cdef int diag_check(netquery_t *diag, const tuple_t *tuple, socket_info_t *found) noexcept nogil:
    cdef diag_match_t rivals[ROOM]
    cdef diag_match_t *own = NULL
    cdef int i, count
    if found.kind == SOCK_EXACT:
        return 0
    found.ambiguous = 1
    count = diag_survey(diag, tuple, rivals, ROOM)
    if count < 0 or count > ROOM:
        return count if count < 0 else 1
    for i in range(count):
        if rivals[i].sock.cookie == found.cookie:
            own = &rivals[i]
    found.ambiguous = 0
    for i in range(count):
        if &rivals[i] == own:
            continue
        # A listener on the address itself always wins over a wildcard one, AF_INET over AF_INET6: not rivals.
        # Whereas any UDP socket of the port may have sent, even one connected elsewhere.
        if (tuple.proto != IPPROTO_TCP or own == NULL
                or rivals[i].local == own.local and rivals[i].family == own.family):
            found.ambiguous = 1
    return found.ambiguous


cdef object sock_dict(const socket_info_t *sock):
    return {
        "inode": sock.inode or None,
        "uid": sock.uid if sock.has & SOCK_UID else None,
        "cookie": sock.cookie if sock.has & SOCK_COOKIE else None,
        "cgroup_id": sock.cgroup_id if sock.has & SOCK_CGROUP else None,
        "kind": KINDS.get(sock.kind),
        "state": sock.state,
        "ambiguous": bool(sock.ambiguous),
    }


KINDS = {SOCK_EXACT: "exact", SOCK_LISTENER: "listener", SOCK_WILDCARD: "wildcard"}


@cython.final
@cython.auto_pickle(False)
cdef class SockDiag:
    """A sock_diag socket in the network namespace of the calling thread.

    It stays in that namespace whatever the thread does later. Needs no privilege. Calls never wait for anything but
    the kernel's own look-up. Not to be used by two threads at a time.

    Raises OSError where sock_diag is not to be had (CONFIG_INET_DIAG, seccomp).
    """

    def __cinit__(self):
        self.diag.fd = -1

    def __init__(self):
        self.close()
        cdef int rc = netquery_open(&self.diag, NETLINK_SOCK_DIAG)
        if rc < 0:
            raise OSError(-rc, os.strerror(-rc), "socket(NETLINK_SOCK_DIAG)")

    def __dealloc__(self):
        netquery_close(&self.diag)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        """Closes the socket; a second call does nothing."""
        netquery_close(&self.diag)

    def fileno(self) -> int:
        """The file descriptor, or -1 when closed."""
        return self.diag.fd

    @property
    def netns_cookie(self):
        """The kernel's number of this namespace (SO_NETNS_COOKIE), or None before Linux 5.14."""
        cdef uint64_t cookie = 0
        cdef socklen_t size = sizeof(cookie)
        if getsockopt(self.diag.fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &size) < 0:
            if errno == ENOPROTOOPT:
                return None
            raise OSError(errno, os.strerror(errno), "getsockopt(SO_NETNS_COOKIE)")
        return cookie

    cdef int lookup(self, const tuple_t *tuple, socket_info_t *out) noexcept nogil:
        return self.lookup_on(tuple, 0, out)

    cdef int lookup_on(self, const tuple_t *tuple, uint32_t ifindex, socket_info_t *out) noexcept nogil:
        cdef int rc = diag_lookup(&self.diag, tuple, ifindex, out)
        cdef int error = diag_check(&self.diag, tuple, out) if rc == 1 else 0
        return error if error < 0 else rc

    cdef int lookup_listener(self, const tuple_t *tuple, socket_info_t *out) noexcept nogil:
        cdef int rc = diag_lookup_listener(&self.diag, tuple, 0, out)
        cdef int error = diag_check(&self.diag, tuple, out) if rc == 1 else 0
        return error if error < 0 else rc

    cdef int lookup_unchecked(self, const tuple_t *tuple, socket_info_t *out) noexcept nogil:
        return diag_lookup(&self.diag, tuple, 0, out)

    def find(self, proto, src, sport, dst, dport, *, listener=False, ifindex=0):
        """The socket whose local end is src:sport and whose remote end is dst:dport, as a dict, or None.

        proto: IPPROTO_* number; src, dst: addresses as ipaddress takes them; listener: look only for the listener;
        ifindex: the device the socket is bound to, if any. Unknown values are None. Raises OSError.
        """
        cdef tuple_t tuple
        cdef socket_info_t sock
        cdef int rc
        cdef uint32_t device = ifindex
        cdef bint only_listener = listener
        tuple_set(&tuple, proto, src, sport, dst, dport)
        with nogil:
            rc = self.lookup_listener(&tuple, &sock) if only_listener else self.lookup_on(&tuple, device, &sock)
        if rc < 0:
            raise OSError(-rc, os.strerror(-rc), "sock_diag")
        return sock_dict(&sock) if rc else None

    def candidates(self, proto, src, sport, dst, dport):
        """Every socket that could stand at src:sport (UDP), or listens there (TCP), as dicts; at most 256 of them."""
        cdef tuple_t tuple
        cdef diag_match_t *found
        cdef int i, count
        tuple_set(&tuple, proto, src, sport, dst, dport)
        found = <diag_match_t *>malloc(256 * sizeof(diag_match_t))
        if found == NULL:
            raise MemoryError
        try:
            with nogil:
                count = diag_survey(&self.diag, &tuple, found, 256)
            if count < 0:
                raise OSError(-count, os.strerror(-count), "sock_diag")
            return [sock_dict(&found[i].sock) for i in range(min(count, 256))]
        finally:
            free(found)


def parse_reply(bytes data, uint32_t seq, proto, src, sport, dst, dport):
    """What one reply to request number seq says: a dict, None (no such socket), or an errno as a negative int."""
    cdef tuple_t tuple
    cdef diag_match_t match
    tuple_set(&tuple, proto, src, sport, dst, dport)
    cdef int rc = diag_reply(<const uint8_t *>data, len(data), seq, &tuple, &match)
    return rc if rc < 0 else sock_dict(&match.sock) if rc else None


def benchmark(SockDiag diag, proto, src, sport, dst, dport, bint check, int count):
    """Looks one tuple up count times, with or without the check for rivals: (ns each, inode found)."""
    cdef tuple_t tuple
    cdef socket_info_t sock
    cdef int i, rc = 0
    tuple_set(&tuple, proto, src, sport, dst, dport)
    start = time.perf_counter_ns()
    with nogil:
        for i in range(count):
            rc = diag.lookup(&tuple, &sock) if check else diag.lookup_unchecked(&tuple, &sock)
    return (time.perf_counter_ns() - start) / count, sock.inode if rc == 1 else None
