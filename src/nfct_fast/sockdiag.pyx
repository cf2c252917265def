"""Which socket a tuple belongs to, by one exact sock_diag request.

A request names one tuple and costs microseconds, however many sockets there are. The kernel looks the tuple up as it
would for an incoming packet, so what it finds for a port that several sockets share is one of them, not the one that
sent: such answers are marked ambiguous.
"""
cimport cython
from libc.errno cimport EAGAIN, EBADMSG, EINTR, ENOBUFS, ENOPROTOOPT, EPROTONOSUPPORT, errno
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from posix.unistd cimport close

from linux_inet_diag cimport SOCK_DIAG_BY_FAMILY
from linux_netlink cimport NETLINK_SOCK_DIAG, NLMSG_DONE, NLMSG_ERROR, nlmsghdr, sockaddr_nl
from sys_socket cimport (
    AF_INET, AF_INET6, AF_NETLINK, MSG_DONTWAIT, MSG_TRUNC, SO_NETNS_COOKIE, SOCK_CLOEXEC, SOCK_RAW, SOL_SOCKET,
    connect, getsockopt, recv, send, sockaddr, socket, socklen_t,
)

from nfct_fast.diagmsg cimport (
    DIAG_EQUAL, DIAG_GROUP, diag_has_ports, diag_match, diag_match_t, diag_reply, diag_request,
    diag_request_dump, diag_request_t,
)
from nfct_fast.flow cimport tuple_t
from nfct_fast.sock cimport SOCK_CGROUP, SOCK_COOKIE, SOCK_EXACT, SOCK_LISTENER, SOCK_UID, SOCK_WILDCARD, sock_t

import ipaddress
import os
import time

cdef extern from "<netinet/in.h>" nogil:
    enum: IPPROTO_TCP

cdef extern from "<netinet/tcp.h>" nogil:
    enum: TCP_LISTEN

cdef enum:
    BUFFER_SIZE = 16384     # netlink fills at most max(8 KiB, what recv offers) at a time in a dump
    ROOM = 16


cdef int diag_open(diag_t *diag) noexcept nogil:
    cdef sockaddr_nl kernel
    cdef int error
    diag.seq = 0
    diag.fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
    if diag.fd < 0:
        return -errno
    # Connected to the kernel's port 0, the socket refuses what any other process sends to it.
    memset(&kernel, 0, sizeof(kernel))
    kernel.nl_family = AF_NETLINK
    if connect(diag.fd, <const sockaddr *>&kernel, sizeof(kernel)) < 0:
        error = errno
        diag_close(diag)
        return -error
    return 0


cdef void diag_close(diag_t *diag) noexcept nogil:
    if diag.fd >= 0:
        close(diag.fd)
        diag.fd = -1


cdef int diag_send(diag_t *diag, const diag_request_t *request) noexcept nogil:
    while send(diag.fd, request, sizeof(request[0]), 0) < 0:
        if errno != EINTR:
            return -errno
    return 0


cdef ssize_t diag_receive(diag_t *diag, uint8_t *buffer) noexcept nogil:
    # sock_diag answers while send() is still in the kernel, and a dump goes on inside recv(): nothing to wait for.
    cdef ssize_t got
    cdef bint overrun = False
    while True:
        got = recv(diag.fd, buffer, BUFFER_SIZE, MSG_DONTWAIT | MSG_TRUNC)
        if got > BUFFER_SIZE:
            return -EBADMSG
        if got >= 0:
            return got
        if errno == EINTR:
            continue
        # Reported once; what was queued before it, and perhaps the answer, is still there.
        if errno == ENOBUFS and not overrun:
            overrun = True
            continue
        return -errno


