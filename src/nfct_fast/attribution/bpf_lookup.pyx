"""Find the owner of a tuple by the notes that BPF programs wrote when it was used, even if the process has exited.

A note counts only if it is older than the flow's event, and if no other program used the same tuple in the interval in
which the event may have happened. The note has the identity of the program, by which the history finds its details.
User, group, cgroup and name are taken from the note, as the process may have changed them since. Times are
CLOCK_BOOTTIME ns.
"""
cimport cython
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memset
from nfct_fast.kernel.clock cimport boottime_ns, clock_ticks, realtime_ns
from nfct_fast.attribution.cgroup_paths cimport CgroupPaths
from nfct_fast.records.owner cimport MATCH_BPF, OWNER_GID, OWNER_UID, OWNER_USERS, others_drop, others_new, others_t
from nfct_fast.sockets.socket_notes cimport OWNERS_ACCEPT, USERS, owners_lost, owners_lost_at, owners_ring
from nfct_fast.processes.process cimport (
    PROCESS_CGROUP, PROCESS_COMM, PROCESS_EXE_FILE, PROCESS_IDS, ancestor_drop, process_build, process_drop,
    process_take,
)
from nfct_fast.processes.proc_events cimport ProcEvents
from nfct_fast.processes.process_reader cimport ProcessReader
from nfct_fast.attribution.process_watch cimport ProcessWatch
from nfct_fast.processes.history cimport History
from nfct_fast.namespaces.opener cimport Opener

from nfct_fast.sockets.socket_notes import check_pid_namespace

cdef enum:
    SLACK_NS = 100000000         # longest time from note to event: a packet's way through the stack of a loaded machine
    SEARCHES = 64                # most searches for earlier notes in one batch; each takes up to 0.1 ms
    READINGS = 8                 # most processes read from /proc in one batch; each takes 60 us


cdef bint is_sender(const sender_t *sender, const bpf_owner_t *note) noexcept nogil:
    return (sender.process != NULL and sender.id.tgid == note.id.tgid and sender.id.start == note.id.start
            and sender.id.exec == note.id.exec and sender.uid == note.uid and sender.gid == note.gid
            and sender.cgroup_id == note.cgroup_id and memcmp(sender.comm, note.comm, 16) == 0
            and (note.id.start != 0 or sender.time == note.time))


cdef bint is_same_program(const process_t *a, const process_t *b) noexcept nogil:
    """Whether two accounts, which need not say the same of it, are of one program of one process."""
    return (b != NULL and a.pid == b.pid and a.start == b.start
            and (a.start_ns == b.start_ns or a.start_ns == 0 or b.start_ns == 0)
            and (not a.has & b.has & PROCESS_EXE_FILE or a.exe_dev == b.exe_dev and a.exe_inode == b.exe_inode))


