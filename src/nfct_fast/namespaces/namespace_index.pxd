"""Find which network namespace of this host has an address, and look up sockets there."""
from libc.stdint cimport int64_t, uint8_t, uint64_t

from nfct_fast.namespaces.local_routes cimport local_routes_t
from nfct_fast.namespaces.namespace_map cimport namespace_map_t
from nfct_fast.sockets.diag_message cimport diag_match_t
from nfct_fast.namespaces.opener cimport Opener
from nfct_fast.events.flow cimport tuple_t
from nfct_fast.namespaces.discovery cimport Discovery
from nfct_fast.sockets.socket_info cimport socket_info_t

# A negative cache entry: no namespace had this address when a flow last looked for it.
cdef struct unknown_address_t:
    uint8_t addr[16]
    uint64_t until          # CLOCK_MONOTONIC ns before which there is no search for the address

# A cached result: where the routes of a monitored namespace to an address lead.
cdef struct cached_route_t:
    uint8_t addr[16]
    uint64_t until          # CLOCK_MONOTONIC ns at which the entry expires
    int monitored           # number of the namespace in which the routes begin
    int index               # index of the namespace in which the routes end; -1: not certain

# A cached result: whether a monitored namespace has this address in the current map.
cdef struct is_local_t:
    uint8_t addr[16]
    uint64_t generation     # NamespaceIndex.generation of the map in which that was found
    int monitored           # number of the namespace
    uint8_t family          # AF_INET or AF_INET6
    bint yes

# A namespace is given by its index in the current map, which is valid until the next look_again() or
# refresh_monitored(). The number of a monitored namespace is its index in every map. Look-ups and refresh() are for one
# thread.
cdef class NamespaceIndex:
    cdef object __weakref__
    cdef readonly Discovery discovery
    cdef namespace_map_t *namespace_map     # the current map
    cdef Opener opener
    cdef unknown_address_t unknown_addresses[256]
    cdef cached_route_t cached_routes[256]
    cdef is_local_t known_addresses[256]
    cdef readonly int skipped       # number of namespaces left out: too many, too large, or they may not be entered
    cdef bint threaded              # discovery has a thread of its own
    cdef uint64_t drained_at        # CLOCK_MONOTONIC ns at which an unknown address last caused a round of discovery
    cdef uint64_t wait_again_at     # CLOCK_MONOTONIC ns before which no flow waits for discovery
    cdef uint64_t refreshed_at      # CLOCK_MONOTONIC ns at which refresh_monitored() was last called
    cdef uint64_t generation        # counted from 1: changes whenever namespaces and their addresses may have changed
    cdef str proc
    cdef object finalizer

    # Return the first namespace after index `after` (-1: from the beginning) that has tuple.src, or -1. If the
    # monitored namespace has the address, there are no others; else those count that links connect to the monitored
    # one.
    cdef int find_address(self, int monitored, const tuple_t *tuple, int after) noexcept nogil
    # Whether the monitored namespace has tuple.src.
    cdef bint is_local(self, int monitored, const tuple_t *tuple) noexcept nogil
    # Call when no namespace has tuple.src. Return whether there is a newer map, so that it is worth trying again.
    # search: search for new namespaces; if false, that is done only for private addresses, and rarely. Waits for 20 ms
    # at most, and for at most 2 % of the time.
    cdef bint look_again(self, const tuple_t *tuple, bint search) noexcept nogil

    # Whether a packet from end.src that was seen in the monitored namespace can have come from namespace `index`, and a
    # packet to end.src can arrive there: a chain of links must connect the two, and if a user made namespace `index`,
    # the monitored namespace's routes to the address must lead there and nowhere else. False if that is not certain.
    # The first call for a user's namespace takes 4 us, and a repeated one within 0.1 s almost nothing; each namespace
    # gets at most 1 % of the time.
    cdef bint may_come_from(self, int monitored, int index, const tuple_t *end) noexcept nogil

    # Return the cookie by which BPF programs identify the namespace; 0: not known.
    cdef uint64_t cookie(self, int index) noexcept nogil

    # As diag_lookup() (listener: diag_lookup_listener()), diag_survey(), procnet_lookup() and procnet_survey(), in one
    # namespace. The two for tables enter it, and return -errno if that fails.
    cdef int lookup_at(self, int index, const tuple_t *tuple, bint listener, socket_info_t *out) noexcept nogil
    cdef int survey_at(self, int index, const tuple_t *tuple, diag_match_t *out, int room) noexcept nogil
    # Find the local ports that are in use in a namespace: see diag_ports().
    cdef int ports_at(self, int index, uint8_t proto, uint8_t *taken, int most) noexcept nogil
    cdef int tables_lookup(self, int index, const tuple_t *tuple, int64_t when, socket_info_t *out) noexcept nogil
    cdef int tables_survey(self, int index, const tuple_t *tuple, int64_t when, diag_match_t *out,
                           int room) noexcept nogil

    # Apply the changes in monitored namespaces. To be called once per batch.
    cdef void refresh_monitored(self) noexcept nogil
    # Return the local routes of a monitored namespace; NULL if the number is free.
    cdef const local_routes_t *monitored_routes(self, int index) noexcept nogil

    cdef bint _take_map(self) noexcept nogil
    cdef bint _wait(self, bint search) noexcept nogil
    cdef bint _work(self) noexcept with gil
    cdef int _follow_routes(self, int monitored, int index, const tuple_t *end) noexcept nogil
