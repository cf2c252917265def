"""Find the owners of flows: the direction of a flow, then for each end the namespace, the socket and the processes.

If a step fails, it gives the reason why there is no owner. A tuple is looked up as seen from its socket: the
originator's socket has the original tuple, before SNAT; the responder's has the reply tuple, after DNAT.

This file has more than 400 lines: whether one end may be named depends on what was found about the other one.
"""
cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from netinet_in cimport IPPROTO_TCP, IPPROTO_UDP

from nfct_fast.attribution.batch_times cimport batch_times_set
from nfct_fast.attribution.cgroup_paths cimport CgroupPaths
from nfct_fast.namespaces.direction cimport (
    DIRECTION_FORWARD, DIRECTION_IN, DIRECTION_LOCAL, DIRECTION_OUT, direction_from,
)
from nfct_fast.events.flow cimport EVENT_DESTROY, EVENT_NEW, FLOW_REPLY, FLOW_START, FLOW_STATE, flow_t, tuple_invert
from nfct_fast.attribution.bpf_lookup cimport NEVER
from nfct_fast.records.owner cimport (
    MATCH_LISTENER, MATCH_NONE, MATCH_SOCKET, MATCH_WILDCARD, REASON_AMBIGUOUS, REASON_BUDGET, REASON_CLOSED,
    REASON_ERROR, REASON_FORWARDED, REASON_KERNEL, REASON_NETNS, REASON_NONE, REASON_OFF, REASON_REMOTE, owner_copy,
    owner_drop,
)
from nfct_fast.processes.process cimport process_t, process_take
from nfct_fast.kernel.clock cimport monotonic_ns
from nfct_fast.attribution.responder_cache cimport RESPONDER_KNOWN, RESPONDER_UNSURE, ResponderCache, responder_t
from nfct_fast.attribution.closed_ports cimport ClosedPorts

from nfct_fast.sockets.fd_scanner import BURST

NOTED_FLOWS = 300_000
NOTED_FIRST = 65_536         # saves 11 MiB at 1,000 flows per second; the ring grows at about 8,000 notes per second
ATTRIBUTIONS = ("auto", "bpf", "diag", "proc", "off")

cdef enum:
    NOWHERE = 255            # not a REASON_*: no known namespace has the address
    TCP_SYN_SENT = 1         # flow_t.state, from nf_conntrack_tcp.h


cdef inline void reply_of(const flow_t *flow, tuple_t *out) noexcept nogil:
    if flow.has & FLOW_REPLY:
        out[0] = flow.reply
    else:
        tuple_invert(&flow.orig, out)


cdef inline bint is_remembered(const record_t *record) noexcept nogil:
    return record.live != 0 and record.flow.type == EVENT_DESTROY


