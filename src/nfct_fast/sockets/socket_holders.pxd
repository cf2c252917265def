"""The processes that hold one socket, and which of them to name."""
from libc.stdint cimport int32_t, uint8_t, uint64_t

cdef enum:
    HOLDERS_MAX = 32

ctypedef struct holder_t:
    int32_t pid
    int32_t fd
    uint64_t start           # clock ticks after boot; 0 if it was not needed to order them

ctypedef struct holders_t:
    int32_t count            # in at[]
    int32_t denied           # processes that could not be looked into
    uint8_t rung
    uint8_t more             # there are more than fit
    uint8_t complete         # every process was looked at: no other holds it, but for the denied
    uint8_t ending           # nobody has it, but some process was amid its exit and may have had it
    holder_t at[HOLDERS_MAX] # the first is the one to name: see FdScanner

# `root` is an O_PATH handle of the proc mount.
cdef bint socket_held(int root, int32_t pid, int32_t fd, uint64_t inode) noexcept nogil
cdef void holder_add(holders_t *out, int32_t pid, int32_t fd) noexcept nogil
# Adds those that have the socket by inheritance, given one that has it: parents, suspects, children.
cdef void holders_family(int root, uint64_t inode, int32_t pid, int32_t fd, const int32_t *candidates, int n,
                         holders_t *out) noexcept nogil
cdef void holders_order(int root, holders_t *out) noexcept nogil    # the one to name comes first
