"""Which network namespace of this host has an address, and the sockets in it."""
from libc.stdint cimport int64_t, uint8_t, uint64_t

from nfct_fast.namespaces.local_routes cimport local_routes_t
from nfct_fast.namespaces.namespace_map cimport namespace_map_t
from nfct_fast.sockets.diag_message cimport diag_match_t
from nfct_fast.namespaces.opener cimport Opener
from nfct_fast.events.flow cimport tuple_t
from nfct_fast.namespaces.discovery cimport Discovery
from nfct_fast.sockets.socket_info cimport socket_info_t

# A negative entry: no namespace had this address when a flow last asked for it.
cdef struct unknown_address_t:
    uint8_t addr[16]
    uint64_t until          # CLOCK_MONOTONIC ns: no search for it before

# Where the routes of a monitored namespace to an address end.
cdef struct cached_route_t:
    uint8_t addr[16]
    uint64_t until          # CLOCK_MONOTONIC ns: not valid after
    int monitored           # number of the namespace in which the routes begin
    int index               # of the namespace in which they end; -1: not certain

# Whether a monitored namespace had this address when the current map was taken in.
cdef struct is_local_t:
    uint8_t addr[16]
    uint64_t turn           # NamespaceIndex.turn when that was found; another: not valid any more
    int monitored           # number of the namespace
    uint8_t family          # AF_INET or AF_INET6
    bint yes

# A namespace is known by its index in the current map, which holds until the next look_again() or refresh_monitored();
# a monitored one by its number, which is its index in every map. Lookups and refresh() are for one thread.
cdef class NamespaceIndex:
    cdef object __weakref__
    cdef readonly Discovery discovery
    cdef namespace_map_t *namespace_map     # the current map
    cdef Opener opener
    cdef unknown_address_t unknown_addresses[256]
    cdef cached_route_t cached_routes[256]
    cdef is_local_t known_addresses[256]
    cdef readonly int skipped       # namespaces left out: they are too many, too large, or may not be entered
    cdef bint threaded              # discovery has a thread of its own
    cdef uint64_t drained_at        # CLOCK_MONOTONIC ns: when an unknown address last caused a round of discovery
    cdef uint64_t wait_again_at     # CLOCK_MONOTONIC ns: do not wait for discovery before
    cdef uint64_t refreshed_at      # CLOCK_MONOTONIC ns: when refresh_monitored() was last called
    cdef uint64_t turn              # from 1: another number whenever namespaces and their addresses may have changed
    cdef str proc
    cdef object finalizer

    # The first namespace after index `after` (-1: the first of all) that has tuple.src, or -1; only the monitored one
    # if that has it itself. Others count only if links connect them to the monitored one.
    cdef int find_address(self, int monitored, const tuple_t *tuple, int after) noexcept nogil
    # Whether the monitored namespace has tuple.src.
    cdef bint is_local(self, int monitored, const tuple_t *tuple) noexcept nogil
    # To be called when no namespace has tuple.src: True if there is a newer map, so that asking again is worthwhile.
    # search: search for new namespaces; without it, that is done once in a while for each private address. Waits 20 ms
    # at most, and a fiftieth of the time at most.
    cdef bint look_again(self, const tuple_t *tuple, bint search) noexcept nogil

    # The namespace with this cookie, or -1.
    cdef int find_cookie(self, uint64_t cookie) noexcept nogil
    # Whether a packet from end.src that is seen in the monitored namespace can have come out of namespace `index`, and
    # one to end.src can arrive there: some chain of links must connect the two, and where a user made namespace
    # `index`, the monitored one's routes for the address must end there and nowhere else. Not certain is False. The
    # first answer for a user's namespace takes 4 us, the same answer within 0.1 s next to nothing; for each namespace 1
    # % of the time at most.
    cdef bint may_come_from(self, int monitored, int index, const tuple_t *end) noexcept nogil

    # The cookie by which BPF programs know the namespace; 0: not known.
    cdef uint64_t cookie(self, int index) noexcept nogil

    # diag_lookup (listener: diag_lookup_listener), diag_survey, procnet_lookup and procnet_survey in one namespace. The
    # two for tables enter it: -errno if that fails.
    cdef int lookup_at(self, int index, const tuple_t *tuple, bint listener, socket_info_t *out) noexcept nogil
    cdef int survey_at(self, int index, const tuple_t *tuple, diag_match_t *out, int room) noexcept nogil
    # The local ports that sockets in it have: see diag_ports.
    cdef int ports_at(self, int index, uint8_t proto, uint8_t *taken, int most) noexcept nogil
    cdef int tables_lookup(self, int index, const tuple_t *tuple, int64_t when, socket_info_t *out) noexcept nogil
    cdef int tables_survey(self, int index, const tuple_t *tuple, int64_t when, diag_match_t *out,
                           int room) noexcept nogil

    # Take in the changes in monitored namespaces. To be called once a batch.
    cdef void refresh_monitored(self) noexcept nogil
    # The local routes of a monitored namespace; NULL if the number is free.
    cdef const local_routes_t *monitored_routes(self, int index) noexcept nogil

    cdef bint _take_map(self) noexcept nogil
    cdef bint _wait(self, bint search) noexcept nogil
    cdef bint _work(self) noexcept with gil
    cdef int _follow_routes(self, int monitored, int index, const tuple_t *end) noexcept nogil
