"""What the kernel noted of who used a socket, joined with what is remembered of processes: names also the dead.

A note is believed only if it is older than the flow's event, and if no other process used the same tuple in the time
from which the event may be. Times are CLOCK_BOOTTIME, in ns.
"""
cimport cython
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset, strncmp
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from procfs_calls cimport CLOCK_BOOTTIME
from .owner cimport MATCH_BPF, OWNER_GID, OWNER_UID
from .owners_bpf cimport OWNERS_BOUND
from .process cimport PROCESS_COMM, process_drop, process_of_note, process_take
from .processcache cimport EXEC_SHOWN_EARLY, recall_t
from .procevents cimport ProcEvents
from .procfs cimport procfs_monotonic_ns

import os

cdef enum:
    # The proc connector's message of an execve comes within some 100 us; what is read of a process that was not known
    # counts EXEC_SHOWN_EARLY later. The rest is for the thread that hears the messages to be scheduled: with 2 ms, one
    # of three first flows of a process stayed without a command line on two busy cores.
    PATIENCE_NS = EXEC_SHOWN_EARLY + 50000000    # for a batch,
    CREDIT_NS = 2 * PATIENCE_NS                  # and for some in a row
    SLACK_NS = 100000000         # from the note to the event: the packet's way through the stack, on a loaded machine
    PATH_SIZE = 4096
    RECENT = 64
    SEARCHES = 64

_PROC_PID_INIT_INO = 0xEFFFFFFC       # the initial pid namespace: include/linux/proc_ns.h


cdef int64_t _now(int clock) noexcept nogil:
    cdef timespec now
    clock_gettime(clock, &now)
    return <int64_t>now.tv_sec * 1000000000 + now.tv_nsec


cdef bint same_name(const process_t *process, const bpf_owner_t *note) noexcept nogil:
    return strncmp(process.comm.at, note.comm, 16) == 0


