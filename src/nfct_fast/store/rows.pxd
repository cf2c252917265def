from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from nfct_fast.events.flow cimport tuple_t
from nfct_fast.processes.identity cimport Identity
from nfct_fast.replay.chunk_decoder cimport ChunkDecoder
from nfct_fast.replay.recording_format cimport SLOTS, chunk_t

# What is to be inserted into one file. The thread of a RowMaker fills it.
cdef class FileRows:
    cdef readonly int64_t hour           # of all these rows, in hours since the epoch
    cdef readonly int boot               # the row of meta that tells of the run
    cdef readonly list processes, flows, losses      # rows of the tables, with process.id
    cdef readonly Py_ssize_t most        # rows of `flows`; of more, flows are only counted
    cdef public uint64_t refused         # flows that were not taken as there were `most`
    cdef uint64_t serials[SLOTS]         # by slot of the recording: which process of RowMaker.serials the file has
    cdef uint32_t ids[SLOTS]             # its process.id
    cdef uint32_t next_id
    cdef uint32_t _process(self, RowMaker maker, uint32_t number) except? 0xffffffff

cdef class RowMaker:
    cdef int fd
    cdef readonly bytes beginning        # header and host chunk of the recording; None until they were read
    cdef readonly bint over              # the recording has ended, or is damaged
    cdef readonly list seen              # what is to be remembered of marks, once the flows so far are committed
    cdef Identity identity
    cdef ChunkDecoder chunks
    cdef uint8_t *buffer
    cdef size_t at, end                  # what is in it and was not taken
    cdef uint8_t *copy                   # a chunk that is changed
    cdef uint8_t *packed                 # and packed
    cdef uint64_t serial                 # processes so far
    cdef uint64_t serials[SLOTS]         # by slot: which of them it is
    cdef list process_rows               # by slot: its row of `process`, without id, boot and record
    cdef list process_chunks             # by slot: its record
    cdef dict protocols                  # family << 8 | protocol -> its name
    cdef bint _has_chunk(self, chunk_t *head) except -1
    cdef int _begin(self) except -1
    cdef int _check(self, int result) except -1
    cdef object _pack(self, const uint8_t *data, const chunk_t *head)
    cdef object _protocol(self, const tuple_t *tuple)
    cdef int _take_process(self, const uint8_t *data, const chunk_t *head) except -1
    cdef int _take_flow(self, const uint8_t *data, const chunk_t *head, FileRows rows) except -1
    cdef int _take_loss(self, const uint8_t *data, const chunk_t *head, FileRows rows) except -1
    cdef uint8_t *_number_owner(self, uint8_t *at, FileRows rows, uint32_t *id) except NULL
