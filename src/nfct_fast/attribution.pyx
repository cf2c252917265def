"""The ladder from a tuple to its owner: socket, then process, and at every rung the reason why it may end there.

A tuple is looked up as its socket sees it. The originator's socket has the original tuple, before SNAT; the
responder's has the reply tuple, after DNAT. A wrong name is worse than none: what several could have sent is nobody's.
"""
cimport cython
from libc.errno cimport EACCES, EAGAIN, EPERM, EPROTONOSUPPORT
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport malloc
from libc.string cimport memcmp, memset
from posix.time cimport clock_gettime, timespec
from posix.unistd cimport _SC_CLK_TCK, sysconf

from netinet_in cimport IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE
from procfs_calls cimport CLOCK_BOOTTIME

from .addresses cimport addresses_t
from .diagmsg cimport DIAG_WILD, diag_match_t
from .direction cimport DIRECTION_FORWARD, DIRECTION_IN, DIRECTION_LOCAL, DIRECTION_OUT, direction_of, is_group
from .flow cimport EVENT_NEW, FLOW_REPLY, tuple_invert
from .holders cimport HOLDERS_MAX, holder_t, holders_t
from .notes cimport Notes
from .owner cimport (
    MATCH_LISTENER, MATCH_NONE, MATCH_PROTOCOL, MATCH_SOCKET, MATCH_WILDCARD, OWNER_UID, REASON_AMBIGUOUS,
    REASON_BUDGET, REASON_CLOSED, REASON_ERROR, REASON_EXITED, REASON_FORWARDED, REASON_KERNEL, REASON_NETNS,
    REASON_NONE, REASON_OFF, REASON_ORPHANED, REASON_PERMISSION, REASON_REMOTE, REASON_UNSUPPORTED, owner_drop,
)
from .process cimport process_drop, process_of_cgroup, process_t, process_take
from .procfd cimport scanner_holds
from .procfs cimport procfs_monotonic_ns
from .record cimport flow_object, record_drop, record_t
from .sock cimport SOCK_CGROUP, SOCK_COOKIE, SOCK_EXACT, SOCK_LISTENER, SOCK_PROTOCOL, SOCK_UID, SOCK_WILDCARD
from .sockdiag cimport set_tuple

from .sockdiag import SockDiag

NOTED_FLOWS = 300_000
ATTRIBUTIONS = ("auto", "bpf", "diag", "proc", "off")

cdef enum:
    CANDIDATES = 64           # processes of the socket's cgroup that are looked into before others
    SHARERS = 16              # sockets of one port that are looked at; more are ambiguous
    ALONE = 64
    PATHS = 256
    NOWHERE = 255
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


cdef bint is_orphan(const sock_t *sock) noexcept nogil:
    return sock.state in (TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_TIME_WAIT, TCP_LAST_ACK, TCP_CLOSING)


cdef uint8_t match_of(const sock_t *sock) noexcept nogil:
    if sock.kind == SOCK_LISTENER:
        return MATCH_LISTENER
    if sock.kind == SOCK_PROTOCOL:
        return MATCH_PROTOCOL
    return MATCH_SOCKET if sock.kind == SOCK_EXACT else MATCH_WILDCARD


cdef int diag_kind(const tuple_t *tuple) noexcept nogil:
    """The place in Attribution.diag; -1 for protocols only the tables know."""
    if tuple.proto == IPPROTO_TCP:
        return 0
    return 1 if tuple.proto == IPPROTO_UDP else 2 if tuple.proto == IPPROTO_UDPLITE else -1


cdef bint is_rival(const diag_match_t *one, const diag_match_t *own, const tuple_t *end, bint originator) noexcept nogil:
    # Any socket of the port may have sent. What comes in goes to the best fit: sockets of one device before others,
    # then by family and address; but to all members of a group.
    if originator or own.sock.kind == SOCK_PROTOCOL or one.ifindex or is_group(&end.src[0], end.family):
        return True
    return one.remote == DIAG_WILD and one.local == own.local and one.family == own.family


