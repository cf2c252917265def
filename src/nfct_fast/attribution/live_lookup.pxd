"""Find the owner of a tuple by querying the kernel's present state."""
from libc.stdint cimport int64_t, uint64_t
from nfct_fast.attribution.batch_times cimport batch_times_t
from nfct_fast.sockets.diag_message cimport diag_match_t
from nfct_fast.namespaces.namespace_index cimport NamespaceIndex
from nfct_fast.events.flow cimport tuple_t
from nfct_fast.sockets.socket_holders cimport holder_t, holders_t
from nfct_fast.records.owner cimport owner_t
from nfct_fast.processes.process_cache cimport ProcessCache
from nfct_fast.processes.process_reader cimport ProcessReader
from nfct_fast.sockets.holder_search cimport HolderSearch
from nfct_fast.sockets.socket_info cimport socket_info_t

# A socket that was found to share its port with no other.
cdef struct exclusive_t:
    uint64_t inode           # inode of the socket; 0: unused entry
    int64_t at               # CLOCK_MONOTONIC ns just before the check
    tuple_t end              # tuple as seen from the socket; only the local end is used
    int index                # index of the namespace

# One caller at a time.
cdef class LiveLookup:
    cdef bint diag[3]                # whether sock_diag answers for TCP, UDP, UDP-Lite; if not, /proc/net is read
    cdef NamespaceIndex namespaces
    cdef HolderSearch holder_search
    cdef ProcessReader reader
    cdef ProcessCache processes
    cdef batch_times_t times         # times of the current batch
    cdef bint late                   # the reader was held up: flows of this batch may have begun long before
    cdef exclusive_t exclusives[64]  # cache by local port
    cdef bint port_is_exclusive      # the caller knows that the port of the next end has exactly one socket
    cdef holder_t last_holder        # the process named last, and by which descriptor it holds the socket

    # Begin a batch; see Resolver.begin.
    cdef void begin(self, const batch_times_t *times) noexcept nogil

    # Find the owner of the socket with the tuple `end`, as seen from the socket, in the namespace at `index`.
    # originator: this end sent first. Return REASON_NONE, or why `out` has no process. out.match is MATCH_NONE if there
    # is no such socket.
    cdef int owner(self, int index, const tuple_t *end, bint originator, owner_t *out) noexcept nogil

    # The same for the listener that would accept a connection to `end`.
    cdef int listener(self, int index, const tuple_t *end, owner_t *out) noexcept nogil
    # Whether a process that was found to hold a socket still does. Takes one readlink.
    cdef bint holds(self, const holder_t *holder, uint64_t inode) noexcept nogil
    # Whether the socket that was found last shares its port with no other.
    cdef bint is_exclusive(self, int index, const tuple_t *end, uint64_t inode) noexcept nogil
    cdef int _of_socket(self, int index, const tuple_t *end, bint originator, socket_info_t *sock,
                        owner_t *out) noexcept nogil
    cdef int _socket(self, int index, const tuple_t *end, bint listener, int64_t when,
                     socket_info_t *out) noexcept nogil
    cdef int _candidates(self, int index, const tuple_t *end, bint originator, socket_info_t *own, diag_match_t *out,
                         int room) noexcept nogil
    cdef int _holders(self, const socket_info_t *sock, holders_t *out) noexcept nogil
    # check_start: a process that started after the flow is not its owner.
    cdef int _common_holders(self, const diag_match_t *candidates, int count, bint check_start,
                             owner_t *out) noexcept nogil
    cdef int _set_owners(self, const holders_t *holders, uint64_t inode, uint64_t search_start, bint check_start,
                         owner_t *out) noexcept nogil
    cdef bint _same_cgroup(self, const diag_match_t *candidates, int count) noexcept nogil
