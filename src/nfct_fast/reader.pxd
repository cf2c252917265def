from libc.stdint cimport int64_t, uint32_t, uint64_t
from .attribution cimport Attribution
from .flow cimport FlowDecoder, flow_t
from .netlink cimport NetlinkSocket
from .ring cimport Ring

cdef enum:
    SOURCES = 256                # namespaces listened in at once: flow_t.netns is their index

cdef class Reader:
    cdef Ring ring
    cdef FlowDecoder decoder
    cdef readonly Attribution attribution
    cdef list sources            # of NetlinkSocket or None, by index
    cdef void *sockets[SOURCES]  # the same, borrowed, for use without the GIL
    cdef unsigned char wanted4[256]
    cdef unsigned char wanted6[256]
    cdef int epoll
    cdef int wake
    cdef int rcvbuf_limit
    cdef bint stopping
    cdef readonly uint64_t events
    cdef readonly uint64_t filtered
    cdef readonly uint64_t named
    cdef readonly object failure
    cdef int _watch(self, int fd, uint32_t number) except -1
    cdef int _receive(self, int index) noexcept nogil
    cdef int _take(self, int index, int count) noexcept nogil
    cdef bint _is_wanted(self, const flow_t *flow) noexcept nogil
    cdef int64_t awake           # CLOCK_MONOTONIC ns of the last wake-up
    cdef void _pace(self) noexcept nogil
    cdef int _pump(self) noexcept nogil
    cdef int _wait_for_room(self) noexcept nogil
