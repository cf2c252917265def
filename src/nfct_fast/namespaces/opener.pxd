"""Open netlink sockets and tables of /proc/net in other network namespaces."""
from libc.stdint cimport uint32_t

from nfct_fast.kernel.helper_channel cimport HelperChannel, request_head_t

# A request to the helper process, sent together with the descriptor of a namespace.
cdef struct open_request_t:
    request_head_t head
    int protocol                   # NETLINK_*; -1: open a table; -2 and less: make a map of the notes (no namespace)
    char table[16]                 # its name in /proc/net; for a map the number of its entries in the first four bytes

# The helper's reply, sent together with the descriptor that it opened.
cdef struct open_reply_t:
    uint32_t number                # number of the request
    int rc                         # 0 or -errno

# Any thread may use it.
cdef class Opener:
    cdef int root                  # O_PATH descriptor of /proc; -1: the helper process has it
    cdef HelperChannel channel     # to the helper process that enters namespaces; None: the calling thread does
    cdef readonly bint stranded    # the calling thread could not return from another namespace, and must not continue

    # Open a netlink socket of this protocol in the namespace open as `ns`. Return a descriptor or -errno.
    cdef int netlink(self, int ns, int protocol) noexcept nogil
    # Open a table of the namespace's /proc/net for reading. Return a descriptor or -errno.
    cdef int table(self, int ns, const char *name) noexcept nogil
    # Make a larger map of the notes and put it into the outer map open as `outer`: see owners_larger_map().
    cdef int larger_map(self, int outer, unsigned int kind, uint32_t entries) noexcept nogil
    cdef int _fetch(self, int ns, open_request_t *request) noexcept nogil
