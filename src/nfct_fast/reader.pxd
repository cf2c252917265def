from libc.stdint cimport int64_t, uint32_t, uint64_t
from .attribution cimport Attribution
from .flow cimport FlowDecoder, flow_t
from .pace cimport pace_t
from .record cimport record_t
from .ring cimport Ring
from .source cimport Source

cdef enum:
    SOURCES = 1024               # namespaces listened in at once: flow_t.netns is their index

cdef class Reader:
    cdef Ring ring
    cdef FlowDecoder decoder
    cdef readonly Attribution attribution
    cdef readonly list sources   # of Source or None, by index
    cdef void *borrowed[SOURCES] # the same, for use without the GIL
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
    cdef void _forget(self) noexcept nogil
    cdef int _watch(self, int fd, uint32_t number) except -1
    cdef int _take(self, Source source, int count) noexcept nogil
    cdef int _deliver(self, Source source, record_t *records, int count, int64_t since) noexcept nogil
    cdef int _read(self, Source source, int room) noexcept nogil
    cdef int _receive(self, Source source) noexcept nogil
    cdef int _serve(self, Source source) noexcept nogil
    cdef record_t *_room(self, int *room) noexcept nogil
    cdef int _deliver_missed(self, Source source, int count) noexcept nogil
    cdef int _recover(self, Source source) noexcept nogil
    cdef int _tell_lost(self, Source source, uint64_t dropped) noexcept nogil
    cdef int _drain(self, Source source) noexcept nogil
    cdef int _catch_up(self) noexcept nogil
    cdef void _each_table(self, bint seed) noexcept nogil
    cdef void _read_on(self) noexcept nogil
    cdef int _end(self) noexcept nogil
    cdef bint _is_wanted(self, const flow_t *flow) noexcept nogil
    cdef bint behind             # a source is to be recovered though nothing new came
    cdef bint reading            # some source's table is being read
    cdef pace_t pace
    cdef int _pump(self) noexcept nogil
    cdef int _wait_for_room(self) noexcept nogil
