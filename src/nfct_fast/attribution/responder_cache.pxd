"""Who serves a local port, remembered as long as nothing there changes."""
from libc.stdint cimport int64_t, uint32_t, uint64_t

from nfct_fast.events.flow cimport tuple_t
from nfct_fast.sockets.socket_holders cimport holder_t
from nfct_fast.attribution.bpf_lookup cimport BpfLookup
from nfct_fast.records.owner cimport owner_t

cdef enum:
    RESPONDERS = 4096

cdef enum:                   # what get() says
    RESPONDER_UNKNOWN = 0
    RESPONDER_KNOWN = 1
    RESPONDER_UNSURE = 2     # known, if the process still holds the socket: that is to be looked at

cdef struct responder_t:
    tuple_t end              # of it only family, protocol and the local side count
    uint64_t netns           # cookie; 0: nothing is here
    uint64_t turn            # what watching the socket said
    uint32_t changes         # of the port, see SocketNotes.port_changes
    uint32_t program         # the exec id of owner.process
    int64_t until            # CLOCK_MONOTONIC ns
    int64_t sure             # until then nothing has to be looked at
    owner_t owner            # with references of its own
    holder_t holder          # where its process has the socket
    int reason

# One caller at a time.
cdef class ResponderCache:
    cdef BpfLookup _notes
    cdef responder_t *_at
    cdef int64_t _paid       # CLOCK_MONOTONIC ns: before that nothing is asked again only for its age,
    cdef int64_t _looked     # and what is sure is not looked at
    cdef readonly uint64_t hits, misses

    cdef responder_t *_slot(self, const tuple_t *end, uint64_t netns) noexcept nogil
    # What is known of it, RESPONDER_*.
    cdef int find(self, const tuple_t *end, uint64_t netns, int64_t now, responder_t **out) noexcept nogil
    # What find() gave, as it was put, with references of the caller's own; the reason. False without memory.
    cdef bint take(self, const responder_t *found, owner_t *out) noexcept nogil
    # It was looked at: the process holds the socket.
    cdef void confirm(self, responder_t *found, int64_t now) noexcept nogil
    # `changes` was asked for before the owner was looked for, which ended at `now` and took `cost`; `owner` keeps its
    # references. The socket is to be looked at afterwards, and forgotten if it is not there.
    cdef responder_t *put(self, const tuple_t *end, uint64_t netns, uint32_t changes, int64_t now, int64_t cost,
                          const owner_t *owner, const holder_t *holder, int reason) noexcept nogil
    cdef void forget(self, responder_t *found) noexcept nogil
