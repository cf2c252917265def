from libc.stdint cimport int64_t, uint32_t, uint64_t
from nfct_fast.attribution.batch_times cimport batch_times_t
from nfct_fast.processes.process_event cimport process_id

from nfct_fast.attribution.cgroup_paths cimport CgroupPaths
from nfct_fast.events.flow cimport tuple_t
from nfct_fast.records.owner cimport owner_t
from nfct_fast.sockets.owners_find cimport owners_probe
from nfct_fast.sockets.socket_notes cimport SocketNotes, bpf_owner_t
from nfct_fast.processes.process cimport process_t
from nfct_fast.processes.proc_events cimport ProcEvents
from nfct_fast.processes.process_reader cimport ProcessReader
from nfct_fast.attribution.process_watch cimport ProcessWatch
from nfct_fast.processes.history cimport History

# The process behind a note, as it was when the note was written: cached for the many flows of one sender.
cdef struct sender_t:
    process_t *process       # the process, a reference; NULL: unused entry
    process_id id            # identity of the program
    uint64_t cgroup_id       # cgroup id as in the note, like uid, gid and comm
    uint64_t changes         # value of History.changes when the process was built
    uint64_t time            # time of the note, CLOCK_BOOTTIME ns; if id has no start, the entry is valid for it only
    uint32_t uid
    uint32_t gid
    char comm[16]

cdef enum:
    SENDERS = 256                        # entries of BpfLookup.senders
    NEVER = 0x7fffffffffffffff           # later than any CLOCK_BOOTTIME ns

# One caller at a time.
cdef class BpfLookup:
    cdef readonly SocketNotes notes
    cdef readonly History history
    cdef readonly str processes_missing  # why the kernel does not report processes, or not in full; None: it does
    cdef ProcessReader reader
    cdef ProcessWatch process_watch
    cdef ProcEvents proc_events          # the proc connector in place of the tracepoints; None: not used or unavailable
    cdef CgroupPaths cgroup_paths
    cdef uint64_t _lost                  # value of `lost` at close()
    cdef batch_times_t times             # times of the current batch
    cdef bint growth_requested           # process_watch was asked to make room for more notes
    cdef bint is_overwritten             # notes from the interval of this batch have been overwritten already
    cdef int searches                    # how many searches for earlier notes this batch may still make
    cdef int readings                    # how many processes this batch may still read from /proc
    cdef sender_t senders[SENDERS]       # cache of senders by pid
    # Process the kernel's process events.
    cdef void drain(self) noexcept nogil
    # Begin a batch; see Resolver.begin.
    cdef void begin(self, const batch_times_t *times) noexcept nogil

    # Find the owner of the socket with the tuple `end`, as seen from the socket, in the namespace with this cookie.
    # Return 1 if a note names it, 0 if not, -1 if several programs used the tuple and it is not known which one is
    # meant, -2 if the kernel itself did. probe: the prepared look-up of `end`, or NULL. accepted: a process counts as
    # having accepted the connection only if it did so after this time, CLOCK_BOOTTIME ns.
    cdef int find(self, const tuple_t *end, uint64_t netns, const owners_probe *probe, owner_t *out,
                  int64_t accepted=*) noexcept nogil
    # For a flow that is not new, add to the owner all other programs that used its tuple since `began`, ns since the
    # epoch (0: not known).
    cdef void add_users(self, const tuple_t *end, uint64_t netns, int64_t began, owner_t *out) noexcept nogil
    # The same for an owner that was found when the flow began, from `since` on, CLOCK_BOOTTIME ns. Return whether the
    # notes show that the tuple was used by the owner and nobody else.
    cdef bint merge_users(self, const tuple_t *end, uint64_t netns, int64_t since, owner_t *out) noexcept nogil
    # Convert ns since the epoch to CLOCK_BOOTTIME ns.
    cdef int64_t boot_time(self, int64_t time) noexcept nogil
    # The same for an event of this batch, but not earlier than the batch can be: the clock may have been set meanwhile.
    cdef int64_t event_boot_time(self, int64_t time) noexcept nogil
    # Find the owner of the socket with this cookie. Return whether there is a note about it.
    cdef bint find_socket(self, uint64_t cookie, owner_t *out) noexcept nogil
    cdef void _fill(self, const bpf_owner_t *note, owner_t *out) noexcept nogil
    cdef process_t *_process(self, const bpf_owner_t *note) noexcept nogil
    cdef process_t *_build(self, const bpf_owner_t *note) noexcept nogil
    cdef bint _find(self, const bpf_owner_t *note, process_t *facts, process_t **holder) noexcept nogil
