"""Asks the kernel as it is now who has a tuple: its socket by sock_diag or the tables, its processes in /proc.

A wrong name is worse than none: what several could have sent is nobody's.
"""
cimport cython
from libc.errno cimport EACCES, EAGAIN, EPERM, EPROTONOSUPPORT
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport malloc
from libc.string cimport memcmp, memset
from posix.unistd cimport _SC_CLK_TCK, sysconf

from netinet_in cimport IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE

from nfct_fast.attribution.candidates cimport candidates_keep
from nfct_fast.sockets.socket_holders cimport HOLDERS_MAX, holder_t
from nfct_fast.records.owner cimport (
    MATCH_LISTENER, MATCH_NONE, MATCH_PROTOCOL, MATCH_SOCKET, MATCH_WILDCARD, OWNER_UID, REASON_AMBIGUOUS,
    REASON_BUDGET, REASON_CLOSED, REASON_ERROR, REASON_EXITED, REASON_KERNEL, REASON_NONE, REASON_ORPHANED,
    REASON_PERMISSION, REASON_UNSUPPORTED,
)
from nfct_fast.processes.process cimport process_drop, process_t
from nfct_fast.kernel.clock cimport boottime_ns, monotonic_ns
from nfct_fast.sockets.socket_info cimport (
    SOCK_CGROUP, SOCK_COOKIE, SOCK_EXACT, SOCK_LISTENER, SOCK_PROTOCOL, SOCK_UID, SOCK_WILDCARD,
)

from nfct_fast.sockets.sock_diag import check_answers

cdef enum:
    SHARERS = 16              # sockets of one port that are looked at; more are ambiguous
    ALONE = 64
    # An idle reader looks once a second whether all was received; what may be older than that it was kept from reading.
    LATE_NS = 1500000000
    # States of a socket its process has closed: net/tcp_states.h.
    TCP_FIN_WAIT1 = 4
    TCP_FIN_WAIT2 = 5
    TCP_TIME_WAIT = 6
    TCP_LAST_ACK = 9
    TCP_CLOSING = 11
    IPPROTO_IGMP = 2
    # Their sockets are in no table there is everywhere; raw ones of a user's own protocol stack are.
    IPPROTO_DCCP = 33
    IPPROTO_SCTP = 132


cdef bint is_icmp(const tuple_t *tuple) noexcept nogil:
    return tuple.proto == IPPROTO_ICMP or tuple.proto == IPPROTO_ICMPV6


cdef bint is_orphan(const socket_info_t *sock) noexcept nogil:
    return sock.state in (TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_TIME_WAIT, TCP_LAST_ACK, TCP_CLOSING)


cdef uint8_t match_of(const socket_info_t *sock) noexcept nogil:
    if sock.kind == SOCK_LISTENER:
        return MATCH_LISTENER
    if sock.kind == SOCK_PROTOCOL:
        return MATCH_PROTOCOL
    return MATCH_SOCKET if sock.kind == SOCK_EXACT else MATCH_WILDCARD


cdef int diag_kind(const tuple_t *tuple) noexcept nogil:
    """The place in LiveLookup.diag; -1 for protocols only the tables know."""
    if tuple.proto == IPPROTO_TCP:
        return 0
    return 1 if tuple.proto == IPPROTO_UDP else 2 if tuple.proto == IPPROTO_UDPLITE else -1


cdef void note_socket(const socket_info_t *sock, owner_t *out) noexcept nogil:
    out.inode = sock.inode
    if sock.has & SOCK_COOKIE:
        out.cookie = sock.cookie
    if sock.has & SOCK_CGROUP:
        out.cgroup_id = sock.cgroup_id
    if sock.has & SOCK_UID:
        out.has |= OWNER_UID
        out.uid = sock.uid


cdef int reason_of(int error) noexcept nogil:
    if error == -EPROTONOSUPPORT:
        return REASON_UNSUPPORTED
    if error == -EAGAIN:
        return REASON_BUDGET
    if error == -EPERM or error == -EACCES:
        return REASON_PERMISSION
    return REASON_ERROR