cdef int diag_ask(diag_t *diag, const tuple_t *tuple, uint32_t ifindex, diag_match_t *match) noexcept nogil:
    cdef diag_request_t request
    cdef uint8_t buffer[BUFFER_SIZE]
    cdef ssize_t got
    cdef int rc
    diag.seq += 1
    diag_request(&request, tuple, ifindex, diag.seq)
    rc = diag_send(diag, &request)
    if rc < 0:
        return rc
    while True:
        got = diag_receive(diag, buffer)
        if got < 0:
            return <int>got
        # -EAGAIN: an answer to an earlier request that was given up.
        rc = diag_reply(buffer, got, diag.seq, tuple, match)
        if rc != -EAGAIN:
            return rc


cdef int survey_family(diag_t *diag, const tuple_t *tuple, uint8_t family, diag_match_t *out, int room,
                       int count) noexcept nogil:
    cdef diag_request_t request
    cdef diag_match_t match
    cdef uint8_t buffer[BUFFER_SIZE]
    cdef nlmsghdr header
    cdef int32_t error
    cdef const uint8_t *at
    cdef size_t left, step
    cdef ssize_t got
    cdef int rc
    diag.seq += 1
    diag_request_dump(&request, tuple, family, 1 << TCP_LISTEN if tuple.proto == IPPROTO_TCP else 0xffffffff, diag.seq)
    rc = diag_send(diag, &request)
    if rc < 0:
        return rc
    while True:
        got = diag_receive(diag, buffer)
        if got < 0:
            return <int>got
        at = buffer
        left = got
        while left >= sizeof(header):
            memcpy(&header, at, sizeof(header))
            if header.nlmsg_len < sizeof(header) or header.nlmsg_len > left:
                return -EBADMSG
            if header.nlmsg_seq == diag.seq:
                if header.nlmsg_type == NLMSG_DONE:
                    return count
                if header.nlmsg_type == NLMSG_ERROR:
                    if header.nlmsg_len < sizeof(header) + sizeof(error):
                        return -EBADMSG
                    memcpy(&error, at + sizeof(header), sizeof(error))
                    return error if error < 0 else -EBADMSG
                if (header.nlmsg_type == SOCK_DIAG_BY_FAMILY
                        and diag_match(at, header.nlmsg_len, tuple, &match) == 1):
                    if tuple.proto != IPPROTO_TCP or match.local != DIAG_GROUP:
                        match.sock.kind = (
                            SOCK_LISTENER if tuple.proto == IPPROTO_TCP
                            else SOCK_EXACT if match.local == DIAG_EQUAL and match.remote == DIAG_EQUAL
                            else SOCK_WILDCARD)
                        if count < room:
                            out[count] = match
                        count += 1
            step = (<size_t>header.nlmsg_len + 3) & ~(<size_t>3)
            if step >= left:
                break
            at += step
            left -= step


cdef int diag_survey(diag_t *diag, const tuple_t *tuple, diag_match_t *out, int room) noexcept nogil:
    if not diag_has_ports(tuple.proto):
        return -EPROTONOSUPPORT
    cdef int count = survey_family(diag, tuple, AF_INET6, out, room, 0)
    if count < 0 or tuple.family == AF_INET6:
        return count
    return survey_family(diag, tuple, AF_INET, out, room, count)


cdef int diag_lookup(diag_t *diag, const tuple_t *tuple, uint32_t ifindex, sock_t *out) noexcept nogil:
    cdef diag_match_t match
    cdef int rc
    memset(out, 0, sizeof(out[0]))
    if not diag_has_ports(tuple.proto):
        return -EPROTONOSUPPORT
    rc = diag_ask(diag, tuple, ifindex, &match)
    if rc == 1:
        out[0] = match.sock
    return rc


cdef int diag_lookup_listener(diag_t *diag, const tuple_t *tuple, uint32_t ifindex, sock_t *out) noexcept nogil:
    cdef tuple_t asked = tuple[0]
    if tuple.proto != IPPROTO_TCP:
        return -EPROTONOSUPPORT
    # No connection has port 0, so only the listener is left to find.
    asked.dport = 0
    cdef int rc = diag_lookup(diag, &asked, ifindex, out)
    return 0 if rc == 1 and out.kind != SOCK_LISTENER else rc


