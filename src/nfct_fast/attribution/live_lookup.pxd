"""Who has a tuple, asked of the kernel as it is now."""
from libc.stdint cimport int64_t, uint64_t
from nfct_fast.sockets.diag_message cimport diag_match_t
from nfct_fast.namespaces.namespace_index cimport NamespaceIndex
from nfct_fast.events.flow cimport tuple_t
from nfct_fast.sockets.socket_holders cimport holder_t, holders_t
from nfct_fast.records.owner cimport owner_t
from nfct_fast.processes.process_cache cimport ProcessCache
from nfct_fast.processes.process_reader cimport ProcessReader
from nfct_fast.sockets.holder_search cimport HolderSearch
from nfct_fast.sockets.socket_info cimport socket_info_t

# A socket that had its port to itself.
cdef struct exclusive_t:
    uint64_t inode
    int64_t at               # CLOCK_MONOTONIC ns, before it was looked at
    tuple_t end
    int index

# One caller at a time.
cdef class LiveLookup:
    cdef bint diag[3]              # sock_diag answers for TCP, UDP, UDP-Lite; else the tables in /proc/net
    cdef NamespaceIndex directory
    cdef HolderSearch holder_search
    cdef ProcessReader reader
    cdef ProcessCache processes
    cdef int64_t received_at             # CLOCK_MONOTONIC ns when the batch was received
    cdef uint64_t received_ticks      # the same as process_t.start counts
    cdef bint late                 # its flows may have begun long before
    cdef exclusive_t alone[64]
    cdef bint sole                 # what is asked for next has one socket on its port, and no other
    cdef holder_t named            # the process that was named last, and by which fd it holds the socket

    # A batch begins that was received at `received_at` and began after `drained_at`, CLOCK_MONOTONIC ns: nothing older than `received_at`
    # will do.
    cdef void begin(self, int64_t received_at, int64_t drained_at) noexcept nogil
    # The owner of the socket in member `index` of the directory that sees `end` as its tuple. The reason why `out` has
    # no process, REASON_NONE if it has; out.match is MATCH_NONE if there is no such socket.
    cdef int owner(self, int index, const tuple_t *end, bint originator, owner_t *out) noexcept nogil

    # The same of the listener that would take a connection to `end`.
    cdef int listener(self, int index, const tuple_t *end, owner_t *out) noexcept nogil
    # Whether a process that was found to hold a socket (`named`) still does; one readlink.
    cdef bint holds(self, const holder_t *holder, uint64_t inode) noexcept nogil
    # Whether the socket that was just found shares its port with no other.
    cdef bint is_alone(self, int index, const tuple_t *end, uint64_t inode) noexcept nogil
    cdef int _of_socket(self, int index, const tuple_t *end, bint originator, socket_info_t *sock, owner_t *out) noexcept nogil
    cdef int _socket(self, int index, const tuple_t *end, bint listener, int64_t when, socket_info_t *out) noexcept nogil
    cdef int _sharers(self, int index, const tuple_t *end, bint originator, socket_info_t *own, diag_match_t *out,
                      int room) noexcept nogil
    cdef int _held(self, const socket_info_t *sock, holders_t *out) noexcept nogil
    # timed: what is younger than the flow is not its owner.
    cdef int _shared(self, const diag_match_t *candidates, int count, bint timed, owner_t *out) noexcept nogil
    cdef int _adopt(self, const holders_t *holders, uint64_t inode, uint64_t looked, bint timed,
                    owner_t *out) noexcept nogil
    cdef bint _same_cgroup(self, const diag_match_t *candidates, int count) noexcept nogil
