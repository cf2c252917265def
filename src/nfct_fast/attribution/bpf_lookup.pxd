from libc.stdint cimport int64_t, uint32_t, uint64_t
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

# Who sent, as it was then: built once for the many flows of one sender.
cdef struct sender_t:
    process_t *process
    process_id id
    uint64_t cgroup_id
    uint64_t changes         # Programs.changes when it was built
    int64_t time             # of the note; where there are no identities it counts for this one alone
    uint32_t uid
    uint32_t gid
    char comm[16]

cdef enum:
    SENDERS = 256
    NEVER = 0x7fffffffffffffff

# One caller at a time.
cdef class BpfLookup:
    cdef readonly SocketNotes owners
    cdef readonly History programs
    cdef readonly str processes_missing  # why programs are known only in part; else None
    cdef ProcessReader reader
    cdef ProcessWatch watch
    cdef ProcEvents events               # where the kernel does not tell of programs otherwise; None: it does, or not even so
    cdef CgroupPaths paths
    cdef uint64_t _lost
    cdef int64_t received_at                   # CLOCK_BOOTTIME ns: the batch was received then,
    cdef int64_t drained_at                 # and holds nothing that happened before this
    cdef int64_t ahead                   # what CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC
    cdef bint asked                      # for more room for notes
    cdef int searches                    # in the past that this batch may still make,
    cdef int readings                    # and programs in /proc
    cdef sender_t senders[SENDERS]       # by pid
    cdef void drain(self) noexcept nogil
    cdef void begin(self, int64_t received_at, int64_t drained_at) noexcept nogil

    # The owner of a socket that sees `end` as its tuple, in the namespace with this cookie: 1 if it was noted, and is named
    # in `out`; 0; -1 if several programs used it and nobody can tell which one is meant; -2 if it was the kernel itself.
    # probe: NULL, or `end` prepared. accepted: who accepted it since then counts, too; CLOCK_BOOTTIME ns.
    cdef int name(self, const tuple_t *end, uint64_t netns, const owners_probe *probe, owner_t *out,
                  int64_t accepted=*) noexcept nogil
    # Of a flow that goes on or has ended: adds to `out` who else used the tuple since it began, ns since the epoch; 0: not known.
    cdef void name_users(self, const tuple_t *end, uint64_t netns, int64_t began, owner_t *out) noexcept nogil
    cdef int64_t boot_time(self, int64_t time) noexcept nogil    # of ns since the epoch
    # The same as name(), of the socket with this cookie.
    cdef bint name_socket(self, uint64_t cookie, owner_t *out) noexcept nogil
    cdef void _fill(self, const bpf_owner_t *note, owner_t *out) noexcept nogil
    cdef process_t *_process(self, const bpf_owner_t *note) noexcept nogil
    cdef process_t *_build(self, const bpf_owner_t *note) noexcept nogil
    cdef bint _find(self, const bpf_owner_t *note, process_t *facts, process_t **holder) noexcept nogil
