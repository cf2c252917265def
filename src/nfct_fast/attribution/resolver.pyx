"""The ladder from a tuple to its owner: socket, then process, and at every rung the reason why it may end there.

A tuple is looked up as its socket sees it. The originator's socket has the original tuple, before SNAT; the
responder's has the reply tuple, after DNAT.
"""
cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from netinet_in cimport IPPROTO_TCP, IPPROTO_UDP

from nfct_fast.attribution.cgroup_paths cimport CgroupPaths
from nfct_fast.namespaces.direction cimport (
    DIRECTION_FORWARD, DIRECTION_IN, DIRECTION_LOCAL, DIRECTION_OUT, direction_from,
)
from nfct_fast.events.flow cimport EVENT_NEW, FLOW_REPLY, FLOW_START, FLOW_STATE, flow_t, tuple_invert
from nfct_fast.attribution.bpf_lookup cimport NEVER
from nfct_fast.records.owner cimport (
    MATCH_LISTENER, MATCH_NONE, MATCH_SOCKET, MATCH_WILDCARD, REASON_AMBIGUOUS, REASON_BUDGET, REASON_CLOSED,
    REASON_ERROR, REASON_FORWARDED, REASON_KERNEL, REASON_NETNS, REASON_NONE, REASON_OFF, REASON_REMOTE, owner_drop,
)
from nfct_fast.processes.process cimport process_t, process_take
from nfct_fast.kernel.clock cimport monotonic_ns
from nfct_fast.attribution.responder_cache cimport RESPONDER_KNOWN, RESPONDER_UNSURE, ResponderCache, responder_t
from nfct_fast.attribution.closed_ports cimport ClosedPorts

NOTED_FLOWS = 300_000
NOTED_FIRST = 65_536         # 11 MiB less at 1,000 flows a second; more from some 8,000 notes in a second on
ATTRIBUTIONS = ("auto", "bpf", "diag", "proc", "off")

cdef enum:
    NOWHERE = 255
    TCP_SYN_SENT = 1         # flow_t.state, as nf_conntrack_tcp.h has it


cdef inline void reply_of(const flow_t *flow, tuple_t *out) noexcept nogil:
    if flow.has & FLOW_REPLY:
        out[0] = flow.reply
    else:
        tuple_invert(&flow.orig, out)


