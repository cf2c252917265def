"""Find the owner of a tuple by querying the kernel's present state.

sock_diag or /proc/net shows the socket, and /proc/PID/fd the processes that hold it. A wrong name is worse than none:
if several sockets could have sent a packet, no process is named.
"""
cimport cython
from libc.errno cimport EACCES, EAGAIN, EPERM, EPROTONOSUPPORT
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcmp, memset

from netinet_in cimport IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE

from nfct_fast.attribution.candidates cimport candidates_keep
from nfct_fast.sockets.socket_holders cimport HOLDERS_MAX, holder_t
from nfct_fast.records.owner cimport (
    MATCH_LISTENER, MATCH_NONE, MATCH_PROTOCOL, MATCH_SOCKET, MATCH_WILDCARD, OWNER_UID, REASON_AMBIGUOUS,
    REASON_BUDGET, REASON_CLOSED, REASON_ERROR, REASON_EXITED, REASON_KERNEL, REASON_NONE, REASON_ORPHANED,
    REASON_PERMISSION, REASON_UNSUPPORTED, others_new,
)
from nfct_fast.processes.process cimport process_drop, process_t
from nfct_fast.kernel.clock cimport boottime_ns, clock_ticks, monotonic_ns
from nfct_fast.sockets.socket_info cimport (
    SOCK_CGROUP, SOCK_COOKIE, SOCK_EXACT, SOCK_LISTENER, SOCK_PROTOCOL, SOCK_UID, SOCK_WILDCARD,
)

from nfct_fast.sockets.fd_scanner import BURST
from nfct_fast.sockets.sock_diag import check_answers

cdef enum:
    CANDIDATES = 16              # sockets of one port that are compared; if there are more, the owner is ambiguous
    EXCLUSIVES = 64
    # An idle reader checks once a second that it has received everything. A longer gap means that it was held up.
    LATE_NS = 1500000000
    # States of a socket that its process has closed: net/tcp_states.h.
    TCP_FIN_WAIT1 = 4
    TCP_FIN_WAIT2 = 5
    TCP_TIME_WAIT = 6
    TCP_LAST_ACK = 9
    TCP_CLOSING = 11
    IPPROTO_IGMP = 2
    # Not every kernel lists the sockets of these two protocols. It does list raw sockets, of a user-space stack.
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
    """Return the index in LiveLookup.diag, or -1 for a protocol that only /proc/net lists."""
    if tuple.proto == IPPROTO_TCP:
        return 0
    return 1 if tuple.proto == IPPROTO_UDP else 2 if tuple.proto == IPPROTO_UDPLITE else -1


cdef void copy_socket(const socket_info_t *sock, owner_t *out) noexcept nogil:
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


cdef bint was_exclusive(const exclusive_t *exclusive, int index, const tuple_t *end, uint64_t inode,
                    int64_t received_at) noexcept nogil:
    # A socket that had its port to itself after all flows of the batch were received also had it when they began.
    return (exclusive.inode == inode and exclusive.index == index and received_at and exclusive.at >= received_at
            and exclusive.end.sport == end.sport and exclusive.end.family == end.family
            and memcmp(exclusive.end.src, end.src, 16) == 0)


cdef int holder_find(const holders_t *holders, const holder_t *wanted) noexcept nogil:
    cdef int i
    for i in range(holders.count):
        if holders.at[i].pid == wanted.pid:
            return i
    return -1