cdef bint was_alone(const exclusive_t *alone, int index, const tuple_t *end, uint64_t inode,
                    int64_t received_at) noexcept nogil:
    # What had its port to itself after all flows of the batch were heard had it when they began.
    return (alone.inode == inode and alone.index == index and received_at and alone.at >= received_at
            and alone.end.sport == end.sport and alone.end.family == end.family
            and memcmp(alone.end.src, end.src, 16) == 0)


cdef int holder_find(const holders_t *holders, const holder_t *wanted) noexcept nogil:
    cdef int i
    for i in range(holders.count):
        if holders.at[i].pid == wanted.pid:
            return i
    return -1


cdef uint64_t boot_ticks(int64_t past_ns) noexcept nogil:
    """The time `past_ns` ago in the clock ticks of process_t.start."""
    return <uint64_t>((boottime_ns() - past_ns) // (1_000_000_000 // sysconf(_SC_CLK_TCK)))


@cython.final
@cython.auto_pickle(False)
cdef class LiveLookup:
    """Looks in one namespace after the other for the owner of a tuple.

    mode: "proc" has only the tables in /proc/net, "diag" raises OSError where sock_diag does not answer for TCP and
    UDP; else sock_diag is asked for what it answers for. proc, budget and spawn_helper: see Attribution. One caller at a time.
    """

    def __init__(self, str mode not None, proc, double budget, spawn_helper=None):
        self.reader = ProcessReader(proc)
        # First, so that a process that is forked for it has nothing of what follows.
        self.holder_search = HolderSearch(proc, budget, self.reader.cgroups, spawn_helper)
        if mode != "proc":
            self._probe(mode == "diag")
        self.directory = NamespaceIndex(proc=proc, diag=self.diag[0] or self.diag[1] or self.diag[2], spawn_helper=spawn_helper)
        self.processes = ProcessCache(self.reader)

    def close(self):
        """Close descriptors; nothing may be under way."""
        if self.reader is not None:
            self.reader.close()
        if self.holder_search is not None:
            self.holder_search.close()

    def _probe(self, needed):
        # A kernel without inet_diag (or udp_diag) answers every question as if there were no such socket.
        cdef int i = 0
        for proto in (IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE):
            try:
                check_answers(proto)
                self.diag[i] = True
            except OSError:
                if needed and proto != IPPROTO_UDPLITE:
                    raise
            i += 1

    cdef void begin(self, int64_t received_at, int64_t drained_at) noexcept nogil:
        self.received_at = received_at
        self.late = drained_at and received_at - drained_at > LATE_NS
        self.received_ticks = boot_ticks(monotonic_ns() - received_at)

    cdef int _socket(self, int index, const tuple_t *end, bint listener, int64_t when, socket_info_t *out) noexcept nogil:
        cdef tuple_t any_peer
        cdef int kind = diag_kind(end)
        if kind >= 0 and self.diag[kind]:
            return self.directory.lookup_at(index, end, listener, out)
        if not listener:
            return self.directory.tables_lookup(index, end, when, out)
        # No connection has port 0: only the listener is left to find.
        any_peer = end[0]
        any_peer.dport = 0
        return self.directory.tables_lookup(index, &any_peer, when, out)

    cdef int _sharers(self, int index, const tuple_t *end, bint originator, socket_info_t *own, diag_match_t *out,
                      int room) noexcept nogil:
        """The sockets that are as good an answer as `own`, with it, into out: how many; 0 where it is alone; -errno.

        An unconnected UDP socket shares its port with all others that are bound to it (SO_REUSEADDR, SO_REUSEPORT), as
        each may send to anybody, even if it is connected elsewhere. What comes in goes to the one that fits best.
        """
        cdef int kind = diag_kind(end)
        cdef exclusive_t *alone = &self.alone[(end.sport ^ end.sport >> 6) & (ALONE - 1)]
        cdef bint there = False
        cdef int count, fits
        cdef int64_t now
        if own.kind == SOCK_EXACT or own.kind == SOCK_WILDCARD and kind < 0:
            return room + 1 if own.ambiguous else 0
        if self.sole or was_alone(alone, index, end, own.inode, self.received_at):
            return 0
        now = monotonic_ns()
        count = (self.directory.survey_at(index, end, out, room) if kind >= 0 and self.diag[kind]
                 else self.directory.tables_survey(index, end, self.received_at, out, room))
        if count < 0 or count > room:
            return count
        fits = candidates_keep(out, count, own, end, originator, &there)
        if not there or fits != 1:
            return fits
        if count == 1:
            alone.inode, alone.index, alone.at, alone.end = own.inode, index, now, end[0]
        return 0

    cdef int _held(self, const socket_info_t *sock, holders_t *out) noexcept nogil:
        """The processes that hold a socket into out: REASON_NONE, or why there are none."""
        cdef int found = self.holder_search.holders(sock, out)
        if found < 0:
            return reason_of(found)
        return REASON_NONE if found else REASON_EXITED

    cdef int _adopt(self, const holders_t *holders, uint64_t inode, uint64_t looked, bint timed,
                    owner_t *out) noexcept nogil:
        """The holders as owners, if they still are who they were. inode 0: of several sockets."""
        cdef process_t *process
        cdef bint late = False
        cdef int i
        for i in range(holders.count):
            process = self.processes.get(holders.at[i].pid)
            if process == NULL:
                continue
            # Started since, it may be another process under the same pid.
            if process.start >= looked and inode and not self.holder_search.holds(&holders.at[i], inode):
                process_drop(process)
                continue
            # A process younger than the flow did not begin it: the port was taken again.
            if timed and self.received_at and process.start > self.received_ticks:
                late = True
                process_drop(process)
                continue
            if out.process == NULL:
                out.process = process
                self.named = holders.at[i]
                continue
            if out.others == NULL:
                out.others = <process_t **>malloc(HOLDERS_MAX * sizeof(process_t *))
            if out.others == NULL or out.other_count == HOLDERS_MAX:
                process_drop(process)
                break
            out.others[out.other_count] = process
            out.other_count += 1
        if out.process != NULL:
            return REASON_NONE
        return REASON_CLOSED if late else REASON_EXITED

    cdef int _shared(self, const diag_match_t *candidates, int count, bint timed, owner_t *out) noexcept nogil:
        """Of several sockets that may be meant: the processes that hold them all, then those that hold some."""
        cdef holders_t held, common, some
        cdef uint64_t looked = boot_ticks(0)
        cdef int i, j, kept, reason
        memset(&common, 0, sizeof(common))
        memset(&some, 0, sizeof(some))
        for i in range(count):
            reason = self._held(&candidates[i].sock, &held)
            if reason == REASON_BUDGET or reason == REASON_PERMISSION:
                return reason
            if reason != REASON_NONE or held.more:
                return REASON_AMBIGUOUS
            if i == 0:
                common = held
            kept = 0
            for j in range(common.count):
                if holder_find(&held, &common.at[j]) >= 0:
                    common.at[kept] = common.at[j]
                    kept += 1
            common.count = kept
            if kept == 0:
                return REASON_AMBIGUOUS
            for j in range(held.count):
                if some.count < HOLDERS_MAX and holder_find(&some, &held.at[j]) < 0:
                    some.at[some.count] = held.at[j]
                    some.count += 1
        for j in range(some.count):
            if common.count < HOLDERS_MAX and holder_find(&common, &some.at[j]) < 0:
                common.at[common.count] = some.at[j]
                common.count += 1
        out.inode = out.cookie = 0     # which of them it was is not known
        for i in range(1, count):
            if not candidates[i].sock.has & SOCK_UID or candidates[i].sock.uid != candidates[0].sock.uid:
                out.has &= ~OWNER_UID
        return self._adopt(&common, 0, looked, timed, out)

    cdef int owner(self, int index, const tuple_t *end, bint originator, owner_t *out) noexcept nogil:
        cdef socket_info_t sock
        cdef int found
        # Echo requests and their like are answered by the kernel, whoever else listens with a raw socket.
        if is_icmp(end) and not originator:
            out.match = MATCH_NONE
            return REASON_KERNEL
        memset(&sock, 0, sizeof(sock))
        found = self._socket(index, end, False, self.received_at, &sock)
        if found < 0:
            return reason_of(found)
        if found == 0:
            if end.proto == IPPROTO_SCTP or end.proto == IPPROTO_DCCP:
                return REASON_UNSUPPORTED
            return REASON_KERNEL if end.proto == IPPROTO_IGMP else REASON_CLOSED
        # Nobody begins a connection with a listening socket: the one that did is gone.
        if sock.kind == SOCK_LISTENER and originator:
            return REASON_CLOSED
        if sock.inode == 0 and end.proto == IPPROTO_TCP and not originator and not is_orphan(&sock):
            # Still in the accept queue, or before it: nobody's yet but the listener's.
            if self._socket(index, end, True, self.received_at, &sock) != 1 or sock.inode == 0:
                return REASON_CLOSED
        if sock.inode == 0:
            note_socket(&sock, out)
            out.match = match_of(&sock)
            return REASON_ORPHANED
        return self._of_socket(index, end, originator, &sock, out)

    cdef int listener(self, int index, const tuple_t *end, owner_t *out) noexcept nogil:
        cdef socket_info_t sock
        cdef int found
        memset(&sock, 0, sizeof(sock))
        found = self._socket(index, end, True, self.received_at, &sock)
        if found < 0:
            return reason_of(found)
        if found == 0 or sock.inode == 0 or sock.kind != SOCK_LISTENER:
            return REASON_CLOSED
        return self._of_socket(index, end, False, &sock, out)

    cdef bint holds(self, const holder_t *holder, uint64_t inode) noexcept nogil:
        return holder.pid > 0 and inode and self.holder_search.holds(holder, inode)

    cdef bint is_alone(self, int index, const tuple_t *end, uint64_t inode) noexcept nogil:
        cdef const exclusive_t *alone = &self.alone[(end.sport ^ end.sport >> 6) & (ALONE - 1)]
        return self.sole or was_alone(alone, index, end, inode, self.received_at)

    cdef int _of_socket(self, int index, const tuple_t *end, bint originator, socket_info_t *sock, owner_t *out) noexcept nogil:
        """The processes that hold a socket which was found, or why they are not known."""
        cdef diag_match_t candidates[SHARERS]
        cdef holders_t holders
        cdef socket_info_t again
        cdef bint stream = end.proto == IPPROTO_TCP
        cdef uint64_t looked
        cdef int found, reason
        found = self._sharers(index, end, originator, sock, candidates, SHARERS)
        if found < 0:
            return reason_of(found)
        out.match = match_of(sock)
        if found > SHARERS or found == 1:
            return REASON_AMBIGUOUS
        # Who has the port now need not be who had it then.
        if self.late and originator and sock.kind == SOCK_WILDCARD:
            return REASON_AMBIGUOUS
        # The kernel itself reports memberships, whoever else speaks IGMP.
        if end.proto == IPPROTO_IGMP:
            return REASON_AMBIGUOUS
        note_socket(sock, out)
        if found:
            if not self._same_cgroup(candidates, found):
                out.cgroup_id = 0
            reason = self._shared(candidates, found, originator and not stream, out)
            if reason != REASON_NONE:
                out.inode = out.cookie = 0
            return reason
        looked = boot_ticks(0)
        reason = self._held(sock, &holders)
        if reason == REASON_NONE:
            return self._adopt(&holders, sock.inode, looked, originator and not stream, out)
        if reason != REASON_EXITED and reason != REASON_PERMISSION:
            return reason
        # Not in a table that was read before: there it still is.
        found = self._socket(index, end, sock.kind == SOCK_LISTENER, monotonic_ns(), &again)
        if found != 1 or again.inode != sock.inode:
            return REASON_EXITED
        # Nobody has it, and yet it is there: a kernel socket, or one on its way through a UNIX socket.
        if reason == REASON_PERMISSION:
            return reason
        return REASON_EXITED if holders.ending else REASON_KERNEL

    cdef bint _same_cgroup(self, const diag_match_t *candidates, int count) noexcept nogil:
        cdef int i
        for i in range(1, count):
            if candidates[i].sock.cgroup_id != candidates[0].sock.cgroup_id:
                return False
        return True
