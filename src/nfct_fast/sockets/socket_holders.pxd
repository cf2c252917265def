"""Find the relatives that hold the same socket, and order the holders so that the one to name comes first."""
from libc.stdint cimport int32_t, uint8_t, uint64_t

cdef enum:
    HOLDERS_MAX = 32

ctypedef struct holder_t:
    int32_t pid
    int32_t fd               # the descriptor by which the process holds the socket
    uint64_t start           # start time of the process, clock ticks since boot; 0: not read, as it is the only holder

ctypedef struct holders_t:
    int32_t count            # valid entries of at[]
    int32_t denied           # processes that could not be scanned for lack of permission
    uint8_t stage            # stage of the search that found the first holder, STAGE_*
    uint8_t more             # there are more holders than at[] has room for
    uint8_t complete         # every process was scanned: nothing else holds the socket, except perhaps a denied process
    uint8_t exiting          # no holder was found, but some process was exiting and may have held the socket
    holder_t at[HOLDERS_MAX] # the holders, the process to name first, see FdScanner

# In all of these `root` is an O_PATH descriptor of the proc mount.

# Whether the process holds the socket under that descriptor.
cdef bint holds_socket(int root, int32_t pid, int32_t fd, uint64_t inode) noexcept nogil
# Add a holder unless it is listed already.
cdef void holder_add(holders_t *out, int32_t pid, int32_t fd) noexcept nogil
# Add one holder and the processes that share its socket by inheritance: parents, the likely pids, children.
cdef void holders_add_relatives(int root, uint64_t inode, int32_t pid, int32_t fd, const int32_t *likely_pids, int n,
                                holders_t *out) noexcept nogil
# Sort the holders so that the process to name comes first.
cdef void holders_order(int root, holders_t *out) noexcept nogil
