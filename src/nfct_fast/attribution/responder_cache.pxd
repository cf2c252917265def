"""Cache which process serves a local port, for as long as nothing changes there."""
from libc.stdint cimport int64_t, uint32_t, uint64_t

from nfct_fast.events.flow cimport tuple_t
from nfct_fast.sockets.socket_holders cimport holder_t
from nfct_fast.attribution.bpf_lookup cimport BpfLookup
from nfct_fast.records.owner cimport owner_t

cdef enum:
    RESPONDERS = 4096        # entries

cdef enum:                   # what ResponderCache.find() returns
    RESPONDER_UNKNOWN = 0
    RESPONDER_KNOWN = 1
    RESPONDER_UNSURE = 2     # known, provided that the process still holds the socket, which the caller has to check

cdef struct responder_t:
    tuple_t end              # local end; only family, protocol, local address and port are used
    uint64_t netns           # cookie of the network namespace; 0: unused entry
    uint64_t watch_id        # what SocketNotes.watch() returned for the socket
    uint32_t changes         # value of SocketNotes.port_changes() of the port when the owner was looked up
    uint32_t exec_id         # of the program that owner.process ran
    int64_t expires_at       # CLOCK_MONOTONIC ns at which the entry expires
    int64_t trusted_until    # CLOCK_MONOTONIC ns up to which the process counts as holding the socket without a check
    owner_t owner            # with its own references
    holder_t holder          # the process, and by which descriptor it holds the socket
    int reason               # why owner has no process, or REASON_NONE

# One caller at a time.
cdef class ResponderCache:
    cdef BpfLookup _bpf_lookup
    cdef responder_t *_at            # RESPONDERS entries
    cdef int64_t _refresh_after      # CLOCK_MONOTONIC ns up to which an entry is used although it has expired
    cdef int64_t _recheck_after      # CLOCK_MONOTONIC ns up to which an entry is trusted for OVERDUE_NS more
    cdef readonly uint64_t hits, misses

    cdef responder_t *_slot(self, const tuple_t *end, uint64_t netns) noexcept nogil
    # Find the entry of a local end. Return RESPONDER_*.
    cdef int find(self, const tuple_t *end, uint64_t netns, int64_t now, responder_t **out) noexcept nogil
    # Report that the process was checked and holds the socket.
    cdef void confirm(self, responder_t *found, int64_t now) noexcept nogil
    # Add an entry. `changes` must have been read before the owner was looked up; that ended at `now` and took `cost`
    # ns. The caller keeps its references to `owner`, has to check afterwards that the socket still exists, and to call
    # forget() if not. NULL: the entry was not added.
    cdef responder_t *put(self, const tuple_t *end, uint64_t netns, uint32_t changes, int64_t now, int64_t cost,
                          const owner_t *owner, const holder_t *holder, int reason) noexcept nogil
    cdef void forget(self, responder_t *found) noexcept nogil