@cython.final
@cython.auto_pickle(False)
cdef class Resolver:
    """A resolver of the owners of flows. One thread at a time.

    The network namespace of the thread that makes it is monitored under number 0: flows whose events come from there
    have 0 as flow.netns.

    Args:
        mode: "bpf" has BPF programs note who uses a socket, and works as "diag" for older sockets; "diag" queries
            sock_diag for the socket of each tuple, and reads /proc/net for protocols that it cannot look up; "proc"
            only reads /proc/net; "auto" is the best that works, and `bpf_missing` says why that is not "bpf"; "off"
            finds nothing.
        proc: Where procfs is mounted.
        budget: Seconds allowed per second for scanning the open files of processes; inf for no limit.
        burst: Seconds of scanning allowed without a pause.
        notes: How many notes are kept once `first` are no longer enough.
        first: How many notes there is room for at first; None: `notes`.
        bpf: Whether mode "auto" uses BPF. Notes say nothing about sockets that exist already.
        drop_rights: Called first in each thread that is started, to give up privileges.
        spawn_helper: Rights.spawn_helper, to have helper processes do what takes privileges.

    Raises:
        OSError: Something that the mode needs is missing.
    """

    def __init__(self, str mode not None="auto", proc="/proc", double budget=0.2, int notes=NOTED_FLOWS,
                 first=NOTED_FIRST, drop_rights=None, spawn_helper=None, double burst=BURST, bint bpf=True):
        if mode not in ATTRIBUTIONS:
            raise ValueError(f"unknown attribution {mode!r}; choose from {', '.join(ATTRIBUTIONS)}")
        self.mode = mode
        self.off = mode == "off"
        self.off_numbers = set()
        if self.off:
            return
        self.live_lookup = LiveLookup(mode, proc, budget, spawn_helper, burst)
        self.namespaces = self.live_lookup.namespaces
        self.namespaces.discovery.look()       # containers that exist already may have flows at once
        self.namespaces.refresh()
        self.cgroup_paths = CgroupPaths(self.live_lookup.holder_search)
        if mode == "bpf" or mode == "auto" and bpf:
            try:
                self.bpf_lookup = BpfLookup(
                    self.live_lookup.reader, self.cgroup_paths, notes, first, self.namespaces.opener, drop_rights)
            except OSError as error:
                if mode == "bpf":
                    raise
                self.bpf_missing = error.strerror or str(error)
        if self.bpf_lookup is not None:
            self.responder_cache = ResponderCache(self.bpf_lookup)
            self.closed_ports = ClosedPorts(self.bpf_lookup.notes, self.namespaces)
        self.namespaces.start(drop_rights)
        if drop_rights is not None:
            # Its helper process has more privileges than the one that will replace it.
            self.live_lookup.reader.lines.close()

    def monitor(self, netns=None) -> int:
        """Add a namespace to the monitored ones and return its number, the flow.netns of its flows.

        A namespace that is monitored already keeps its number. The calling thread enters the namespace for a moment.

        Args:
            netns: A Netns; None for the namespace of the calling thread.

        Raises:
            OSError: The namespace cannot be entered, or its sockets cannot be opened.
        """
        if not self.off:
            return self.namespaces.monitor(netns)
        number = next(number for number in range(len(self.off_numbers) + 1) if number not in self.off_numbers)
        self.off_numbers.add(number)
        return number

    def stop_monitoring(self, int number) -> None:
        """Stop monitoring the namespace with that number, which may then be reused. Can be called from any thread."""
        if not self.off:
            self.namespaces.stop_monitoring(number)
        self.off_numbers.discard(number)

    def close(self):
        """Free sockets and caches; closing twice is harmless."""
        self.off = True
        if self.bpf_lookup is not None:
            self.bpf_lookup.close()
        if self.namespaces is not None:
            self.namespaces.close()
        if self.live_lookup is not None:
            self.live_lookup.close()

    def abandon(self):
        """Close the descriptors in a forked child, without freeing what another thread may have been using."""
        if self.bpf_lookup is not None:
            self.bpf_lookup.abandon()
        if self.namespaces is not None:
            self.namespaces.abandon()
        if self.live_lookup is not None:
            self.live_lookup.close()

    @property
    def opener(self):
        """The Opener that opens sockets in other namespaces; None if the mode is "off"."""
        return None if self.namespaces is None else self.namespaces.opener

    @property
    def programs_lost(self) -> int:
        """Number of process events lost because the kernel's ring was full."""
        return 0 if self.bpf_lookup is None else self.bpf_lookup.lost

    def refresh(self):
        """Notice namespaces that appeared or disappeared. To be called about once a second; more often is cheap.

        Raises:
            OSError: A helper process has ended, without which owners cannot be found.
        """
        if not self.off:
            self.live_lookup.holder_search.check()
            self.namespaces.refresh()

    def fileno(self) -> int:
        """Return a descriptor that is readable when drain() is due although no flows arrive, or -1."""
        return -1 if self.bpf_lookup is None else self.bpf_lookup.notes.fileno()

    cdef void drain(self) noexcept nogil:
        if not self.off and self.bpf_lookup is not None:
            self.bpf_lookup.drain()

    @property
    def spoofed(self) -> int:
        """Datagrams ignored because a process sent them, not the kernel; on sockets for namespaces and sock_diag."""
        return self.namespaces.spoofed if self.namespaces is not None else 0

    cdef void begin(self, int64_t received_at, int64_t drained_at) noexcept nogil:
        if self.off:
            return
        batch_times_set(&self.times, received_at, drained_at)
        if self.bpf_lookup is not None:
            self.bpf_lookup.begin(&self.times)
        self.live_lookup.begin(&self.times)
        self.namespaces.refresh_monitored()

    cdef int _by_note(self, const tuple_t *end, uint64_t netns, const owners_probe *probe, owner_t *out,
                      int64_t accepted=NEVER) noexcept nogil:
        """Find the owner by a note, and for a flow that is not new all programs that used its tuple."""
        cdef int found = self.bpf_lookup.find(end, netns, probe, out, accepted)
        if self.is_old and found > 0:
            self.bpf_lookup.add_users(end, netns, self.began, out)
        return found

    cdef int _originator(self, int index, const tuple_t *end, owner_t *out) noexcept nogil:
        """Find who sent from `end` in the namespace at `index`, by a note or by the socket with exactly this tuple."""
        cdef uint64_t netns = self.namespaces.cookie(index)
        cdef owner_t by_note
        cdef int reason, found
        if self.bpf_lookup is None or netns == 0:
            return self.live_lookup.owner(index, end, True, out)
        found = self._by_note(end, netns, &self.at[0], out)
        if found > 0:
            return REASON_NONE
        if found < 0:
            out.match = MATCH_SOCKET
            if found == -1 and self.is_old:
                self.bpf_lookup.add_users(end, netns, self.began, out)
            return REASON_AMBIGUOUS if found == -1 else REASON_KERNEL
        reason = self.live_lookup.owner(index, end, True, out)
        # Look again: the note is written when the first packet leaves, which for connected UDP may be after the event.
        if self.bpf_lookup.find(end, netns, &self.at[0], &by_note) > 0:
            owner_drop(out)
            out[0] = by_note
            return REASON_NONE
        # Having the port does not prove having sent from it, since a packet may carry any source address (IP_PKTINFO,
        # raw sockets). If the notes cover all processes, an unconnected sender would have one. If notes were
        # overwritten, one of another user of the tuple may have been among them.
        if (out.match == MATCH_WILDCARD and self.bpf_lookup.notes.covers_all
                or out.match != MATCH_NONE and self.bpf_lookup.is_overwritten):
            owner_drop(out)
            memset(out, 0, sizeof(out[0]))
            return REASON_AMBIGUOUS
        if (reason != REASON_NONE and reason != REASON_KERNEL and out.cookie
                and self.bpf_lookup.find_socket(out.cookie, &by_note)):
            owner_drop(out)
            out[0] = by_note
            return REASON_NONE
        return reason

    cdef int _responder(self, int index, const tuple_t *end, bint fresh, owner_t *out) noexcept nogil:
        """Find who serves `end` in the namespace at `index`. fresh: the event is of a SYN, or of another protocol."""
        cdef uint64_t netns = self.namespaces.cookie(index)
        cdef uint32_t changes
        cdef int64_t began, accepted
        cdef owner_t by_note
        cdef responder_t *known = NULL
        cdef int how, reason
        if self.bpf_lookup is None or netns == 0 or end.proto != IPPROTO_TCP and end.proto != IPPROTO_UDP:
            return self.live_lookup.owner(index, end, False, out)
        # The same addresses and ports may have had a connection just before, which somebody else accepted.
        accepted = (self.bpf_lookup.boot_time(self.began) if self.began
                    else self.bpf_lookup.event_boot_time(self.occurred) if self.occurred else NEVER)
        if self._by_note(end, netns, &self.at[1], out, accepted) > 0:
            return REASON_NONE      # the note says that the socket was accepted from, connected to or sent to this peer
        if fresh:
            how = self.responder_cache.find(end, netns, self.times.received_at, &known)
            if how == RESPONDER_UNSURE and self.live_lookup.holds(&known.holder, known.owner.inode):
                self.responder_cache.confirm(known, self.times.received_at)
                how = RESPONDER_KNOWN
            if how == RESPONDER_KNOWN:
                owner_copy(&known.owner, out)
                return known.reason
            if self.closed_ports.is_vacant(netns, end.proto, end.sport, self.times.received_at):
                out.match = MATCH_NONE
                return REASON_CLOSED
        began = monotonic_ns()
        changes = self.bpf_lookup.notes.port_changes(netns, end.proto, end.sport)
        self.live_lookup.port_is_exclusive = fresh and self.closed_ports.has_one_socket(
            netns, end.proto, end.sport, self.times.received_at)
        reason = self.live_lookup.owner(index, end, False, out)
        if (reason != REASON_NONE and reason != REASON_KERNEL and out.cookie
                and self.bpf_lookup.find_socket(out.cookie, &by_note)):
            owner_drop(out)
            out[0] = by_note
            reason = REASON_NONE
        if fresh:
            self._remember(index, end, netns, changes, began, out, reason)
            self.closed_ports.count_miss(index, netns, end.proto)
        self.live_lookup.port_is_exclusive = False
        return reason

    cdef void _remember(self, int index, const tuple_t *end, uint64_t netns, uint32_t changes, int64_t began,
                        const owner_t *found, int reason) noexcept nogil:
        """Cache the responder that was found, provided that it does not depend on the peer."""
        cdef owner_t listener
        if found.match == MATCH_NONE and reason == REASON_CLOSED:
            self._keep(end, netns, changes, began, found, reason)
        elif (found.match == MATCH_LISTENER or found.match == MATCH_WILDCARD) and (
                reason == REASON_AMBIGUOUS or reason == REASON_BUDGET) or (
                found.match == MATCH_LISTENER and reason == REASON_NONE) or (
                found.match == MATCH_WILDCARD and reason == REASON_NONE
                and self.live_lookup.is_exclusive(index, end, found.inode)):
            self._keep(end, netns, changes, began, found, reason)
        elif found.match == MATCH_SOCKET and end.proto == IPPROTO_TCP:
            # The connection has been accepted already: look up the listener for the next one.
            memset(&listener, 0, sizeof(listener))
            reason = self.live_lookup.listener(index, end, &listener)
            if listener.match == MATCH_LISTENER and reason in (REASON_NONE, REASON_AMBIGUOUS, REASON_BUDGET):
                self._keep(end, netns, changes, began, &listener, reason)
            owner_drop(&listener)

    cdef void _keep(self, const tuple_t *end, uint64_t netns, uint32_t changes, int64_t began, const owner_t *found,
                    int reason) noexcept nogil:
        cdef int64_t now = monotonic_ns()
        cdef responder_t *kept = self.responder_cache.put(end, netns, changes, now, now - began, found,
                                                          &self.live_lookup.last_holder, reason)
        # The socket may have been closed before it was watched.
        if (kept != NULL and found.process != NULL and found.inode
                and not self.live_lookup.holds(&kept.holder, found.inode)):
            self.responder_cache.forget(kept)

    cdef int _end(self, int monitored, const tuple_t *end, bint originator, bint search, bint local, bint fresh,
                  owner_t *out) noexcept nogil:
        """Find the owner of one end of a flow: which namespace, which socket, which process.

        originator: `end` is the end that sent first. search: look for new namespaces if none has the address. local:
        the monitored namespace itself has the address. fresh: see _responder.
        """
        cdef owner_t tried
        cdef int reason = NOWHERE
        cdef int found = 0, one
        cdef int index = monitored if local else self.namespaces.find_address(monitored, end, -1)
        if index < 0 and self.namespaces.look_again(end, search):
            index = self.namespaces.find_address(monitored, end, -1)
        while index >= 0:
            if not self.namespaces.may_come_from(monitored, index, end):
                index = self.namespaces.find_address(monitored, end, index)
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
            index = -1 if local else self.namespaces.find_address(monitored, end, index)
        if found > 1:
            owner_drop(out)
            memset(out, 0, sizeof(out[0]))
            reason = REASON_AMBIGUOUS
        if out.process == NULL and out.cgroup_id:
            out.cgroup = process_take(<process_t *>self.cgroup_paths.get(out.cgroup_id))
        out.reason = reason if reason != NOWHERE else REASON_NONE
        return reason

    cdef void resolve(self, record_t *records, int count) noexcept nogil:
        # Fetch the notes of a group together. One by one, each end took 0.1 to 0.5 us of waiting for cache misses.
        cdef int begin = 0
        cdef int i, size
        while begin < count:
            size = min(<int>GROUP, count - begin)
            self.generation = 0 if self.off else self.namespaces.generation
            for i in range(size):
                self._prepare(&records[begin + i], &self.ends[2 * i])
            if self.bpf_lookup is not None and not self.off:
                self.bpf_lookup.notes.approach(self.ends, 2 * size)
            for i in range(size):
                self._resolve(&records[begin + i], &self.ends[2 * i])
            begin += size

    cdef uint8_t _direction(self, int monitored, const tuple_t *orig, const tuple_t *reply) noexcept nogil:
        return direction_from(reply, self.namespaces.is_local(monitored, orig),
                              self.namespaces.is_local(monitored, reply))

    cdef void _prepare(self, record_t *record, owners_probe *ends) noexcept nogil:
        """Determine the direction of a flow, and prepare the look-ups of its notes."""
        cdef const tuple_t *orig = &record.flow.orig
        cdef uint64_t netns
        cdef tuple_t reply
        ends[0].netns = ends[1].netns = 0
        if is_remembered(record) or self.off or self.namespaces.monitored_routes(record.flow.netns) == NULL:
            return
        reply_of(&record.flow, &reply)
        record.direction = self._direction(record.flow.netns, orig, &reply)
        netns = self.namespaces.cookie(record.flow.netns)
        if self.bpf_lookup is None or netns == 0:
            return
        self.bpf_lookup.notes.prepare(orig, netns, &ends[0])
        # A responder on another host has no notes here.
        if record.direction == DIRECTION_LOCAL or record.direction == DIRECTION_IN:
            self.bpf_lookup.notes.prepare(&reply, netns, &ends[1])

    cdef void _resolve(self, record_t *record, owners_probe *ends) noexcept nogil:
        cdef const tuple_t *orig = &record.flow.orig
        cdef tuple_t reply
        cdef int monitored = record.flow.netns
        cdef bint fresh = (orig.proto != IPPROTO_TCP
                           or record.flow.has & FLOW_STATE and record.flow.state == TCP_SYN_SENT)
        cdef bint here
        if is_remembered(record):
            return
        record.owner.reason = record.peer.reason = REASON_OFF
        if self.off:
            return
        self.at = ends
        self.is_old = record.flow.type != EVENT_NEW
        self.began = record.flow.start if record.flow.has & FLOW_START else 0
        self.occurred = 0 if self.is_old else record.flow.occurred
        if self.namespaces.monitored_routes(monitored) == NULL:
            record.owner.reason = record.peer.reason = REASON_ERROR
            return
        reply_of(&record.flow, &reply)
        # Addresses may have been added while an earlier flow of the batch was resolved.
        if self.generation != self.namespaces.generation:
            record.direction = self._direction(monitored, orig, &reply)
        here = record.direction == DIRECTION_OUT or record.direction == DIRECTION_LOCAL
        # Only a note shows that a packet was sent here with an address that is not local (IP_FREEBIND, IP_TRANSPARENT).
        if not here and self.bpf_lookup is not None and self.namespaces.cookie(monitored) and (
                self._by_note(orig, self.namespaces.cookie(monitored), &ends[0], &record.owner) > 0):
            record.direction = DIRECTION_LOCAL if record.direction == DIRECTION_IN else DIRECTION_OUT
            record.owner.reason = REASON_NONE
            self._peer(monitored, &reply, fresh, record)
            return
        here = self._end(monitored, orig, True, record.direction == DIRECTION_FORWARD, here, fresh,
                         &record.owner) != NOWHERE
        # Another host may have the same address as a container. Then no socket of the container matches.
        if here and record.direction == DIRECTION_IN and record.owner.match == MATCH_NONE:
            here = False
        if not here:
            owner_drop(&record.owner)
            memset(&record.owner, 0, sizeof(record.owner))
            if self._end(monitored, &reply, False, record.direction == DIRECTION_FORWARD, False, fresh,
                         &record.owner) == NOWHERE:
                record.owner.reason = REASON_NETNS if self.namespaces.skipped else REASON_FORWARDED
            record.is_responder = True
            record.peer.reason = REASON_REMOTE
            return
        self._peer(monitored, &reply, fresh, record)

    cdef void _peer(self, int monitored, const tuple_t *reply, bint fresh, record_t *record) noexcept nogil:
        """Find the responder of a flow whose originator is on this host."""
        cdef bint here = record.direction == DIRECTION_LOCAL or record.direction == DIRECTION_IN
        self._end(monitored, reply, False, False, here, fresh, &record.peer)
        if not here and record.peer.match == MATCH_NONE and record.peer.reason != REASON_KERNEL:
            owner_drop(&record.peer)
            memset(&record.peer, 0, sizeof(record.peer))
            record.peer.reason = REASON_REMOTE

    cdef bint add_users(self, record_t *record, int64_t since) noexcept nogil:
        cdef int monitored = record.flow.netns
        cdef bint local = record.direction == DIRECTION_LOCAL
        cdef int64_t accepted = NEVER
        cdef tuple_t reply
        cdef bint alone
        if self.off or self.bpf_lookup is None or self.namespaces.monitored_routes(monitored) == NULL:
            return False
        if record.flow.has & FLOW_START:
            since = max(0, self.bpf_lookup.boot_time(record.flow.start))
            if record.flow.orig.proto == IPPROTO_TCP:
                accepted = since
        reply_of(&record.flow, &reply)
        if record.is_responder:
            return self._add_users(monitored, &reply, record.direction == DIRECTION_IN, since, accepted, &record.owner)
        alone = self._add_users(monitored, &record.flow.orig, local or record.direction == DIRECTION_OUT, since, NEVER,
                                &record.owner)
        if record.peer.reason != REASON_REMOTE:
            self._add_users(monitored, &reply, local, since, accepted, &record.peer)
        return alone

    cdef bint _add_users(self, int monitored, const tuple_t *end, bint here, int64_t since, int64_t accepted,
                         owner_t *out) noexcept nogil:
        """Add who used one end. here: it is in the monitored namespace itself. accepted: see BpfLookup.find()."""
        cdef int index = monitored if here else -1
        cdef int other = -1
        cdef uint64_t netns
        cdef owner_t by_note
        if not here:
            # Which namespace it was is not remembered: it has to be the only one that can have the address.
            other = self.namespaces.find_address(monitored, end, -1)
            while other >= 0:
                if self.namespaces.may_come_from(monitored, other, end):
                    if index >= 0:
                        return False
                    index = other
                other = self.namespaces.find_address(monitored, end, other)
        netns = self.namespaces.cookie(index) if index >= 0 else 0
        if netns == 0:
            return False
        if accepted != NEVER and self.bpf_lookup.find(end, netns, NULL, &by_note, accepted) > 0:
            owner_drop(out)
            out[0] = by_note
            out.reason = REASON_NONE
        return self.bpf_lookup.merge_users(end, netns, since, out)
