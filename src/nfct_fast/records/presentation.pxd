from libc.stdint cimport uint16_t
from nfct_fast.processes.cgroup cimport span_t
from nfct_fast.processes.identity cimport Identity
from nfct_fast.text.text_buffer cimport text_buffer_t

cdef class Presentation:
    cdef readonly Identity identity
    cdef uint16_t seed           # of Community IDs
    cdef bint has_community_id   # they are wanted where nobody asks for one by name
    cdef text_buffer_t host      # as JSON, the same in all lines
    cdef bytes _name
    cdef span_t name             # of the host
    cdef tuple saved(self, uids, gids)