@cython.final
@cython.auto_pickle(False)
cdef class LiveLookup:
    """A look-up of the owner of a tuple in a given network namespace.

    Args:
        mode: "proc" to use only the tables in /proc/net; "diag" to require sock_diag for TCP and UDP; anything else to
            use sock_diag for the protocols for which it works.
        proc, budget, burst, spawn_helper: See Resolver.

    Raises:
        OSError: `mode` is "diag" and sock_diag does not work, or /proc cannot be opened.
    """

    def __init__(self, str mode not None, proc, double budget, spawn_helper=None, double burst=BURST):
        self.reader = ProcessReader(proc)
        # Fork the helper process first, so that it inherits nothing of what follows.
        self.holder_search = HolderSearch(proc, budget, self.reader.cgroups, spawn_helper, burst)
        if mode != "proc":
            self._probe(mode == "diag")
        self.namespaces = NamespaceIndex(proc=proc, diag=self.diag[0] or self.diag[1] or self.diag[2],
                                        spawn_helper=spawn_helper)
        self.processes = ProcessCache(self.reader)

    def close(self):
        """Close descriptors. No look-up may be running."""
        if self.reader is not None:
            self.reader.close()
        if self.holder_search is not None:
            self.holder_search.close()

    def _probe(self, required):
        # Without inet_diag or udp_diag the kernel answers every request as if no such socket existed.
        cdef int i = 0
        for proto in (IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE):
            try:
                check_answers(proto)
                self.diag[i] = True
            except OSError:
                if required and proto != IPPROTO_UDPLITE:
                    raise
            i += 1

    cdef void begin(self, const batch_times_t *times) noexcept nogil:
        self.times = times[0]
        self.late = times.drained_at and times.received_at - times.drained_at > LATE_NS

    cdef int _socket(self, int index, const tuple_t *end, bint listener, int64_t when,
                     socket_info_t *out) noexcept nogil:
        cdef tuple_t any_peer
        cdef int kind = diag_kind(end)
        if kind >= 0 and self.diag[kind]:
            return self.namespaces.lookup_at(index, end, listener, out)
        if not listener:
            return self.namespaces.tables_lookup(index, end, when, out)
        # No connection has remote port 0, so only the listener can match.
        any_peer = end[0]
        any_peer.dport = 0
        return self.namespaces.tables_lookup(index, &any_peer, when, out)

    cdef int _candidates(self, int index, const tuple_t *end, bint originator, socket_info_t *own, diag_match_t *out,
                         int room) noexcept nogil:
        """Write the sockets that match as well as `own`, and `own` itself, to `out`.

        Return how many there are, 0 if there is no other, or -errno. See candidates.pyx for which sockets these are.
        """
        cdef int kind = diag_kind(end)
        cdef exclusive_t *exclusive = &self.exclusives[(end.sport ^ end.sport >> 6) & (EXCLUSIVES - 1)]
        cdef bint own_found = False
        cdef int count, fits
        cdef int64_t now
        if own.kind == SOCK_EXACT or own.kind == SOCK_WILDCARD and kind < 0:
            return room + 1 if own.ambiguous else 0
        if self.port_is_exclusive or was_exclusive(exclusive, index, end, own.inode, self.times.received_at):
            return 0
        now = monotonic_ns()
        count = (self.namespaces.survey_at(index, end, out, room) if kind >= 0 and self.diag[kind]
                 else self.namespaces.tables_survey(index, end, self.times.received_at, out, room))
        if count < 0 or count > room:
            return count
        fits = candidates_keep(out, count, own, end, originator, &own_found)
        if not own_found or fits != 1:
            return fits
        if count == 1:
            exclusive.inode, exclusive.index, exclusive.at, exclusive.end = own.inode, index, now, end[0]
        return 0

    cdef int _holders(self, const socket_info_t *sock, holders_t *out) noexcept nogil:
        """Write the processes that hold a socket to `out`. Return REASON_NONE, or why there are none."""
        cdef int found = self.holder_search.holders(sock, out)
        if found < 0:
            return reason_of(found)
        return REASON_NONE if found else REASON_EXITED

    cdef int _set_owners(self, const holders_t *holders, uint64_t inode, uint64_t search_start, bint check_start,
                         owner_t *out) noexcept nogil:
        """Make the holders the owners, after checking that they are still the same processes.

        inode: inode of the socket that they hold, 0 if they hold several. search_start: clock ticks at which the search
        began.
        """
        cdef process_t *process
        cdef bint started_later = False
        cdef int i
        for i in range(holders.count):
            process = self.processes.get(holders.at[i].pid)
            if process == NULL:
                continue
            # A process that started since the search may be a different one with the same pid.
            if process.start >= search_start and inode and not self.holder_search.holds(&holders.at[i], inode):
                process_drop(process)
                continue
            # A process that started after the flow did not begin it: it bound the port again.
            if check_start and self.times.received_at and process.start > self.times.received_ticks:
                started_later = True
                process_drop(process)
                continue
            if out.process == NULL:
                out.process = process
                self.last_holder = holders.at[i]
                continue
            if out.others == NULL:
                out.others = others_new(HOLDERS_MAX)
            if out.others == NULL or out.others.count == HOLDERS_MAX:
                process_drop(process)
                break
            out.others.at[out.others.count] = process
            out.others.count += 1
        if out.process != NULL:
            return REASON_NONE
        return REASON_CLOSED if started_later else REASON_EXITED

    cdef int _common_holders(self, const diag_match_t *candidates, int count, bint check_start,
                             owner_t *out) noexcept nogil:
        """Set as owners the processes that hold all of the candidates, followed by those that hold some.

        Return REASON_AMBIGUOUS if no process holds all of them.
        """
        cdef holders_t held, common, some
        cdef uint64_t search_start = clock_ticks(boottime_ns())
        cdef int i, j, kept, reason
        memset(&common, 0, sizeof(common))
        memset(&some, 0, sizeof(some))
        for i in range(count):
            reason = self._holders(&candidates[i].sock, &held)
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
        out.inode = out.cookie = 0     # it is not known which of the sockets it was
        for i in range(1, count):
            if not candidates[i].sock.has & SOCK_UID or candidates[i].sock.uid != candidates[0].sock.uid:
                out.has &= ~OWNER_UID
        return self._set_owners(&common, 0, search_start, check_start, out)

    cdef int owner(self, int index, const tuple_t *end, bint originator, owner_t *out) noexcept nogil:
        cdef socket_info_t sock
        cdef int found
        # The kernel itself answers echo requests and the like, whatever raw sockets receive them as well.
        if is_icmp(end) and not originator:
            out.match = MATCH_NONE
            return REASON_KERNEL
        memset(&sock, 0, sizeof(sock))
        found = self._socket(index, end, False, self.times.received_at, &sock)
        if found < 0:
            return reason_of(found)
        if found == 0:
            if end.proto == IPPROTO_SCTP or end.proto == IPPROTO_DCCP:
                return REASON_UNSUPPORTED
            return REASON_KERNEL if end.proto == IPPROTO_IGMP else REASON_CLOSED
        # A listening socket cannot begin a connection: the socket that did is gone.
        if sock.kind == SOCK_LISTENER and originator:
            return REASON_CLOSED
        if sock.inode == 0 and end.proto == IPPROTO_TCP and not originator and not is_orphan(&sock):
            # The connection waits to be accepted, so it still belongs to the listener.
            if self._socket(index, end, True, self.times.received_at, &sock) != 1 or sock.inode == 0:
                return REASON_CLOSED
        if sock.inode == 0:
            copy_socket(&sock, out)
            out.match = match_of(&sock)
            return REASON_ORPHANED
        return self._of_socket(index, end, originator, &sock, out)

    cdef int listener(self, int index, const tuple_t *end, owner_t *out) noexcept nogil:
        cdef socket_info_t sock
        cdef int found
        memset(&sock, 0, sizeof(sock))
        found = self._socket(index, end, True, self.times.received_at, &sock)
        if found < 0:
            return reason_of(found)
        if found == 0 or sock.inode == 0 or sock.kind != SOCK_LISTENER:
            return REASON_CLOSED
        return self._of_socket(index, end, False, &sock, out)

    cdef bint holds(self, const holder_t *holder, uint64_t inode) noexcept nogil:
        return holder.pid > 0 and inode and self.holder_search.holds(holder, inode)

    cdef bint is_exclusive(self, int index, const tuple_t *end, uint64_t inode) noexcept nogil:
        cdef const exclusive_t *exclusive = &self.exclusives[(end.sport ^ end.sport >> 6) & (EXCLUSIVES - 1)]
        return self.port_is_exclusive or was_exclusive(exclusive, index, end, inode, self.times.received_at)

    cdef int _of_socket(self, int index, const tuple_t *end, bint originator, socket_info_t *sock,
                        owner_t *out) noexcept nogil:
        """Find the processes that hold `sock`. Return REASON_NONE, or why they are not known."""
        cdef diag_match_t candidates[CANDIDATES]
        cdef holders_t holders
        cdef socket_info_t again
        cdef bint stream = end.proto == IPPROTO_TCP
        cdef uint64_t search_start
        cdef int found, reason
        found = self._candidates(index, end, originator, sock, candidates, CANDIDATES)
        if found < 0:
            return reason_of(found)
        out.match = match_of(sock)
        if found > CANDIDATES or found == 1:
            return REASON_AMBIGUOUS
        # The port may have changed hands since the flow began.
        if self.late and originator and sock.kind == SOCK_WILDCARD:
            return REASON_AMBIGUOUS
        # The kernel itself sends IGMP membership reports, so a raw IGMP socket does not prove who sent this.
        if end.proto == IPPROTO_IGMP:
            return REASON_AMBIGUOUS
        copy_socket(sock, out)
        if found:
            if not self._same_cgroup(candidates, found):
                out.cgroup_id = 0
            reason = self._common_holders(candidates, found, originator and not stream, out)
            if reason != REASON_NONE:
                out.inode = out.cookie = 0
            return reason
        search_start = clock_ticks(boottime_ns())
        reason = self._holders(sock, &holders)
        if reason == REASON_NONE:
            return self._set_owners(&holders, sock.inode, search_start, originator and not stream, out)
        if reason != REASON_EXITED and reason != REASON_PERMISSION:
            return reason
        # Check with present data, not with a table read before, whether the socket still exists.
        found = self._socket(index, end, sock.kind == SOCK_LISTENER, monotonic_ns(), &again)
        if found != 1 or again.inode != sock.inode:
            return REASON_EXITED
        # It exists but no process holds it: a kernel socket, or one in transit over a UNIX socket.
        if reason == REASON_PERMISSION:
            return reason
        return REASON_EXITED if holders.exiting else REASON_KERNEL

    cdef bint _same_cgroup(self, const diag_match_t *candidates, int count) noexcept nogil:
        cdef int i
        for i in range(1, count):
            if candidates[i].sock.cgroup_id != candidates[0].sock.cgroup_id:
                return False
        return True
