"""The ladder from a tuple to its owner: socket, then process, and at every rung the reason why it may end there.

A tuple is looked up as its socket sees it. The originator's socket has the original tuple, before SNAT; the
responder's has the reply tuple, after DNAT.
"""
cimport cython
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset

from netinet_in cimport IPPROTO_TCP

from .addresses cimport addresses_t
from .direction cimport DIRECTION_FORWARD, DIRECTION_IN, DIRECTION_LOCAL, DIRECTION_OUT, direction_of
from .flow cimport FLOW_REPLY, tuple_invert
from .owner cimport (
    MATCH_NONE, MATCH_SOCKET, REASON_AMBIGUOUS, REASON_ERROR, REASON_FORWARDED, REASON_KERNEL, REASON_NETNS,
    REASON_NONE, REASON_OFF, REASON_REMOTE, owner_drop,
)
from .process cimport process_drop, process_of_cgroup, process_take

NOTED_FLOWS = 300_000
ATTRIBUTIONS = ("auto", "bpf", "diag", "proc", "off")

cdef enum:
    PATHS = 256
    NOWHERE = 255


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
        self.inquiry = Inquiry(mode, proc, budget)
        self.directory = self.inquiry.directory
        self.directory.eager = True
        self.directory.wanted = True      # the containers there are have flows from the start
        self.directory.refresh()
        if mode in ("auto", "bpf"):
            try:
                self.notes = Notes(self.inquiry.processes, self.inquiry.cgroups, flows, settled)
            except OSError as error:
                if mode == "bpf":
                    raise
                self.missing = error.strerror or str(error)

    def __dealloc__(self):
        cdef int i
        for i in range(PATHS):
            process_drop(self.paths[i].process)

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

    cdef void begin(self, int64_t heard, int64_t emptied) noexcept nogil:
        if self.off:
            return
        if self.notes is not None:
            self.notes.begin(heard, emptied)
        self.inquiry.begin(heard, emptied)
        self.directory.refresh_home()     # on failure what was known stays known, and the next batch asks again

    cdef int _at(self, int index, const tuple_t *end, bint originator, owner_t *out) noexcept nogil:
        """The owner of the socket in member `index` that sees `end` as its tuple. out.match is 0 if there is none."""
        cdef uint64_t netns = self.directory.cookie(index)
        cdef owner_t noted
        cdef int reason, named = 0
        if self.notes is None or netns == 0:
            return self.inquiry.owner(index, end, originator, out)
        # Of a connection that was accepted /proc tells who accepted it, the kernel's note only who listened.
        if originator or end.proto != IPPROTO_TCP:
            named = self.notes.name(end, netns, originator, out)
        if named > 0:
            return REASON_NONE
        # The port was handed on: who has it now need not be who had it then.
        if named < 0 and originator:
            out.match = MATCH_SOCKET
            return REASON_AMBIGUOUS
        reason = self.inquiry.owner(index, end, originator, out)
        # The note is taken when the first packet leaves, which of connected UDP may be just after its event.
        if reason != REASON_NONE and reason != REASON_KERNEL and (
                self.notes.name(end, netns, originator, &noted) > 0
                or out.cookie and self.notes.name_socket(out.cookie, &noted)):
            owner_drop(out)
            out[0] = noted
            return REASON_NONE
        return reason

    cdef void _note_cgroup(self, owner_t *out) noexcept nogil:
        """Where only the cgroup is left of the owner: its path. An id is never given twice, so that none grows old."""
        cdef char path[4096]
        cdef cgroup_entry_t *entry = &self.paths[out.cgroup_id & (PATHS - 1)]
        cdef ssize_t size
        if entry.id != out.cgroup_id:
            size = self.inquiry.cgroups.path(out.cgroup_id, path, sizeof(path))
            if size < 0:
                return
            process_drop(entry.process)
            entry.process = process_of_cgroup(path, size)
            entry.id = out.cgroup_id if entry.process != NULL else 0
        out.cgroup = process_take(entry.process)

    cdef int _end(self, int home, const tuple_t *end, bint originator, bint search, bint local,
                  owner_t *out) noexcept nogil:
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
