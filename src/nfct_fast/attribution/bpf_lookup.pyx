"""What the kernel noted of who used a socket, joined with the program it was: names also the dead.

A note is believed only if it is older than the flow's event, and if no other program used the same tuple in the time
from which the event may be. It has the identity of the program, and who that was then: user, group, cgroup and name are those
of the note, whatever became of the process. Times are CLOCK_BOOTTIME, in ns.
"""
cimport cython
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport malloc
from libc.string cimport memchr, memcmp, memcpy, memset
from posix.unistd cimport _SC_CLK_TCK, sysconf
from nfct_fast.kernel.clock cimport boottime_ns, monotonic_ns, realtime_ns
from nfct_fast.attribution.cgroup_paths cimport CgroupPaths
from nfct_fast.records.owner cimport MATCH_BPF, OWNER_GID, OWNER_UID, OWNER_USERS
from nfct_fast.sockets.socket_notes cimport OWNERS_ACCEPT, USERS, owners_lost, owners_lost_at, owners_ring
from nfct_fast.processes.process cimport (
    PROCESS_CGROUP, PROCESS_COMM, PROCESS_IDS, ancestor_drop, process_build, process_drop, process_take,
)
from nfct_fast.processes.proc_events cimport ProcEvents
from nfct_fast.processes.process_reader cimport ProcessReader
from nfct_fast.attribution.process_watch cimport ProcessWatch
from nfct_fast.processes.history cimport History
from nfct_fast.namespaces.opener cimport Opener

import os

cdef enum:
    SLACK_NS = 100000000         # from the note to the event: the packet's way through the stack, on a loaded machine
    SEARCHES = 64
    READINGS = 8                 # 60 us each

_PROC_PID_INIT_INO = 0xEFFFFFFC       # the initial pid namespace: include/linux/proc_ns.h


cdef bint is_sender(const sender_t *sender, const bpf_owner_t *note) noexcept nogil:
    return (sender.process != NULL and sender.id.tgid == note.id.tgid and sender.id.start == note.id.start
            and sender.id.exec == note.id.exec and sender.uid == note.uid and sender.gid == note.gid
            and sender.cgroup_id == note.cgroup_id and memcmp(sender.comm, note.comm, 16) == 0
            and (note.id.start != 0 or sender.time == note.time))


