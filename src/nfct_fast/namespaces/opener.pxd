"""Sockets and tables of other network namespaces than the thread's own."""
from libc.stdint cimport uint32_t

from nfct_fast.kernel.helper_channel cimport HelperChannel, request_head_t

cdef struct open_request_t:
    request_head_t head
    int protocol                   # -1: a table; -2, and less: a map of the notes, and no namespace
    char table[16]                 # its name; of a map the number of its entries in the first four bytes

cdef struct open_reply_t:
    uint32_t number
    int rc

# Any thread may use it.
cdef class Opener:
    cdef int root                  # of /proc
    cdef HelperChannel channel           # to the process that enters; None: the thread does
    cdef readonly bint stranded    # it could not come back, and must not go on

    # A netlink socket of this protocol in the namespace open as `ns`: a descriptor or -errno.
    cdef int netlink(self, int ns, int protocol) noexcept nogil
    # A table of its /proc/net, open for reading: a descriptor or -errno.
    cdef int table(self, int ns, const char *name) noexcept nogil
    # A larger map of the notes, put into the one open as `outer`: see owners_larger_map().
    cdef int larger_map(self, int outer, unsigned int kind, uint32_t entries) noexcept nogil
    cdef int _fetch(self, int ns, open_request_t *request) noexcept nogil