cdef int diag_check(diag_t *diag, const tuple_t *tuple, sock_t *found) noexcept nogil:
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


cdef int set_tuple(tuple_t *out, object src, int sport, object dst, int dport, int proto) except -1:
    cdef bytes local = inet_pack(src)
    cdef bytes remote = inet_pack(dst)
    if len(local) != len(remote):
        raise ValueError(f"{src} and {dst} are not of one family")
    if not 0 <= sport <= 65535 or not 0 <= dport <= 65535 or not 0 <= proto <= 255:
        raise ValueError("port or protocol out of range")
    memset(out, 0, sizeof(out[0]))
    memcpy(out.src, <const uint8_t *>local, len(local))
    memcpy(out.dst, <const uint8_t *>remote, len(remote))
    out.family = AF_INET if len(local) == 4 else AF_INET6
    out.proto = proto
    out.sport = sport
    out.dport = dport
    return 0


def inet_pack(address):
    return ipaddress.ip_address(address).packed


cdef object sock_dict(const sock_t *sock):
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
        cdef int rc = diag_open(&self.diag)
        if rc < 0:
            raise OSError(-rc, os.strerror(-rc), "socket(NETLINK_SOCK_DIAG)")

    def __dealloc__(self):
        diag_close(&self.diag)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        """Closes the socket; a second call does nothing."""
        diag_close(&self.diag)

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

    cdef int lookup(self, const tuple_t *tuple, sock_t *out) noexcept nogil:
        return self.lookup_on(tuple, 0, out)

    cdef int lookup_on(self, const tuple_t *tuple, uint32_t ifindex, sock_t *out) noexcept nogil:
        cdef int rc = diag_lookup(&self.diag, tuple, ifindex, out)
        cdef int error = diag_check(&self.diag, tuple, out) if rc == 1 else 0
        return error if error < 0 else rc

    cdef int lookup_listener(self, const tuple_t *tuple, sock_t *out) noexcept nogil:
        cdef int rc = diag_lookup_listener(&self.diag, tuple, 0, out)
        cdef int error = diag_check(&self.diag, tuple, out) if rc == 1 else 0
        return error if error < 0 else rc

    cdef int lookup_unchecked(self, const tuple_t *tuple, sock_t *out) noexcept nogil:
        return diag_lookup(&self.diag, tuple, 0, out)

    cdef int survey(self, const tuple_t *tuple, diag_match_t *out, int room) noexcept nogil:
        return diag_survey(&self.diag, tuple, out, room)

    def find(self, proto, src, sport, dst, dport, *, listener=False, ifindex=0):
        """The socket whose local end is src:sport and whose remote end is dst:dport, as a dict, or None.

        proto: IPPROTO_* number; src, dst: addresses as ipaddress takes them; listener: look only for the listener;
        ifindex: the device the socket is bound to, if any. Unknown values are None. Raises OSError.
        """
        cdef tuple_t tuple
        cdef sock_t sock
        cdef int rc
        cdef uint32_t device = ifindex
        cdef bint only_listener = listener
        set_tuple(&tuple, src, sport, dst, dport, proto)
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
        set_tuple(&tuple, src, sport, dst, dport, proto)
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
    set_tuple(&tuple, src, sport, dst, dport, proto)
    cdef int rc = diag_reply(<const uint8_t *>data, len(data), seq, &tuple, &match)
    return rc if rc < 0 else sock_dict(&match.sock) if rc else None


def benchmark(SockDiag diag, proto, src, sport, dst, dport, bint check, int count):
    """Looks one tuple up count times, with or without the check for rivals: (ns each, inode found)."""
    cdef tuple_t tuple
    cdef sock_t sock
    cdef int i, rc = 0
    set_tuple(&tuple, src, sport, dst, dport, proto)
    start = time.perf_counter_ns()
    with nogil:
        for i in range(count):
            rc = diag.lookup(&tuple, &sock) if check else diag.lookup_unchecked(&tuple, &sock)
    return (time.perf_counter_ns() - start) / count, sock.inode if rc == 1 else None