cdef void note_socket(const sock_t *sock, owner_t *out) noexcept nogil:
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


cdef bint same_socket(const sock_t *a, const sock_t *b) noexcept nogil:
    if a.has & b.has & SOCK_COOKIE:
        return a.cookie == b.cookie
    return a.inode == b.inode


cdef bint is_among(const sock_t *sock, const diag_match_t *others, int count) noexcept nogil:
    cdef int i
    for i in range(count):
        if sock.inode and same_socket(&others[i].sock, sock):
            return True
    return False


cdef int holder_find(const holders_t *holders, const holder_t *wanted) noexcept nogil:
    cdef int i
    for i in range(holders.count):
        if holders.at[i].pid == wanted.pid:
            return i
    return -1


cdef uint64_t boot_ticks(int64_t past_ns) noexcept nogil:
    """The time `past_ns` ago in the clock ticks of process_t.start."""
    cdef timespec now
    cdef int64_t time
    clock_gettime(CLOCK_BOOTTIME, &now)
    time = <int64_t>now.tv_sec * 1_000_000_000 + now.tv_nsec - past_ns
    return <uint64_t>(time // (1_000_000_000 // sysconf(_SC_CLK_TCK)))


@cython.final
@cython.auto_pickle(False)
cdef class Attribution:
    """Finds the owners of flows.

    mode: "bpf" has the kernel note who uses a socket, and does as "diag" for what was there before; "diag" asks
    sock_diag for the socket of each tuple, and the tables in /proc/net for protocols it cannot answer for; "proc" has
    only the tables; "auto" is the best there is, and `missing` says why that is not "bpf"; "off" looks for nothing.
    OSError if what the mode needs is not to be had. proc: where /proc is mounted. budget: seconds that may be spent
    each second on looking through the open files of processes nobody suspects, as much may be saved up; inf for no
    bound. flows: how many the kernel's notes reach back. settled: see ProcEvents.start. Used by one thread at a time.

    The network namespace of the thread that makes it is home number 0: flows heard in it carry 0 as flow.netns.
    """

    def __init__(self, str mode not None="auto", proc="/proc", double budget=0.2, int flows=NOTED_FLOWS, settled=None):
        if mode not in ATTRIBUTIONS:
            raise ValueError(f"attribution {mode!r}: there are {', '.join(ATTRIBUTIONS)}")
        self.mode = mode
        self.off = mode == "off"
        if self.off:
            return
        if mode != "proc":
            self._probe()
        self.directory = Directory(proc=proc, diag=self.diag[0] or self.diag[1] or self.diag[2])
        self.directory.eager = True
        self.directory.wanted = True      # the containers there are have flows from the start
        self.directory.refresh()
        self.scanner = FdScanner(proc, budget=budget)
        self.processes = ProcessCache(proc, limit=65536, bytes_limit=64 << 20, linger=60)
        self.cgroups = CgroupFs()
        if mode in ("auto", "bpf"):
            try:
                self.notes = Notes(self.processes, self.cgroups, flows, settled)
            except OSError as error:
                if mode == "bpf":
                    raise
                self.missing = error.strerror or str(error)

    def __dealloc__(self):
        cdef int i
        for i in range(PATHS):
            process_drop(self.paths[i].process)

    def _probe(self):
        # A kernel without inet_diag (or udp_diag) answers every question as if there were no such socket.
        cdef int i = 0
        for proto in (IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE):
            try:
                with SockDiag() as diag:
                    diag.candidates(proto, "127.0.0.1", 1, "127.0.0.1", 1)
                self.diag[i] = True
            except OSError:
                if self.mode == "diag" and proto != IPPROTO_UDPLITE:
                    raise
            i += 1

    def add_home(self, netns=None) -> int:
        """Take a Netns (None: the thread's own namespace) among those listened in; the flow.netns of its flows.

        Enters it for a moment. A namespace that is among them already keeps its number. OSError.
        """
        if not self.off:
            return self.directory.add_home(netns)
        self.unasked += 1
        return self.unasked - 1

    def close(self):
        """Free sockets and caches; closing twice is harmless."""
        self.off = True
        if self.notes is not None:
            self.notes.close()
        if self.directory is not None:
            self.directory.close()

    def refresh(self):
        """Look for namespaces that came and went; cheap when called often, and to be called about once a second."""
        if not self.off:
            self.directory.refresh()

    def find(self, proto, src, sport, dst, dport, *, reply=None, netns=0, icmp_id=0, double age=0.0):
        """A `Flow` as it would be told of one heard `age` seconds ago: to see what is found, and how.

        proto: IPPROTO_* number; addresses as ipaddress takes them; reply: the same four of the reply direction where
        NAT applies; netns: the number of the home it was heard in. Blocks while it looks.
        """
        cdef record_t record
        self._fill(&record, proto, src, sport, dst, dport, reply, netns, icmp_id)
        with nogil:
            self.begin(procfs_monotonic_ns() - <int64_t>(age * 1e9), 0)
            self.resolve(&record)
        return flow_object(&record)

    def time(self, proto, src, sport, dst, dport, *, int count=1, reply=None, netns=0, icmp_id=0):
        """Nanoseconds `find` takes without Python's share, on average of `count` times, and the last `Flow`."""
        cdef record_t record
        cdef int64_t took = 0
        cdef int i
        memset(&record, 0, sizeof(record))
        with nogil:
            for i in range(count):
                record_drop(&record)
                with gil:
                    self._fill(&record, proto, src, sport, dst, dport, reply, netns, icmp_id)
                took -= procfs_monotonic_ns()
                self.begin(procfs_monotonic_ns(), 0)
                self.resolve(&record)
                took += procfs_monotonic_ns()
        return took / count, flow_object(&record)

    cdef int _fill(self, record_t *record, proto, src, sport, dst, dport, reply, netns, icmp_id) except -1:
        memset(record, 0, sizeof(record[0]))
        set_tuple(&record.flow.orig, src, sport, dst, dport, proto)
        record.flow.orig.icmp_id = icmp_id
        record.flow.type = EVENT_NEW
        record.flow.netns = netns
        if reply is not None:
            set_tuple(&record.flow.reply, reply[0], reply[1], reply[2], reply[3], proto)
            record.flow.reply.icmp_id = icmp_id
            record.flow.has |= FLOW_REPLY
        return 0

    cdef void begin(self, int64_t heard, int64_t emptied) noexcept nogil:
        self.heard = heard
        self.late = emptied and heard - emptied > LATE_NS
        if self.off:
            return
        if self.notes is not None:
            self.notes.begin(heard, emptied)
        self.heard_ticks = boot_ticks(procfs_monotonic_ns() - heard)
        self.directory.refresh_home()     # on failure what was known stays known, and the next batch asks again

    cdef int _socket(self, int index, const tuple_t *end, bint listener, int64_t when, sock_t *out) noexcept nogil:
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

    cdef int _sharers(self, int index, const tuple_t *end, bint originator, sock_t *own, diag_match_t *out,
                      int room) noexcept nogil:
        """The sockets that are as good an answer as `own`, with it, into out: how many; 0 where it is alone; -errno.

        An unconnected UDP socket shares its port with all others that are bound to it (SO_REUSEADDR, SO_REUSEPORT), as
        each may send to anybody, even if it is connected elsewhere. What comes in goes to the one that fits best.
        """
        cdef int kind = diag_kind(end)
        cdef alone_t *alone = &self.alone[(end.sport ^ end.sport >> 6) & (ALONE - 1)]
        cdef diag_match_t mine
        cdef bint there = False
        cdef int i, count, fits = 0
        cdef int64_t now
        if own.kind == SOCK_EXACT or own.kind == SOCK_WILDCARD and kind < 0:
            return room + 1 if own.ambiguous else 0
        # What had its port to itself after all flows of the batch were heard had it when they began.
        if alone.inode == own.inode and alone.index == index and self.heard and alone.at >= self.heard and (
                alone.end.sport == end.sport and alone.end.family == end.family and memcmp(alone.end.src, end.src, 16) == 0):
            return 0
        now = procfs_monotonic_ns()
        count = (self.directory.survey_at(index, end, out, room) if kind >= 0 and self.diag[kind]
                 else self.directory.tables_survey(index, end, self.heard, out, room))
        if count < 0 or count > room:
            return count
        for i in range(count):
            if same_socket(&out[i].sock, own):
                mine = out[i]
                mine.sock.kind = own.kind
                there = True
        for i in range(count):
            if there and not same_socket(&out[i].sock, own) and not is_rival(&out[i], &mine, end, originator):
                continue
            # A table that changes while it is read may show a row twice.
            if is_among(&out[i].sock, out, fits):
                continue
            out[fits] = out[i]
            fits += 1
        if not there or fits != 1:
            return fits
        if count == 1:
            alone.inode, alone.index, alone.at, alone.end = own.inode, index, now, end[0]
        return 0

    cdef int _held(self, const sock_t *sock, holders_t *out) noexcept nogil:
        """The processes that hold a socket into out: REASON_NONE, or why there are none."""
        cdef int32_t candidates[CANDIDATES]
        cdef int count = 0
        cdef int found
        if sock.has & SOCK_CGROUP:
            count = max(0, self.cgroups.pids(sock.cgroup_id, candidates, CANDIDATES))
        found = self.scanner.find(sock.inode, sock.uid, sock.has & SOCK_UID, candidates, count, out)
        if found < 0:
            return reason_of(found)
        return REASON_NONE if found else REASON_EXITED

    cdef int _adopt(self, const holders_t *holders, uint64_t inode, uint64_t looked, bint timed, owner_t *out) noexcept nogil:
        """The holders as owners, if they still are who they were. inode 0: of several sockets."""
        cdef process_t *process
        cdef bint late = False
        cdef int i
        for i in range(holders.count):
            process = self.processes.get(holders.at[i].pid, 0)
            if process == NULL:
                continue
            # Started since, it may be another process under the same pid.
            if process.start >= looked and inode and not scanner_holds(self.scanner, &holders.at[i], inode):
                process_drop(process)
                continue
            # A process younger than the flow did not begin it: the port was taken again.
            if timed and self.heard and process.start > self.heard_ticks:
                late = True
                process_drop(process)
                continue
            if out.process == NULL:
                out.process = process
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

    cdef int _shared(self, const diag_match_t *sharers, int count, bint originator, bint stream, owner_t *out) noexcept nogil:
        """Of several sockets that may be meant: the processes that hold them all, then those that hold some."""
        cdef holders_t held, common, some
        cdef uint64_t looked = boot_ticks(0)
        cdef int i, j, kept, reason
        memset(&common, 0, sizeof(common))
        memset(&some, 0, sizeof(some))
        for i in range(count):
            reason = self._held(&sharers[i].sock, &held)
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
            if not sharers[i].sock.has & SOCK_UID or sharers[i].sock.uid != sharers[0].sock.uid:
                out.has &= ~OWNER_UID
        return self._adopt(&common, 0, looked, originator and not stream, out)

    cdef int _at(self, int index, const tuple_t *end, bint originator, owner_t *out) noexcept nogil:
        """The owner of the socket in member `index` that sees `end` as its tuple. out.match is 0 if there is none."""
        cdef uint64_t netns = self.directory.cookie(index)
        cdef owner_t noted
        cdef int reason, named = 0
        if self.notes is None or netns == 0:
            return self._asked(index, end, originator, out)
        # Of a connection that was accepted /proc tells who accepted it, the kernel's note only who listened.
        if originator or end.proto != IPPROTO_TCP:
            named = self.notes.name(end, netns, originator, out)
        if named > 0:
            return REASON_NONE
        # The port was handed on: who has it now need not be who had it then.
        if named < 0 and originator:
            out.match = MATCH_SOCKET
            return REASON_AMBIGUOUS
        reason = self._asked(index, end, originator, out)
        # The note is taken when the first packet leaves, which of connected UDP may be just after its event.
        if reason != REASON_NONE and reason != REASON_KERNEL and (
                self.notes.name(end, netns, originator, &noted) > 0
                or out.cookie and self.notes.name_socket(out.cookie, &noted)):
            owner_drop(out)
            out[0] = noted
            return REASON_NONE
        return reason

    cdef int _asked(self, int index, const tuple_t *end, bint originator, owner_t *out) noexcept nogil:
        """The same by sock_diag or the tables, and /proc."""
        cdef diag_match_t sharers[SHARERS]
        cdef holders_t holders
        cdef sock_t sock, again
        cdef bint stream = end.proto == IPPROTO_TCP
        cdef uint64_t looked
        cdef int found, reason
        # Echo requests and their like are answered by the kernel, whoever else listens with a raw socket.
        if is_icmp(end) and not originator:
            out.match = MATCH_NONE
            return REASON_KERNEL
        memset(&sock, 0, sizeof(sock))
        found = self._socket(index, end, False, self.heard, &sock)
        if found < 0:
            return reason_of(found)
        if found == 0:
            if end.proto == IPPROTO_SCTP or end.proto == IPPROTO_DCCP:
                return REASON_UNSUPPORTED
            return REASON_KERNEL if end.proto == IPPROTO_IGMP else REASON_CLOSED
        # Nobody begins a connection with a listening socket: the one that did is gone.
        if sock.kind == SOCK_LISTENER and originator:
            return REASON_CLOSED
        if sock.inode == 0 and stream and not originator and not is_orphan(&sock):
            # Still in the accept queue, or before it: nobody's yet but the listener's.
            if self._socket(index, end, True, self.heard, &sock) != 1 or sock.inode == 0:
                return REASON_CLOSED
        if sock.inode == 0:
            note_socket(&sock, out)
            out.match = match_of(&sock)
            return REASON_ORPHANED
        found = self._sharers(index, end, originator, &sock, sharers, SHARERS)
        if found < 0:
            return reason_of(found)
        out.match = match_of(&sock)
        if found > SHARERS or found == 1:
            return REASON_AMBIGUOUS
        # Who has the port now need not be who had it then.
        if self.late and originator and sock.kind == SOCK_WILDCARD:
            return REASON_AMBIGUOUS
        # The kernel itself reports memberships, whoever else speaks IGMP.
        if end.proto == IPPROTO_IGMP:
            return REASON_AMBIGUOUS
        note_socket(&sock, out)
        if found:
            if not self._same_cgroup(sharers, found):
                out.cgroup_id = 0
            reason = self._shared(sharers, found, originator, stream, out)
            if reason != REASON_NONE:
                out.inode = out.cookie = 0
            return reason
        looked = boot_ticks(0)
        reason = self._held(&sock, &holders)
        if reason == REASON_NONE:
            return self._adopt(&holders, sock.inode, looked, originator and not stream, out)
        if reason != REASON_EXITED and reason != REASON_PERMISSION:
            return reason
        # Not in a table that was read before: there it still is.
        found = self._socket(index, end, sock.kind == SOCK_LISTENER, procfs_monotonic_ns(), &again)
        if found != 1 or again.inode != sock.inode:
            return REASON_EXITED
        # Nobody has it, and yet it is there: a kernel socket, or one on its way through a UNIX socket.
        return REASON_KERNEL if reason == REASON_EXITED else REASON_PERMISSION

    cdef bint _same_cgroup(self, const diag_match_t *sharers, int count) noexcept nogil:
        cdef int i
        for i in range(1, count):
            if sharers[i].sock.cgroup_id != sharers[0].sock.cgroup_id:
                return False
        return True

    cdef void _note_cgroup(self, owner_t *out) noexcept nogil:
        """Where only the cgroup is left of the owner: its path. An id is never given twice, so that none grows old."""
        cdef char path[4096]
        cdef cgroup_entry_t *entry = &self.paths[out.cgroup_id & (PATHS - 1)]
        cdef ssize_t size
        if entry.id != out.cgroup_id:
            size = self.cgroups.path(out.cgroup_id, path, sizeof(path))
            if size < 0:
                return
            process_drop(entry.process)
            entry.process = process_of_cgroup(path, size)
            entry.id = out.cgroup_id if entry.process != NULL else 0
        out.cgroup = process_take(entry.process)

    cdef int _end(self, int home, const tuple_t *end, bint originator, bint search, bint local, owner_t *out) noexcept nogil:
        """One end of a flow, the rungs in order: which namespace, which socket, which process. local: surely home's."""
        cdef owner_t tried
        cdef int reason = NOWHERE
        cdef int found = 0, one
        cdef int index = home if local else self.directory.place(home, end, -1)
        if index < 0 and self.directory.look_again(end, search):
            index = self.directory.place(home, end, -1)
        while index >= 0:
            memset(&tried, 0, sizeof(tried))
            one = self._at(index, end, originator, &tried)
            if tried.match != MATCH_NONE:
                found += 1
                owner_drop(out)
                out[0] = tried
                reason = one
            elif found == 0:
                reason = one
            index = -1 if local else self.directory.place(home, end, index)
        if found > 1:
            owner_drop(out)
            memset(out, 0, sizeof(out[0]))
            reason = REASON_AMBIGUOUS
        if out.process == NULL and out.cgroup_id:
            self._note_cgroup(out)
        out.reason = reason if reason != NOWHERE else REASON_NONE
        return reason

    cdef void foresee(self, const record_t *record) noexcept nogil:
        """A record that will be resolved soon."""
        if self.notes is not None and not self.off:
            self.notes.owners.prefetch(&record.flow.orig)

    cdef void resolve(self, record_t *record) noexcept nogil:
        cdef const addresses_t *addresses
        cdef const tuple_t *orig = &record.flow.orig
        cdef tuple_t reply
        cdef int home = record.flow.netns
        cdef bint here
        record.owner.reason = record.peer.reason = REASON_OFF
        if self.off:
            return
        addresses = self.directory.home(home)
        if addresses == NULL:
            record.owner.reason = record.peer.reason = REASON_ERROR
            return
        if record.flow.has & FLOW_REPLY:
            reply = record.flow.reply
        else:
            tuple_invert(orig, &reply)
        record.direction = direction_of(orig, &reply, addresses)
        here = record.direction == DIRECTION_OUT or record.direction == DIRECTION_LOCAL
        here = self._end(home, orig, True, record.direction == DIRECTION_FORWARD, here, &record.owner) != NOWHERE
        # Somebody else may have an address that a container has too: then that is none of its sockets.
        if here and record.direction == DIRECTION_IN and record.owner.match == MATCH_NONE:
            here = False
        if not here:
            owner_drop(&record.owner)
            memset(&record.owner, 0, sizeof(record.owner))
            if self._end(home, &reply, False, record.direction == DIRECTION_FORWARD, False, &record.owner) == NOWHERE:
                record.owner.reason = REASON_NETNS if self.directory.skipped else REASON_FORWARDED
            record.peer.reason = REASON_REMOTE
            return
        here = record.direction == DIRECTION_LOCAL or record.direction == DIRECTION_IN
        self._end(home, &reply, False, False, here, &record.peer)
        if not here and record.peer.match == MATCH_NONE and record.peer.reason != REASON_KERNEL:
            owner_drop(&record.peer)
            memset(&record.peer, 0, sizeof(record.peer))
            record.peer.reason = REASON_REMOTE
