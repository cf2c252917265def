"""The ladder from a tuple to its owner: socket, then process, and at every rung the reason why it may end there.

A tuple is looked up as its socket sees it. The originator's socket has the original tuple, before SNAT; the
responder's has the reply tuple, after DNAT.
"""
cimport cython
from libc.errno cimport EACCES, EAGAIN, ENXIO, EPROTONOSUPPORT
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport malloc
from libc.string cimport memset
from posix_inet cimport IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP
from .direction cimport DIRECTION_FORWARD, DIRECTION_IN, DIRECTION_LOCAL, direction_of
from .flow cimport FLOW_REPLY, tuple_invert
from .owner cimport (MATCH_LISTENER, MATCH_SOCKET, MATCH_WILDCARD, OWNER_UID, REASON_AMBIGUOUS, REASON_BUDGET, REASON_CLOSED,
                    REASON_ERROR, REASON_EXITED, REASON_FORWARDED, REASON_KERNEL, REASON_NONE, REASON_OFF,
                    REASON_ORPHANED, REASON_PERMISSION, REASON_REMOTE, REASON_UNSUPPORTED)
from .process cimport process_drop, process_t
from .procfd cimport HOLDERS_MAX, holders_t
from .sock cimport SOCK_CGROUP, SOCK_COOKIE, SOCK_LISTENER, SOCK_UID, SOCK_WILDCARD

ATTRIBUTIONS = ("auto", "diag", "proc", "off")

cdef enum:
    CANDIDATES = 64           # processes of the socket's cgroup that are looked into before others
    # States of a socket no process has: net/tcp_states.h.
    TCP_SYN_RECV = 3
    TCP_FIN_WAIT1 = 4
    TCP_FIN_WAIT2 = 5
    TCP_TIME_WAIT = 6
    TCP_LAST_ACK = 9
    TCP_CLOSING = 11
    TCP_NEW_SYN_RECV = 12


cdef bint _is_icmp(const tuple_t *tuple) noexcept nogil:
    return tuple.proto == IPPROTO_ICMP or tuple.proto == IPPROTO_ICMPV6


cdef bint _is_orphan(const sock_t *sock) noexcept nogil:
    return sock.state in (TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_TIME_WAIT, TCP_LAST_ACK, TCP_CLOSING)


cdef void _note_socket(const sock_t *sock, owner_t *out) noexcept nogil:
    out.inode = sock.inode
    if sock.has & SOCK_COOKIE:
        out.cookie = sock.cookie
    if sock.has & SOCK_CGROUP:
        out.cgroup_id = sock.cgroup_id
    if sock.has & SOCK_UID:
        out.has |= OWNER_UID
        out.uid = sock.uid
    if sock.kind == SOCK_LISTENER:
        out.match = MATCH_LISTENER
    else:
        out.match = MATCH_WILDCARD if sock.kind == SOCK_WILDCARD else MATCH_SOCKET