@cython.final
@cython.auto_pickle(False)
cdef class Resolver:
    """Finds the owners of flows.

    mode: "bpf" has the kernel note who uses a socket, and does as "diag" for what was there before; "diag" asks
    sock_diag for the socket of each tuple, and the tables in /proc/net for protocols it cannot answer for; "proc" has
    only the tables; "auto" is the best there is, and `missing` says why that is not "bpf"; "off" looks for nothing.
    OSError if what the mode needs is not to be had. proc: where /proc is mounted. budget: seconds that may be spent
    each second on looking through the open files of processes nobody suspects, 0.04 of them at once; inf for no
    bound. flows: how many the kernel's notes reach back, once there is need for more than first. settled: see Notes;
    spawn_helper: Rights.spawn_helper, where what takes rights is to be done by processes of its own. Used by one thread at a time.

    The network namespace of the thread that makes it is home number 0: flows heard in it carry 0 as flow.netns.
    """

    def __init__(self, str mode not None="auto", proc="/proc", double budget=0.2, int flows=NOTED_FLOWS,
                 first=NOTED_FIRST, settled=None, spawn_helper=None):
        if mode not in ATTRIBUTIONS:
            raise ValueError(f"attribution {mode!r}: there are {', '.join(ATTRIBUTIONS)}")
        self.mode = mode
        self.off = mode == "off"
        self.unasked = set()
        if self.off:
            return
        self.live_lookup = LiveLookup(mode, proc, budget, spawn_helper)
        self.directory = self.live_lookup.directory
        self.directory.discovery.look()       # the containers there are have flows from the start
        self.directory.refresh()
        self.paths = CgroupPaths(self.live_lookup.holder_search)
        if mode in ("auto", "bpf"):
            try:
                self.notes = BpfLookup(
                    self.live_lookup.reader, self.paths, flows, first, self.directory.opener, settled)
            except OSError as error:
                if mode == "bpf":
                    raise
                self.missing = error.strerror or str(error)
        if self.notes is not None:
            self.responder_cache = ResponderCache(self.notes)
            self.closed_ports = ClosedPorts(self.notes.owners, self.directory)
        self.directory.start(settled)
        if settled is not None:
            self.live_lookup.reader.lines.close()       # its helper has more rights than who needs one next

    def monitor(self, netns=None) -> int:
        """Take a Netns (None: the thread's own namespace) among those listened in; the flow.netns of its flows.

        Enters it for a moment. A namespace that is among them already keeps its number. OSError.
        """
        if not self.off:
            return self.directory.monitor(netns)
        number = next(number for number in range(len(self.unasked) + 1) if number not in self.unasked)
        self.unasked.add(number)
        return number

    def stop_monitoring(self, int number) -> None:
        """Nothing is listened in under that number any more: it may be given again. From any thread."""
        if not self.off:
            self.directory.stop_monitoring(number)
        self.unasked.discard(number)

    def close(self):
        """Free sockets and caches; closing twice is harmless."""
        self.off = True
        if self.notes is not None:
            self.notes.close()
        if self.directory is not None:
            self.directory.close()
        if self.live_lookup is not None:
            self.live_lookup.close()

    def abandon(self):
        """In a process that has it by fork: close the descriptors, and free nothing that a thread may have been amid."""
        if self.notes is not None:
            self.notes.abandon()
        if self.directory is not None:
            self.directory.abandon()
        if self.live_lookup is not None:
            self.live_lookup.close()

    @property
    def opener(self):
        """The Opener that it has sockets of other namespaces from; None while off."""
        return None if self.directory is None else self.directory.opener

    @property
    def programs_lost(self) -> int:
        """Events of programs for which the kernel had no room."""
        return 0 if self.notes is None else self.notes.lost

    def refresh(self):
        """Look for namespaces that came and went; cheap when called often, and to be called about once a second. OSError
        if owners cannot be looked for any more."""
        if not self.off:
            self.live_lookup.holder_search.check()
            self.directory.refresh()

    def fileno(self) -> int:
        """A descriptor that is readable when drain() is due although no flows come; -1: there is none."""
        return -1 if self.notes is None else self.notes.owners.fileno()

    cdef void drain(self) noexcept nogil:
        if not self.off and self.notes is not None:
            self.notes.drain()

    @property
    def foreign(self) -> int:
        """Datagrams that the kernel did not send, on the sockets that are asked for namespaces and sockets."""
        return self.directory.foreign if self.directory is not None else 0

    cdef void begin(self, int64_t received_at, int64_t drained_at) noexcept nogil:
        if self.off:
            return
        if self.notes is not None:
            self.notes.begin(received_at, drained_at)
        self.live_lookup.begin(received_at, drained_at)
        self.directory.refresh_monitored()

    cdef int _noted(self, const tuple_t *end, uint64_t netns, const owners_probe *probe, owner_t *out,
                    int64_t accepted=NEVER) noexcept nogil:
        """Notes.name(); of a flow that is not new with all who used it."""
        cdef int named = self.notes.name(end, netns, probe, out, accepted)
        if self.used and named > 0:
            self.notes.name_users(end, netns, self.began, out)
        return named

    cdef int _originator(self, int index, const tuple_t *end, owner_t *out) noexcept nogil:
        """Who sent from `end` in member `index`: a note of the sending, or the socket of exactly this tuple."""
        cdef uint64_t netns = self.directory.cookie(index)
        cdef owner_t noted
        cdef int reason, named
        if self.notes is None or netns == 0:
            return self.live_lookup.owner(index, end, True, out)
        named = self._noted(end, netns, &self.at[0], out)
        if named > 0:
            return REASON_NONE
        if named < 0:
            out.match = MATCH_SOCKET
            if named == -1 and self.used:
                self.notes.name_users(end, netns, self.began, out)
            return REASON_AMBIGUOUS if named == -1 else REASON_KERNEL
        reason = self.live_lookup.owner(index, end, True, out)
        # The note is taken when the first packet leaves, which of connected UDP may be just after its event.
        if self.notes.name(end, netns, &self.at[0], &noted) > 0:
            owner_drop(out)
            out[0] = noted
            return REASON_NONE
        # Whoever has the port has not therefore sent from it: who sent without being connected was noted, wherever the notes see
        # all, and a packet may bear any address (IP_PKTINFO, raw sockets).
        if out.match == MATCH_WILDCARD and self.notes.owners.whole:
            owner_drop(out)
            memset(out, 0, sizeof(out[0]))
            return REASON_AMBIGUOUS
        if reason != REASON_NONE and reason != REASON_KERNEL and out.cookie and self.notes.name_socket(out.cookie, &noted):
            owner_drop(out)
            out[0] = noted
            return REASON_NONE
        return reason

    cdef int _responder(self, int index, const tuple_t *end, bint fresh, owner_t *out) noexcept nogil:
        """Who serves `end` in member `index`. fresh: it is the first packet of a connection, or of no connection."""
        cdef uint64_t netns = self.directory.cookie(index)
        cdef uint32_t changes
        cdef int64_t began, accepted
        cdef owner_t noted
        cdef responder_t *known = NULL
        cdef int how, reason
        if self.notes is None or netns == 0 or end.proto != IPPROTO_TCP and end.proto != IPPROTO_UDP:
            return self.live_lookup.owner(index, end, False, out)
        # Of a new one it is not known closely enough when it began: the same addresses may have had another just before.
        accepted = self.notes.boot_time(self.began) if self.used and self.began else NEVER
        if self._noted(end, netns, &self.at[1], out, accepted) > 0:
            return REASON_NONE      # a socket that was accepted from this peer, is connected to it, or has sent to it
        if fresh:
            how = self.responder_cache.find(end, netns, self.live_lookup.received_at, &known)
            if how == RESPONDER_UNSURE and self.live_lookup.holds(&known.holder, known.owner.inode):
                self.responder_cache.confirm(known, self.live_lookup.received_at)
                how = RESPONDER_KNOWN
            if how == RESPONDER_KNOWN and self.responder_cache.take(known, out):
                return known.reason
            if self.closed_ports.is_vacant(netns, end.proto, end.sport, self.live_lookup.received_at):
                out.match = MATCH_NONE
                return REASON_CLOSED
        began = monotonic_ns()
        changes = self.notes.owners.port_changes(netns, end.proto, end.sport)
        self.live_lookup.sole = fresh and self.closed_ports.is_sole(netns, end.proto, end.sport, self.live_lookup.received_at)
        reason = self.live_lookup.owner(index, end, False, out)
        if reason != REASON_NONE and reason != REASON_KERNEL and out.cookie and self.notes.name_socket(out.cookie, &noted):
            owner_drop(out)
            out[0] = noted
            reason = REASON_NONE
        if fresh:
            self._remember(index, end, netns, changes, began, out, reason)
            self.closed_ports.missed(index, netns, end.proto)
        self.live_lookup.sole = False
        return reason

    cdef void _remember(self, int index, const tuple_t *end, uint64_t netns, uint32_t changes, int64_t began,
                        const owner_t *found, int reason) noexcept nogil:
        """Keep what was found of a responder, if it does not depend on the peer."""
        cdef owner_t listener
        if found.match == MATCH_NONE and reason == REASON_CLOSED:
            self._keep(end, netns, changes, began, found, reason)
        elif (found.match == MATCH_LISTENER or found.match == MATCH_WILDCARD) and (
                reason == REASON_AMBIGUOUS or reason == REASON_BUDGET) or (
                found.match == MATCH_LISTENER and reason == REASON_NONE) or (
                found.match == MATCH_WILDCARD and reason == REASON_NONE
                and self.live_lookup.is_alone(index, end, found.inode)):
            self._keep(end, netns, changes, began, found, reason)
        elif found.match == MATCH_SOCKET and end.proto == IPPROTO_TCP:
            # It was accepted already: the next one is asked for of the listener.
            memset(&listener, 0, sizeof(listener))
            reason = self.live_lookup.listener(index, end, &listener)
            if listener.match == MATCH_LISTENER and reason in (REASON_NONE, REASON_AMBIGUOUS, REASON_BUDGET):
                self._keep(end, netns, changes, began, &listener, reason)
            owner_drop(&listener)

    cdef void _keep(self, const tuple_t *end, uint64_t netns, uint32_t changes, int64_t began, const owner_t *found,
                    int reason) noexcept nogil:
        cdef int64_t now = monotonic_ns()
        cdef responder_t *kept = self.responder_cache.put(end, netns, changes, now, now - began, found, &self.live_lookup.named, reason)
        # Closed before it was watched, it is not any more.
        if kept != NULL and found.process != NULL and found.inode and not self.live_lookup.holds(&kept.holder, found.inode):
            self.responder_cache.forget(kept)

    cdef int _end(self, int home, const tuple_t *end, bint originator, bint search, bint local, bint fresh,
                  owner_t *out) noexcept nogil:
        """One end of a flow, the rungs in order: which namespace, which socket, which process. local: surely home's; fresh: see
        _responder."""
        cdef owner_t tried
        cdef int reason = NOWHERE
        cdef int found = 0, one
        cdef int index = home if local else self.directory.find_address(home, end, -1)
        if index < 0 and self.directory.look_again(end, search):
            index = self.directory.find_address(home, end, -1)
        while index >= 0:
            if not self.directory.may_come_from(home, index, end):
                index = self.directory.find_address(home, end, index)
                continue
            memset(&tried, 0, sizeof(tried))
            one = self._originator(index, end, &tried) if originator else self._responder(index, end, fresh, &tried)
            if tried.match != MATCH_NONE:
                found += 1
                owner_drop(out)
                out[0] = tried
                reason = one
            elif found == 0:
                reason = one
            index = -1 if local else self.directory.find_address(home, end, index)
        if found > 1:
            owner_drop(out)
            memset(out, 0, sizeof(out[0]))
            reason = REASON_AMBIGUOUS
        if out.process == NULL and out.cgroup_id:
            out.cgroup = process_take(<process_t *>self.paths.get(out.cgroup_id))
        out.reason = reason if reason != NOWHERE else REASON_NONE
        return reason

    cdef void resolve(self, record_t *records, int count) noexcept nogil:
        # One after the other each waited for its bucket and its record: 0.1 to 0.5 us an end.
        cdef int begin = 0
        cdef int i, size
        while begin < count:
            size = min(<int>GROUP, count - begin)
            self.turn = 0 if self.off else self.directory.turn
            for i in range(size):
                self._prepare(&records[begin + i], &self.ends[2 * i])
            if self.notes is not None and not self.off:
                self.notes.owners.approach(self.ends, 2 * size)
            for i in range(size):
                self._resolve(&records[begin + i], &self.ends[2 * i])
            begin += size

    cdef uint8_t _direction(self, int home, const tuple_t *orig, const tuple_t *reply) noexcept nogil:
        return direction_from(reply, self.directory.is_local(home, orig), self.directory.is_local(home, reply))

    cdef void _prepare(self, record_t *record, owners_probe *ends) noexcept nogil:
        """Which way it goes, and what will be looked up among the notes."""
        cdef const tuple_t *orig = &record.flow.orig
        cdef uint64_t netns
        cdef tuple_t reply
        ends[0].netns = ends[1].netns = 0
        if self.off or self.directory.monitored_routes(record.flow.netns) == NULL:
            return
        reply_of(&record.flow, &reply)
        record.direction = self._direction(record.flow.netns, orig, &reply)
        netns = self.directory.cookie(record.flow.netns)
        if self.notes is None or netns == 0:
            return
        self.notes.owners.prepare(orig, netns, &ends[0])
        # Of a responder elsewhere nothing is noted here.
        if record.direction == DIRECTION_LOCAL or record.direction == DIRECTION_IN:
            self.notes.owners.prepare(&reply, netns, &ends[1])

    cdef void _resolve(self, record_t *record, owners_probe *ends) noexcept nogil:
        cdef const tuple_t *orig = &record.flow.orig
        cdef tuple_t reply
        cdef int home = record.flow.netns
        cdef bint fresh = orig.proto != IPPROTO_TCP or record.flow.has & FLOW_STATE and record.flow.state == TCP_SYN_SENT
        cdef bint here
        record.owner.reason = record.peer.reason = REASON_OFF
        if self.off:
            return
        self.at = ends
        self.used = record.flow.type != EVENT_NEW
        self.began = record.flow.start if record.flow.has & FLOW_START else 0
        if self.directory.monitored_routes(home) == NULL:
            record.owner.reason = record.peer.reason = REASON_ERROR
            return
        reply_of(&record.flow, &reply)
        # Addresses may have come while an earlier flow of the batch was looked for.
        if self.turn != self.directory.turn:
            record.direction = self._direction(home, orig, &reply)
        here = record.direction == DIRECTION_OUT or record.direction == DIRECTION_LOCAL
        # Sent from here with an address that nobody here has (IP_FREEBIND, IP_TRANSPARENT): only a note tells.
        if not here and self.notes is not None and self.directory.cookie(home) and (
                self._noted(orig, self.directory.cookie(home), &ends[0], &record.owner) > 0):
            record.direction = DIRECTION_LOCAL if record.direction == DIRECTION_IN else DIRECTION_OUT
            record.owner.reason = REASON_NONE
            self._peer(home, &reply, fresh, record)
            return
        here = self._end(home, orig, True, record.direction == DIRECTION_FORWARD, here, fresh, &record.owner) != NOWHERE
        # Somebody else may have an address that a container has too: then that is none of its sockets.
        if here and record.direction == DIRECTION_IN and record.owner.match == MATCH_NONE:
            here = False
        if not here:
            owner_drop(&record.owner)
            memset(&record.owner, 0, sizeof(record.owner))
            if self._end(home, &reply, False, record.direction == DIRECTION_FORWARD, False, fresh,
                         &record.owner) == NOWHERE:
                record.owner.reason = REASON_NETNS if self.directory.skipped else REASON_FORWARDED
            record.peer.reason = REASON_REMOTE
            return
        self._peer(home, &reply, fresh, record)

    cdef void _peer(self, int home, const tuple_t *reply, bint fresh, record_t *record) noexcept nogil:
        """The responder of a flow whose originator is on this host."""
        cdef bint here = record.direction == DIRECTION_LOCAL or record.direction == DIRECTION_IN
        self._end(home, reply, False, False, here, fresh, &record.peer)
        if not here and record.peer.match == MATCH_NONE and record.peer.reason != REASON_KERNEL:
            owner_drop(&record.peer)
            memset(&record.peer, 0, sizeof(record.peer))
            record.peer.reason = REASON_REMOTE
