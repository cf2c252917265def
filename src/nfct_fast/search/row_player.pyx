"""Make flows of rows of a store: those that a filter wants, by the code that plays recordings, but without threads.

A few rows of each of many files are wanted at once, for which a Conntrack would be too much.
"""
cimport cython
from libc.stdint cimport uint32_t
from libc.string cimport memcpy
from sys_socket cimport AF_INET, AF_INET6
from nfct_fast.filters.flow_filter cimport FlowFilter
from nfct_fast.records.presentation cimport Presentation
from nfct_fast.records.record cimport flow_object, record_drop, record_t
from nfct_fast.replay.chunk_decoder cimport ChunkDecoder
from nfct_fast.replay.recording_format cimport (
    CHUNK_FLOW, CHUNK_HOST, CHUNK_MAX, CHUNK_PROCESS, chunk_step, chunk_t,
)

import os

from nfct_fast.replay.recording_error import RecordingError
from nfct_fast.replay.recording_host import identity_of

cdef enum:
    HEADER = 16                  # bytes before the first chunk
    HOSTS = 1000                 # kept, lest a forged table fills the memory with them


@cython.final
@cython.auto_pickle(False)
cdef class RowPlayer:
    """Plays what store.rebuild.rebuild() makes.

    Args:
        flow_filter: which flows are wanted, a FlowFilter.
        community_id: the seed of Community IDs, as of Conntrack.
    """
    cdef FlowFilter flow_filter
    cdef object seed
    cdef dict presentations      # by the host chunk

    def __cinit__(self, FlowFilter flow_filter not None, community_id=None):
        self.flow_filter = flow_filter
        self.seed = community_id
        self.presentations = {}
        Presentation(community_id)      # ValueError here rather than later

    def play(self, int fd) -> list:
        """Return the wanted flows of a descriptor, which stays the caller's. Raises as play_bytes(), and OSError."""
        size = os.fstat(fd).st_size
        data = os.pread(fd, size, 0)
        if len(data) != size:
            raise RecordingError("rows of a store that were cut off")
        return self.play_bytes(data)

    def play_bytes(self, bytes recording not None) -> list:
        """Return the wanted flows of a recording, whose flows are told by the last host before them. RecordingError."""
        cdef const char *data = recording
        cdef size_t at = HEADER
        cdef size_t end = len(recording)
        cdef ChunkDecoder chunks = ChunkDecoder()
        cdef Presentation presentation = None
        cdef chunk_t head
        cdef record_t record
        cdef uint32_t slot = 0
        cdef int result = 0
        cdef list flows = []
        while at + sizeof(head) <= end and result == 0:
            memcpy(&head, data + at, sizeof(head))
            if head.size > CHUNK_MAX or at + chunk_step(&head) > end:
                raise RecordingError("damaged: a record of another size")
            if head.type == CHUNK_HOST:
                presentation = self._presentation(recording[at + sizeof(head):at + sizeof(head) + head.size])
            elif head.type == CHUNK_PROCESS:
                result = chunks.take_process(data + at + sizeof(head), head.size, &slot)
            elif head.type == CHUNK_FLOW:
                result = chunks.take_flow(data + at + sizeof(head), head.size, &record)
                if result == 0 and self._is_wanted(&record):      # a flow before any host would be this one's
                    if presentation is None:
                        record_drop(&record)
                        raise RecordingError("damaged: a flow of no host")
                    flows.append(flow_object(&record, presentation))
            at += chunk_step(&head)
        if chunks.problem != NULL:
            raise RecordingError(chunks.problem.decode())
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return flows

    cdef Presentation _presentation(self, bytes about):
        presentation = self.presentations.get(about)
        if presentation is None:
            if len(self.presentations) >= HOSTS:
                self.presentations.clear()
            presentation = self.presentations[about] = Presentation(self.seed, identity_of(about, "rows of a store"))
        return presentation

    cdef bint _is_wanted(self, record_t *record) noexcept nogil:
        """Whether a flow is wanted; drops its references if not."""
        if ((record.flow.orig.family != AF_INET and record.flow.orig.family != AF_INET6)
                or not self.flow_filter.may_be_wanted(&record.flow)):
            record_drop(record)
            return False
        return self.flow_filter.keep_wanted(record, 1) == 1      # which has dropped it otherwise
