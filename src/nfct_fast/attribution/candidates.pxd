"""Determine which of a port's sockets a flow can belong to."""
from nfct_fast.events.flow cimport tuple_t
from nfct_fast.sockets.diag_message cimport diag_match_t
from nfct_fast.sockets.socket_info cimport socket_info_t

# Keep in `found` those of `count` sockets that match the local end of `end` as well as `own` does, each once. Return
# how many they are. *own_found: whether `own` is among them; if not, all are kept. originator: `end` sent first.
cdef int candidates_keep(diag_match_t *found, int count, const socket_info_t *own, const tuple_t *end, bint originator,
                         bint *own_found) noexcept nogil