@cython.final
@cython.auto_pickle(False)
cdef class BpfLookup:
    """A look-up of owners by the notes of BPF programs, which are attached until close().

    Needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, Linux 5.15 and cgroup v2. If the kernel has no BTF, or does not allow
    reading its structures, the proc connector reports processes in place of the tracepoints, later and with less
    detail; `processes_missing` then says why.

    Args:
        reader: The reader of processes whose events were lost.
        cgroup_paths: The paths of the cgroups that notes refer to.
        notes, first: See SocketNotes.
        opener: The Opener that makes the larger maps when more than `first` notes are needed; None: a thread does.
        drop_rights: Called first in each thread that is started, to give up privileges.
        btf: The file with the kernel's BTF.

    Raises:
        OSError: The programs cannot be attached; the message says what is missing.
    """

    def __init__(self, ProcessReader reader not None, CgroupPaths cgroup_paths not None, int notes, first=None,
                 Opener opener=None, drop_rights=None, btf="/sys/kernel/btf/vmlinux"):
        check_pid_namespace()
        self.reader, self.cgroup_paths = reader, cgroup_paths
        self.history = History()
        try:
            self.notes = SocketNotes(notes=notes, first=first, btf=btf)
            self.processes_missing = self.notes.processes_missing
            if self.processes_missing is not None:
                self._connect(drop_rights)
            self.process_watch = ProcessWatch(self.history, self.notes, reader, opener)
            self.process_watch.start(drop_rights)
            with nogil:
                self.drain()
        except BaseException:
            self.close()
            raise

    def _connect(self, drop_rights):
        try:
            self.proc_events = ProcEvents(self.history, self.reader)
            self.proc_events.start(drop_rights)
        except OSError as error:
            self.processes_missing += f"; {error.strerror or error}"

    def __dealloc__(self):
        cdef int i
        for i in range(SENDERS):
            process_drop(self.senders[i].process)

    def close(self):
        """Detach the BPF programs and end the threads; closing twice is harmless."""
        if self.proc_events is not None:
            self.proc_events.close()
        if self.process_watch is not None:
            self.process_watch.close()
        if self.notes is not None:
            self._lost = self.lost
            self.notes.close()

    @property
    def lost(self):
        """Number of process events lost because the kernel's ring was full, int."""
        return owners_lost(self.notes) if self.notes._open else self._lost

    def abandon(self):
        """Close the descriptors in a forked child."""
        if self.proc_events is not None:
            self.proc_events.close()
        if self.process_watch is not None:
            self.process_watch.abandon()
        if self.notes is not None:
            self.notes.close()

    cdef void drain(self) noexcept nogil:
        """Process the kernel's process events, without a system call."""
        if self.notes.processes_missing is None:
            self.history.drain(owners_ring(self.notes), owners_lost(self.notes))

    cdef void begin(self, const batch_times_t *times) noexcept nogil:
        self.times = times[0]
        if not self.growth_requested and self.notes.is_due(self.times.received_boot):
            self.growth_requested = True
            self.process_watch.request_growth()
        self.notes.retire(self.times.received_boot)
        # If notes from that interval were overwritten, another program's use of the tuple may be among them, and no
        # note proves whose flow it is.
        self.is_overwritten = self.notes.complete_since() > <uint64_t>max(0, self.times.drained_boot - SLACK_NS)
        self.searches = SEARCHES
        self.readings = READINGS
        # The events of the programs that sent these packets are in the ring already.
        self.drain()
        if self.proc_events is not None:
            self.proc_events.wait_drained()

    cdef bint _find(self, const bpf_owner_t *note, process_t *facts, process_t **holder) noexcept nogil:
        cdef process_t *process
        if note.id.start == 0:
            return self.history.find_at(note.id.tgid, note.time, facts, holder)
        if self.history.find(&note.id, facts, holder):
            return True
        # The program's event was lost, or the program evicted from the history. If no event was lost after the note,
        # and the process still runs, /proc shows the same program.
        if self.readings == 0 or <int64_t>note.time <= <int64_t>owners_lost_at(self.notes):
            return False
        self.readings -= 1
        process = self.reader.read(note.id.tgid)
        if process == NULL:
            return False
        self.history.add(process, owners_lost(self.notes))
        process_drop(process)
        self.drain()
        return self.history.find(&note.id, facts, holder)

    cdef process_t *_build(self, const bpf_owner_t *note) noexcept nogil:
        """Build the process as it was when the note was written, from the note alone if nothing else is known."""
        cdef const process_t *cgroup = self.cgroup_paths.get(note.cgroup_id)
        cdef const char *end = <const char *>memchr(note.comm, 0, 16)
        cdef process_t *holder = NULL
        cdef process_t *process
        cdef process_t facts
        if not self._find(note, &facts, &holder):
            memset(&facts, 0, sizeof(facts))
            facts.pid = note.id.tgid
            facts.start_ns = note.id.start
            facts.start = clock_ticks(note.id.start)
        facts.uid, facts.gid = note.uid, note.gid
        facts.comm.at = <const char *>note.comm
        facts.comm.size = end - note.comm if end != NULL else 16
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
        if not is_sender(sender, note) or sender.changes != self.history.changes:
            process_drop(sender.process)
            sender.process = self._build(note)
            sender.id, sender.cgroup_id, sender.time = note.id, note.cgroup_id, note.time
            sender.uid, sender.gid = note.uid, note.gid
            sender.changes = self.history.changes
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

    cdef int find(self, const tuple_t *end, uint64_t netns, const owners_probe *probe, owner_t *out,
                  int64_t accepted=NEVER) noexcept nogil:
        cdef bpf_owner_t note
        cdef int found
        if probe != NULL and probe.netns == netns:
            found = self.notes.lookup_prepared(probe, &note)
        else:
            found = self.notes.lookup(end, netns, &note)
        if found != 1:
            return False
        # The note may be about an earlier accepted connection with the same addresses and ports.
        if note.hook == OWNERS_ACCEPT and <int64_t>note.time < accepted:
            return False
        # The tuple may have been used again since the event, or twice before the event was received.
        if <int64_t>note.time > self.times.received_boot or note.again:
            found = -1
            if self.searches:
                self.searches -= 1
                found = self.notes.lookup_past(
                    end, netns, max(0, self.times.drained_boot - SLACK_NS), self.times.received_boot, &note)
            if found != 1 and <int64_t>note.time > self.times.received_boot:
                return False
        if note.other_time and <int64_t>note.other_time > self.times.drained_boot - SLACK_NS:
            return -1
        if note.is_kernel:
            return -2
        if self.is_overwritten:
            return -1
        self._fill(&note, out)
        return out.process != NULL

    cdef int64_t boot_time(self, int64_t time) noexcept nogil:
        return time - (realtime_ns() - boottime_ns())

    cdef int64_t event_boot_time(self, int64_t time) noexcept nogil:
        return max(self.boot_time(time), self.times.drained_boot - SLACK_NS)

    cdef void add_users(self, const tuple_t *end, uint64_t netns, int64_t began, owner_t *out) noexcept nogil:
        cdef bpf_owner_t users[USERS]
        cdef int64_t since = max(0, self.boot_time(began)) if began else 0
        cdef int count = self.notes.lookup_users(end, netns, since, SLACK_NS, self.times.received_boot, users)
        cdef process_t *process
        cdef int i
        if count < 2 or out.others != NULL:
            return
        out.others = others_new(count)
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
                out.others.at[out.others.count] = process
                out.others.count += 1

    cdef bint merge_users(self, const tuple_t *end, uint64_t netns, int64_t since, owner_t *out) noexcept nogil:
        cdef bpf_owner_t users[USERS]
        cdef int count = self.notes.lookup_users(end, netns, since, SLACK_NS, self.times.received_boot, users)
        cdef bint alone = count > 0 and self.notes.complete_since() <= <uint64_t>max(0, since - SLACK_NS)
        cdef others_t *others = others_new(count) if count else NULL
        cdef process_t *process
        cdef int i
        for i in range(count):
            process = NULL if users[i].is_kernel else self._process(&users[i])
            if process != NULL and is_same_program(process, out.process):
                process_drop(process)
                continue
            alone = False
            # lookup_users() also returns who used the tuple last before `since`, as a socket is noted only once.
            if process != NULL and out.process != NULL and <int64_t>users[i].time < since - SLACK_NS:
                process_drop(process)
            elif process != NULL and others != NULL:
                others.at[others.count] = process
                others.count += 1
            else:
                process_drop(process)
        if others == NULL or others.count == 0:
            others_drop(others)
            return alone
        # Who else held the socket when the flow began says less.
        others_drop(out.others)
        out.others = others
        out.has |= OWNER_USERS
        return False

    cdef bint find_socket(self, uint64_t cookie, owner_t *out) noexcept nogil:
        cdef bpf_owner_t note
        if (self.notes.lookup_cookie(cookie, &note) != 1 or <int64_t>note.time > self.times.received_boot
                or note.is_kernel):
            return False
        self._fill(&note, out)
        return out.process != NULL