@cython.final
@cython.auto_pickle(False)
cdef class BpfLookup:
    """Has the kernel take notes from now on, until close(). flows, first: see SocketNotes; opener: who makes larger maps
    for more than first; settled: called in each thread of its own before
    it begins, to give up privileges.

    Needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, Linux 5.15 and cgroup v2; OSError says what is missing. Where the kernel
    has no BTF, or does not let its structures be read, the proc connector tells of programs, later and less:
    `processes_missing` says why. btf: where the kernel's BTF is.
    """

    def __init__(self, ProcessReader reader not None, CgroupPaths paths not None, int flows, first=None,
                 Opener opener=None, settled=None, btf="/sys/kernel/btf/vmlinux"):
        if os.stat("/proc/self/ns/pid").st_ino != _PROC_PID_INIT_INO:
            raise OSError("the kernel's notes have process ids of the initial pid namespace, and this is another")
        self.reader, self.paths = reader, paths
        self.programs = History()
        try:
            self.owners = SocketNotes(flows=flows, first=first, btf=btf)
            self.processes_missing = self.owners.processes_missing
            if self.processes_missing is not None:
                self._connect(settled)
            self.watch = ProcessWatch(self.programs, self.owners, reader, opener)
            self.watch.start(settled)
            with nogil:
                self.drain()
        except BaseException:
            self.close()
            raise

    def _connect(self, settled):
        try:
            self.events = ProcEvents(self.programs, self.reader)
            self.events.start(settled)
        except OSError as error:
            self.processes_missing += f"; {error.strerror or error}"

    def __dealloc__(self):
        cdef int i
        for i in range(SENDERS):
            process_drop(self.senders[i].process)

    def close(self):
        """Let go of the programs and end the threads; closing twice is harmless."""
        if self.events is not None:
            self.events.close()
        if self.watch is not None:
            self.watch.close()
        if self.owners is not None:
            self._lost = self.lost
            self.owners.close()

    @property
    def lost(self):
        """Events of programs for which the kernel had no room, int."""
        return owners_lost(self.owners) if self.owners._open else self._lost

    def abandon(self):
        """In a process that has it by fork: close the descriptors."""
        if self.events is not None:
            self.events.close()
        if self.watch is not None:
            self.watch.abandon()
        if self.owners is not None:
            self.owners.close()

    cdef void drain(self) noexcept nogil:
        """Take in what the kernel has told of programs; no system call."""
        if self.owners.processes_missing is None:
            self.programs.drain(owners_ring(self.owners), owners_lost(self.owners))

    cdef void begin(self, int64_t received_at, int64_t drained_at) noexcept nogil:
        """A batch begins; both times CLOCK_MONOTONIC ns."""
        cdef int64_t before, ahead
        cdef int i
        # Of three readings that with the least time between: one may have been interrupted for milliseconds.
        for i in range(3):
            before = monotonic_ns()
            ahead = boottime_ns() - before
            self.ahead = ahead if i == 0 else min(self.ahead, ahead)
        self.received_at = received_at + self.ahead
        self.drained_at = drained_at + self.ahead
        if not self.asked and self.owners.is_due(self.received_at):
            self.asked = True
            self.watch.ask()
        self.owners.retire(self.received_at)
        self.searches = SEARCHES
        self.readings = READINGS
        # What the batch was sent by has been told of before it was received.
        self.drain()
        if self.events is not None:
            self.events.settle()

    cdef bint _find(self, const bpf_owner_t *note, process_t *facts, process_t **holder) noexcept nogil:
        cdef process_t *process
        if note.id.start == 0:
            return self.programs.find_at(note.id.tgid, note.time, facts, holder)
        if self.programs.find(&note.id, facts, holder):
            return True
        # Its events were lost, or pushed out since: as long as it lives and no event was lost after the note, /proc has it.
        if self.readings == 0 or <int64_t>note.time <= <int64_t>owners_lost_at(self.owners):
            return False
        self.readings -= 1
        process = self.reader.read(note.id.tgid)
        if process == NULL:
            return False
        self.programs.add(process, owners_lost(self.owners))
        process_drop(process)
        self.drain()
        return self.programs.find(&note.id, facts, holder)

    cdef process_t *_build(self, const bpf_owner_t *note) noexcept nogil:
        """The program as it was when the note was taken; what the note itself says if nothing else is known."""
        cdef const process_t *cgroup = self.paths.get(note.cgroup_id)
        cdef const char *end = <const char *>memchr(note.comm, 0, 16)
        cdef process_t *holder = NULL
        cdef process_t *process
        cdef process_t facts
        if not self._find(note, &facts, &holder):
            memset(&facts, 0, sizeof(facts))
            facts.pid = note.id.tgid
            facts.start_ns = note.id.start
            facts.start = note.id.start // <uint64_t>(1000000000 // sysconf(_SC_CLK_TCK))
        facts.uid, facts.gid = note.uid, note.gid
        facts.comm.at, facts.comm.size = note.comm, end - note.comm if end != NULL else 16
        facts.has |= PROCESS_IDS | PROCESS_COMM
        if cgroup != NULL:
            facts.cgroup, facts.cgroup_trusted = cgroup.cgroup, cgroup.cgroup_trusted
            facts.has |= PROCESS_CGROUP
        process = process_build(&facts)
        process_drop(holder)
        ancestor_drop(facts.ancestors)
        return process

    cdef process_t *_process(self, const bpf_owner_t *note) noexcept nogil:
        cdef sender_t *sender = &self.senders[note.id.tgid & (SENDERS - 1)]
        if not is_sender(sender, note) or sender.changes != self.programs.changes:
            process_drop(sender.process)
            sender.process = self._build(note)
            sender.id, sender.cgroup_id, sender.time = note.id, note.cgroup_id, note.time
            sender.uid, sender.gid = note.uid, note.gid
            sender.changes = self.programs.changes
            memcpy(sender.comm, note.comm, 16)
        return process_take(sender.process)

    cdef void _fill(self, const bpf_owner_t *note, owner_t *out) noexcept nogil:
        memset(out, 0, sizeof(out[0]))
        out.process = self._process(note)
        out.uid = note.uid
        out.gid = note.gid
        out.has = OWNER_UID | OWNER_GID
        out.cookie = note.cookie
        out.cgroup_id = note.cgroup_id
        out.match = MATCH_BPF

    cdef int name(self, const tuple_t *end, uint64_t netns, const owners_probe *probe, owner_t *out,
                  int64_t accepted=NEVER) noexcept nogil:
        cdef bpf_owner_t note
        cdef int found
        if probe != NULL and probe.netns == netns:
            found = self.owners.lookup_prepared(probe, &note)
        else:
            found = self.owners.lookup(end, netns, &note)
        if found != 1:
            return False
        # Who accepted an earlier connection of the same addresses and ports has nothing to do with this one.
        if note.hook == OWNERS_ACCEPT and <int64_t>note.time < accepted:
            return False
        # A tuple may have been used again since, or twice before it was heard of.
        if <int64_t>note.time > self.received_at or note.again:
            found = -1
            if self.searches:
                self.searches -= 1
                found = self.owners.lookup_past(end, netns, max(0, self.drained_at - SLACK_NS), self.received_at, &note)
            if found != 1 and <int64_t>note.time > self.received_at:
                return False
        if note.other_time and <int64_t>note.other_time > self.drained_at - SLACK_NS:
            return -1
        if note.is_kernel:
            return -2
        self._fill(&note, out)
        return out.process != NULL

    cdef int64_t boot_time(self, int64_t time) noexcept nogil:
        return time - (realtime_ns() - boottime_ns())

    cdef void name_users(self, const tuple_t *end, uint64_t netns, int64_t began, owner_t *out) noexcept nogil:
        cdef bpf_owner_t users[USERS]
        cdef int64_t since = max(0, self.boot_time(began)) if began else 0
        cdef int count = self.owners.lookup_users(end, netns, since, SLACK_NS, self.received_at, users)
        cdef process_t *process
        cdef int i
        if count < 2 or out.other_count:
            return
        out.others = <process_t **>malloc(count * sizeof(process_t *))
        if out.others == NULL:
            return
        out.has |= OWNER_USERS
        for i in range(count):
            if users[i].is_kernel:
                continue
            process = self._process(&users[i])
            if process == NULL or process == out.process:
                process_drop(process)
            else:
                out.others[out.other_count] = process
                out.other_count += 1

    cdef bint name_socket(self, uint64_t cookie, owner_t *out) noexcept nogil:
        cdef bpf_owner_t note
        if self.owners.lookup_cookie(cookie, &note) != 1 or <int64_t>note.time > self.received_at or note.is_kernel:
            return False
        self._fill(&note, out)
        return out.process != NULL
