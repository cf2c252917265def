from libc.stdint cimport uint16_t, uint32_t, uint64_t
from posix_pthread cimport pthread_mutex_t
from stdatomic cimport atomic_bool, atomic_int
from nfct_fast.kernel.wakeup cimport Wakeup
from nfct_fast.processes.process cimport process_t
from nfct_fast.processes.redactor cimport Redactor
from nfct_fast.records.owner cimport owner_t
from nfct_fast.records.presentation cimport Presentation
from nfct_fast.records.record cimport loss_t, record_t
from nfct_fast.replay.recording_format cimport SLOTS
from nfct_fast.text.text_buffer cimport text_buffer_t

cdef enum:
    HINTS = 4 * SLOTS
    OTHERS_MAX = 255             # further processes of an owner that are recorded; there are 31 at most
    OWNER_SLOTS = 2 + OTHERS_MAX

# One thread calls add(), add_loss() and commit(), another one runs run(). The mutex protects what both use.
cdef class Recorder:
    cdef readonly str path
    cdef str what                    # what an operator calls it
    cdef bint to_store               # the file is a pipe, whose other end is heard of otherwise
    cdef int fd                      # the writing thread's; -1: closed
    cdef object notices
    cdef Redactor redactor           # the writing thread's; or None
    cdef readonly object finished    # a lock that run() releases at its end
    # The thread that adds.
    cdef text_buffer_t chunks        # of this batch, until commit()
    cdef size_t complete             # bytes of whole chunks in it: less than all once memory ran out
    cdef uint64_t flows              # flows in `chunks`
    cdef uint64_t losses             # loss chunks in it
    cdef uint64_t told               # of `missing`, what `chunks` tells of
    cdef uint64_t missing            # events that could not be recorded, of which no chunk tells yet
    cdef process_t *slots[SLOTS]     # a reference each, or NULL: what the file has in each slot
    cdef uint16_t hints[HINTS]       # by the hash of a process_t's address: the slot it may be in
    cdef uint32_t next_slot
    cdef uint32_t placed[2][OWNER_SLOTS]     # the slots of owner and peer: of its process, its cgroup, its others
    # Both threads.
    cdef pthread_mutex_t mutex
    cdef char *buffers[2]            # BUFFER bytes each: one is filled while the other one is written
    cdef int filling                 # number of the one that is filled
    cdef size_t filled               # bytes in it
    cdef uint64_t filled_flows       # flows in it
    cdef uint64_t filled_losses
    cdef atomic_int failure          # errno of the write that ended the recording; 0: none
    cdef uint64_t writing_flows      # flows in the other one
    cdef atomic_bool stopping        # nothing will be added any more
    cdef bint given_up               # finish() waited long enough, and counted what is not written
    cdef Wakeup wakeup               # of the writing thread
    cdef uint64_t unrecorded_count
    # The writing thread.
    cdef text_buffer_t out           # what is about to be written
    cdef uint64_t written_flows
    cdef uint64_t written_losses
    cdef bint complained
    cdef bint started
    # Add one flow with its owners. message: the datagram it came in; NULL if it was read from a table.
    cdef void add(self, const record_t *record, const void *message, size_t length) noexcept nogil
    cdef void add_loss(self, const loss_t *loss) noexcept nogil
    # Hand what was added to the writing thread, or count it if there is no room.
    cdef void commit(self) noexcept nogil
    cdef void _tell_of_missing(self) noexcept nogil
    cdef uint32_t _slot(self, process_t *process) noexcept nogil
    cdef void _put_owner(self, const owner_t *owner, const uint32_t *placed) noexcept nogil
    cdef void _place(self, const owner_t *owner, uint32_t *placed) noexcept nogil
    cdef int _write_end(self) noexcept nogil
    cdef int _write_chunks(self, const char *data, size_t length) noexcept nogil
    cdef void _put_process(self, uint32_t slot, process_t *process) noexcept nogil
    cdef void _discard(self) noexcept nogil
    # Add what is to be remembered of the marks of these flows: a CHUNK_SEEN.
    cdef void add_seen(self, const char *content, size_t length) noexcept nogil
    cdef void _complete(self) noexcept nogil
    cdef void _forget(self) noexcept nogil
    cdef int _write_next(self) noexcept nogil
    cdef int _wait_for_store(self) noexcept nogil
    cdef int _write(self, const char *data, size_t length) noexcept nogil