@cython.final
@cython.auto_pickle(False)
cdef class Notes:
    """Has the kernel take notes from now on, until close(). flows: see OwnersBpf; settled: see ProcEvents.start.

    Needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, Linux 5.15 and cgroup v2; OSError says what is missing. `events` is
    None, and `events_missing` says why, where the proc connector is not to be had.
    """

    def __init__(self, ProcessCache processes not None, CgroupFs cgroups not None, int flows, settled=None):
        if os.stat("/proc/self/ns/pid").st_ino != _PROC_PID_INIT_INO:
            raise OSError("the kernel's notes have process ids of the initial pid namespace, and this is another")
        self.processes = processes
        self.cgroups = cgroups
        self.events_missing = None
        try:
            self.events = ProcEvents(processes)
            self.events.start(settled=settled)
        except OSError as error:
            self.events_missing = error.strerror or str(error)
        try:
            self.owners = OwnersBpf(flows=flows)
        except BaseException:
            self.close()
            raise

    def __dealloc__(self):
        cdef int i
        for i in range(RECENT):
            process_drop(self.recent[i].process)

    def close(self):
        """Let go of the programs and end the thread that hears of processes; closing twice is harmless."""
        if self.events is not None:
            self.events.close()
        if self.owners is not None:
            self.owners.close()

    cdef void begin(self, int64_t heard, int64_t emptied) noexcept nogil:
        """A batch begins; both times CLOCK_MONOTONIC ns."""
        cdef int64_t before, ahead
        cdef int i
        # Of three readings that with the least time between: one may have been interrupted for milliseconds.
        for i in range(3):
            before = _now(CLOCK_MONOTONIC)
            ahead = _now(CLOCK_BOOTTIME) - before
            self.ahead = ahead if i == 0 else min(self.ahead, ahead)
        self.heard = heard + self.ahead
        self.emptied = emptied + self.ahead
        self.searches = SEARCHES
        # No more than half of the time is spent waiting, or a flood of processes would fill the receive buffer.
        self.credit = min(CREDIT_NS, self.credit + (heard - self.began) // 2)
        self.began = heard
        self.patience = min(PATIENCE_NS, self.credit)
        if self.events is not None:
            self.events.glance()

    cdef process_t *_process(self, const bpf_owner_t *note, uint64_t first) noexcept nogil:
        """The process as it was when the note was taken; what the note itself says if nothing else is known.

        Where it has been another program since `first`, when it first used the tuple, nobody knows which of them it was.
        """
        cdef char path[PATH_SIZE]
        cdef char nameless[16]
        cdef ssize_t size
        cdef int64_t when = <int64_t>note.time - self.ahead
        cdef int64_t begun = <int64_t>first - self.ahead
        cdef recent_t *recent = &self.recent[note.tgid & (RECENT - 1)]
        cdef process_t *process
        cdef recall_t recall
        # One busy sender makes hundreds of flows a batch, and to be sure of a living process costs 10 us.
        if recent.pid == <int32_t>note.tgid and recent.since <= begun and when <= recent.to:
            return process_take(recent.process)
        process_drop(recent.process)
        recent.process = NULL
        recent.pid = 0
        process = self._recall(note, when, &recall)
        if process != NULL and process.has & PROCESS_COMM and recall.since <= begun:
            recent.process = process_take(process)
            recent.pid = note.tgid
            recent.since = recall.since
            recent.to = recall.to
            return process
        process_drop(process)      # it ended before its program could be read: the note knows more
        size = self.cgroups.path(note.cgroup_id, path, sizeof(path))
        if begun != when:
            nameless[0] = 0
            return process_of_note(note.tgid, note.uid, note.gid, nameless, path, max(0, size))
        return process_of_note(note.tgid, note.uid, note.gid, note.comm, path, max(0, size))

    cdef void _charge(self, int64_t since) noexcept nogil:
        cdef int64_t spent = procfs_monotonic_ns() - since
        self.patience -= spent
        self.credit -= spent

    cdef process_t *_await(self, const bpf_owner_t *note, int64_t when, recall_t *recall) noexcept nogil:
        cdef int64_t asked = procfs_monotonic_ns()
        if self.patience <= 0:
            return NULL
        process_drop(self.processes.at(note.tgid, when, self.patience))
        self._charge(asked)
        return self.processes.recall_span(note.tgid, when, recall)

    cdef process_t *_recall(self, const bpf_owner_t *note, int64_t when, recall_t *recall) noexcept nogil:
        cdef process_t *process = self.processes.recall_span(note.tgid, when, recall)
        cdef int64_t asked
        if process == NULL:
            process = self._await(note, when, recall)
        # With CLONE_PARENT (runc has it) the kernel tells of the parent that both share, and not of who made the child:
        # until it has been read itself, another name than the one noted is taken for a sign of that.
        if process != NULL and self.patience > 0 and (recall.aged or recall.inherited and not same_name(process, note)):
            asked = procfs_monotonic_ns()
            process_drop(process)
            process_drop(self.processes.get(note.tgid, 0))
            self._charge(asked)
            process = self.processes.recall_span(note.tgid, when, recall)
            if process == NULL:
                process = self._await(note, when, recall)
        if process != NULL and recall.inherited and not same_name(process, note):
            process_drop(process)
            process = NULL
        return process

    cdef void _fill(self, const bpf_owner_t *note, uint64_t first, owner_t *out) noexcept nogil:
        memset(out, 0, sizeof(out[0]))
        out.process = self._process(note, first)
        out.uid = note.uid
        out.gid = note.gid
        out.has = OWNER_UID | OWNER_GID
        out.cookie = note.cookie
        out.cgroup_id = note.cgroup_id
        out.match = MATCH_BPF

    cdef int name(self, const tuple_t *end, uint64_t netns, bint originator, owner_t *out) noexcept nogil:
        cdef bpf_owner_t note
        cdef uint64_t first
        cdef int found
        if self.owners.lookup(end, netns, &note) != 1:
            return False
        # Who bound a port has not therefore sent from it.
        if originator and note.match == OWNERS_BOUND:
            return False
        first = note.time
        # A tuple may have been used again since, or twice before it was heard of.
        if <int64_t>note.time > self.heard or note.again:
            found = -1
            if self.searches:
                self.searches -= 1
                found = self.owners.lookup_past(end, netns, max(0, self.emptied - SLACK_NS), self.heard, &note, &first)
            if found != 1 and <int64_t>note.time > self.heard:
                return False
            if found < 0:
                first = 0
        if note.other_time and <int64_t>note.other_time > self.emptied - SLACK_NS:
            return -1
        self._fill(&note, first, out)
        return out.process != NULL

    cdef bint name_socket(self, uint64_t cookie, owner_t *out) noexcept nogil:
        cdef bpf_owner_t note
        if self.owners.lookup_cookie(cookie, &note) != 1 or <int64_t>note.time > self.heard:
            return False
        self._fill(&note, note.time, out)
        return out.process != NULL
