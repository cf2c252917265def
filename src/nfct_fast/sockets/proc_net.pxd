"""tuple -> socket by the tables in /proc/net, for where sock_diag is not to be had, and for ping and raw sockets."""
from libc.stdint cimport int64_t, uint64_t

from nfct_fast.sockets.diag_message cimport diag_match_t
from nfct_fast.events.flow cimport tuple_t
from nfct_fast.sockets.socket_info cimport socket_info_t
from nfct_fast.sockets.proc_net_table cimport table_t

# A table by its name: a descriptor, or -errno.
ctypedef int (*procnet_open_t)(void *context, const char *name) noexcept nogil

cdef struct procnet_t:
    procnet_open_t open
    void *context
    int64_t max_age
    int64_t min_interval
    table_t tables[10]
    uint64_t loads

cdef void procnet_init(procnet_t *net, procnet_open_t open, void *context, int64_t max_age,
                       int64_t min_interval) noexcept nogil
cdef void procnet_free(procnet_t *net) noexcept nogil    # the tables; it can go on being used

# `tuple` as the socket sees it: src is the local side. `when`: CLOCK_MONOTONIC ns of the event, 0 for now. 1 found,
# 0 no such socket, -EAGAIN the table is older than the event and may not be read again yet, or -errno of a table.
# Blocks for as long as reading a table takes.
cdef int procnet_lookup(procnet_t *net, const tuple_t *tuple, int64_t when, socket_info_t *out) noexcept nogil

# As diag_survey, and for raw sockets of the tuple's protocol too: up to room in out, how many there are returned.
cdef int procnet_survey(procnet_t *net, const tuple_t *tuple, int64_t when, diag_match_t *out, int room) noexcept nogil

# One caller at a time.
cdef class ProcNet:
    cdef procnet_t net
    cdef int dir
    cdef int lookup(self, const tuple_t *tuple, int64_t when, socket_info_t *out) noexcept nogil