@cython.final
@cython.auto_pickle(False)
cdef class Attribution:
    """Finds the owners of flows heard in the network namespace of the thread that makes it.

    mode: "diag" asks sock_diag for the socket of each tuple, and the tables in /proc/net for protocols it cannot
    answer for; "proc" has only the tables; "auto" is the best there is; "off" looks for nothing. OSError if what the
    mode needs is not to be had. Used by one thread at a time.
    """

    def __init__(self, str mode not None="auto", proc="/proc"):
        if mode not in ATTRIBUTIONS:
            raise ValueError(f"attribution {mode!r}: there are {', '.join(ATTRIBUTIONS)}")
        self.mode = mode
        self.off = mode == "off"
        if self.off:
            return
        self.diag = mode != "proc"
        self.directory = Directory(proc=proc)
        self.tables = ProcNet(f"{proc}/thread-self/net")
        self.scanner = FdScanner(proc)
        self.processes = ProcessCache(proc)
        self.cgroups = CgroupFs()

    def add_home(self, space) -> int:
        """Serve flows heard in this namespace (a Netns, None for the thread's own), too; return its index."""
        return 0

    def close(self):
        """Free sockets and caches; closing twice is harmless."""
        self.off = True
        if self.directory is not None:
            self.directory.close()

    def refresh(self):
        """Look for namespaces that came and went; cheap when called often, and to be called about once a second."""
        if not self.off:
            self.directory.refresh()

    cdef void begin(self, int64_t heard) noexcept nogil:
        """A batch begins that was received at `heard`, CLOCK_MONOTONIC ns: no table older than that will do."""
        self.heard = heard
        if not self.off:
            self.directory.refresh_home()     # on failure what was known stays known, and the next batch asks again

    cdef int _socket(self, const tuple_t *end, sock_t *out) noexcept nogil:
        cdef int index = 0
        cdef int found
        if self.diag:
            found = self.directory.lookup(end, out, &index)
            if found >= 0 or found == -ENXIO:
                return found
        return self.tables.lookup(end, self.heard, out)

    cdef int _listener(self, const tuple_t *end, sock_t *out) noexcept nogil:
        cdef int index = 0
        cdef tuple_t any_peer
        if self.diag:
            return self.directory.lookup_listener(end, out, &index)
        # No connection has port 0: only the listener is left to find.
        any_peer = end[0]
        any_peer.dport = 0
        return self.tables.lookup(&any_peer, self.heard, out)

    cdef int _holders(self, const sock_t *sock, owner_t *out) noexcept nogil:
        """The processes that hold a socket into out: REASON_NONE, or why there are none."""
        cdef int32_t candidates[CANDIDATES]
        cdef holders_t holders
        cdef process_t *process
        cdef int count = 0
        cdef int i
        if sock.has & SOCK_CGROUP:
            count = max(0, self.cgroups.pids(sock.cgroup_id, candidates, CANDIDATES))
        i = self.scanner.find(sock.inode, sock.uid, sock.has & SOCK_UID, candidates, count, &holders)
        if i == -EAGAIN:
            return REASON_BUDGET
        if i == -EACCES:
            return REASON_PERMISSION
        if i < 0:
            return REASON_ERROR
        for i in range(holders.count):
            process = self.processes.get(holders.at[i].pid, 0)
            if process == NULL:
                continue
            if out.process == NULL:
                out.process = process
                continue
            if out.others == NULL:
                out.others = <process_t **>malloc(HOLDERS_MAX * sizeof(process_t *))
            if out.others == NULL:
                process_drop(process)
                break
            out.others[out.other_count] = process
            out.other_count += 1
        return REASON_EXITED if out.process == NULL else REASON_NONE

    cdef int _name(self, const tuple_t *end, owner_t *out) noexcept nogil:
        """The owner of the socket that sees `end` as its tuple, into out: REASON_NONE, or why there is none."""
        cdef sock_t sock
        cdef sock_t listener
        cdef int found
        memset(&sock, 0, sizeof(sock))
        found = self._socket(end, &sock)
        if found == -EPROTONOSUPPORT:
            return REASON_UNSUPPORTED
        if found == -EAGAIN:
            return REASON_BUDGET
        if found < 0:
            return REASON_ERROR
        if found == 0:
            return REASON_KERNEL if _is_icmp(end) else REASON_CLOSED
        if sock.ambiguous:
            return REASON_AMBIGUOUS
        _note_socket(&sock, out)
        if sock.inode != 0:
            return self._holders(&sock, out)
        if end.proto != IPPROTO_TCP or _is_orphan(&sock):
            return REASON_ORPHANED
        # Still in the accept queue, or before it: nobody's yet but the listener's.
        if self._listener(end, &listener) != 1 or listener.inode == 0:
            return REASON_CLOSED
        if listener.ambiguous:
            return REASON_AMBIGUOUS
        _note_socket(&listener, out)
        return self._holders(&listener, out)

    cdef void _resolve_forwarded(self, record_t *record) noexcept nogil:
        """A forwarded flow may begin or end in another namespace of this host: a container's."""
        cdef sock_t sock
        cdef int index = 0
        record.owner.reason = REASON_FORWARDED
        if not self.diag:
            return
        if self.directory.lookup(&record.flow.orig, &sock, &index) != -ENXIO:
            record.owner.reason = self._name(&record.flow.orig, &record.owner)
        elif record.flow.has & FLOW_REPLY and self.directory.lookup(&record.flow.reply, &sock, &index) != -ENXIO:
            record.owner.reason = self._name(&record.flow.reply, &record.owner)

    cdef void resolve(self, record_t *record) noexcept nogil:
        """Fill in direction, owner and peer."""
        cdef tuple_t reply
        if self.off:
            record.owner.reason = record.peer.reason = REASON_OFF
            return
        if record.flow.has & FLOW_REPLY:
            reply = record.flow.reply
        else:
            tuple_invert(&record.flow.orig, &reply)
        record.direction = direction_of(&record.flow.orig, &reply, self.directory.home())
        record.peer.reason = REASON_REMOTE
        if record.direction == DIRECTION_FORWARD:
            self._resolve_forwarded(record)
        elif record.direction == DIRECTION_IN:
            record.owner.reason = self._name(&reply, &record.owner)
        else:
            record.owner.reason = self._name(&record.flow.orig, &record.owner)
            if record.direction == DIRECTION_LOCAL:
                record.peer.reason = self._name(&reply, &record.peer)
