"""Find the socket of a tuple in the tables of /proc/net: for ping and raw sockets, and where sock_diag is missing."""
from libc.stdint cimport int64_t, uint64_t

from nfct_fast.sockets.diag_message cimport diag_match_t
from nfct_fast.events.flow cimport tuple_t
from nfct_fast.sockets.socket_info cimport socket_info_t
from nfct_fast.sockets.proc_net_table cimport table_t

# Open a table by its name. Return a descriptor, or -errno.
ctypedef int (*procnet_open_t)(void *context, const char *name) noexcept nogil

cdef struct procnet_t:
    procnet_open_t open
    void *context            # the first argument of open
    int64_t max_age          # ns for which an exact match in a table that was already read is trusted
    int64_t min_interval     # ns between two readings of one table
    table_t tables[10]       # tcp, tcp6, udp, udp6, udplite, udplite6, icmp, icmp6, raw, raw6
    uint64_t loads           # tables read so far

cdef void procnet_init(procnet_t *net, procnet_open_t open, void *context, int64_t max_age,
                       int64_t min_interval) noexcept nogil
cdef void procnet_free(procnet_t *net) noexcept nogil    # free the tables; `net` remains usable

# Find the socket of a tuple. tuple: as seen from the socket, so src is the local end. when: CLOCK_MONOTONIC ns of the
# event, 0 for now. Return 1 if there is one, 0 if not, -EAGAIN if the table is older than the event and min_interval
# does not allow reading it again yet, or the -errno of reading a table. Blocks for as long as that takes.
cdef int procnet_lookup(procnet_t *net, const tuple_t *tuple, int64_t when, socket_info_t *out) noexcept nogil

# Find every socket to which the tuple may belong, as diag_survey() does, including raw sockets of the tuple's protocol.
# Write up to `room` of them to `out` and return how many there are, or -errno.
cdef int procnet_survey(procnet_t *net, const tuple_t *tuple, int64_t when, diag_match_t *out, int room) noexcept nogil

# One caller at a time.
cdef class ProcNet:
    cdef procnet_t net
    cdef int dir             # O_PATH descriptor of the directory
    cdef int lookup(self, const tuple_t *tuple, int64_t when, socket_info_t *out) noexcept nogil
