"""The ladder from a tuple to its owner."""
from libc.stdint cimport int64_t, uint16_t, uint64_t
from .cgroupfs cimport CgroupFs
from .diagmsg cimport diag_match_t
from .directory cimport Directory
from .flow cimport tuple_t
from .owner cimport owner_t
from .notes cimport Notes
from .process cimport process_t
from .processcache cimport ProcessCache
from .holders cimport holders_t
from .procfd cimport FdScanner
from .record cimport record_t
from .sock cimport sock_t

# A socket that had its port to itself.
cdef struct alone_t:
    uint64_t inode
    int64_t at               # CLOCK_MONOTONIC ns, before it was looked at
    tuple_t end
    int index

cdef struct cgroup_entry_t:
    uint64_t id
    process_t *process       # see owner_t.cgroup

# One caller at a time.
cdef class Attribution:
    cdef readonly str mode
    cdef bint off
    cdef int unasked               # homes taken while off
    cdef bint diag[3]              # sock_diag answers for TCP, UDP, UDP-Lite; else the tables in /proc/net
    cdef Directory directory
    cdef FdScanner scanner
    cdef ProcessCache processes
    cdef CgroupFs cgroups
    cdef readonly Notes notes      # None: the kernel takes none
    cdef readonly str missing      # why not, where it was wanted; else None
    cdef int64_t heard             # CLOCK_MONOTONIC ns when the batch was received
    cdef uint64_t heard_ticks      # the same as process_t.start counts
    cdef bint late                 # its flows may have begun long before
    cdef alone_t alone[64]
    cdef cgroup_entry_t paths[256]

    # A batch begins that was received at `heard`, CLOCK_MONOTONIC ns: nothing older than that will do.
    # `emptied`: the last time, on the same clock, that every event before it had been received.
    cdef void begin(self, int64_t heard, int64_t emptied) noexcept nogil
    # Fills in direction, owner and peer. record.flow.netns is what add_home gave for the namespace it was heard in.
    cdef void foresee(self, const record_t *record) noexcept nogil
    cdef void resolve(self, record_t *record) noexcept nogil

    cdef int _fill(self, record_t *record, proto, src, sport, dst, dport, reply, netns, icmp_id) except -1

    # The reason why `out` has no process (REASON_NONE: it has), or NOWHERE: no namespace has the address.
    cdef int _end(self, int home, const tuple_t *end, bint originator, bint search, bint local,
                  owner_t *out) noexcept nogil
    cdef int _at(self, int index, const tuple_t *end, bint originator, owner_t *out) noexcept nogil
    cdef int _asked(self, int index, const tuple_t *end, bint originator, owner_t *out) noexcept nogil
    cdef int _socket(self, int index, const tuple_t *end, bint listener, int64_t when, sock_t *out) noexcept nogil
    cdef int _sharers(self, int index, const tuple_t *end, bint originator, sock_t *own, diag_match_t *out,
                      int room) noexcept nogil
    cdef int _held(self, const sock_t *sock, holders_t *out) noexcept nogil
    cdef int _shared(self, const diag_match_t *sharers, int count, bint originator, bint stream, owner_t *out) noexcept nogil
    cdef int _adopt(self, const holders_t *holders, uint64_t inode, uint64_t looked, bint timed, owner_t *out) noexcept nogil
    cdef bint _same_cgroup(self, const diag_match_t *sharers, int count) noexcept nogil
    cdef void _note_cgroup(self, owner_t *out) noexcept nogil
