"""Which of a port's sockets can be the one that is meant."""
from nfct_fast.events.flow cimport tuple_t
from nfct_fast.sockets.diag_message cimport diag_match_t
from nfct_fast.sockets.socket_info cimport socket_info_t

# Keep those of `count` sockets that are as good an answer as `own` for the local end of `end`, each once: how many. All of them
# if `own` is not among them; then *there is False. originator: the end that sent first.
cdef int candidates_keep(diag_match_t *found, int count, const socket_info_t *own, const tuple_t *end, bint originator,
                         bint *there) noexcept nogil
