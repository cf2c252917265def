"""Which network namespace of this host has an address, and the sockets in it."""
from libc.stdint cimport int64_t, uint8_t, uint64_t

from nfct_fast.namespaces.local_routes cimport local_routes_t
from nfct_fast.namespaces.namespace_map cimport namespace_map_t
from nfct_fast.sockets.diag_message cimport diag_match_t
from nfct_fast.namespaces.opener cimport Opener
from nfct_fast.events.flow cimport tuple_t
from nfct_fast.namespaces.discovery cimport Discovery
from nfct_fast.sockets.socket_info cimport socket_info_t

# An address that no namespace had when it was last asked for.
cdef struct unknown_address_t:
    uint8_t addr[16]
    uint64_t until

# Where a home's routes to an address end.
cdef struct cached_route_t:
    uint8_t addr[16]
    uint64_t until
    int monitored
    int index               # -1: that is not certain

# Whether a monitored namespace had an address when the members were last taken in.
cdef struct is_local_t:
    uint8_t addr[16]
    uint64_t turn
    int monitored
    uint8_t family
    bint yes

# The first members are homes: the namespaces that are listened in. Lookups and refresh() are for one thread.
cdef class NamespaceIndex:
    cdef object __weakref__
    cdef readonly Discovery discovery
    cdef namespace_map_t *namespace_map         # members' numbers are its places; they hold until look_again() or refresh_monitored()
    cdef Opener opener
    cdef unknown_address_t unknown_addresses[256]
    cdef cached_route_t cached_routes[256]
    cdef is_local_t known_addresses[256]
    cdef readonly int skipped   # namespaces that are left out: too many, too much in them, or they may not be entered
    cdef bint threaded          # the scout has a thread of its own
    cdef uint64_t drained_at       # CLOCK_MONOTONIC ns
    cdef uint64_t wait_again_at       # not to wait for the scout before
    cdef uint64_t refreshed_at           # when refresh_monitored() was last called
    cdef uint64_t turn          # from 1: another one whenever members and addresses may have changed
    cdef str proc
    cdef object finalizer

    # The first member behind `after` (-1 to begin) that has tuple.src, -1 if there is none; if home has it, only home.
    # Of others only those from which a way leads to home.
    cdef int find_address(self, int monitored, const tuple_t *tuple, int after) noexcept nogil
    # Whether the monitored namespace has tuple.src.
    cdef bint is_local(self, int monitored, const tuple_t *tuple) noexcept nogil
    # No member has tuple.src. Whether what is known is newer now, so that it is worth asking again. search: have it be
    # searched for new namespaces; else that is done once in a while for each private address. Waits 20 ms at most, and
    # not more than a fiftieth of the time.
    cdef bint look_again(self, const tuple_t *tuple, bint search) noexcept nogil

    # The member with that cookie, or -1.
    cdef int find_cookie(self, uint64_t cookie) noexcept nogil
    # Whether a packet from end.src that is seen in `home` can have come out of member `index` (and one to end.src, seen
    # there, arrives in it): some chain of links leads from one to the other; and if others than we made that namespace,
    # home's routes for the address end there and nowhere else. Unknown is False. 4 us at first for such a one, and then
    # for 0.1 s next to nothing; of each namespace no more is asked than takes 1 % of the time.
    cdef bint may_come_from(self, int monitored, int index, const tuple_t *end) noexcept nogil

    cdef uint64_t cookie(self, int index) noexcept nogil

    # diag_lookup (or of the listener), diag_survey, procnet_lookup and procnet_survey in one member. -errno also if
    # it cannot be entered, as the tables need.
    cdef int lookup_at(self, int index, const tuple_t *tuple, bint listener, socket_info_t *out) noexcept nogil
    cdef int survey_at(self, int index, const tuple_t *tuple, diag_match_t *out, int room) noexcept nogil
    # The local ports with sockets in it: see diag_ports.
    cdef int ports_at(self, int index, uint8_t proto, uint8_t *taken, int most) noexcept nogil
    cdef int tables_lookup(self, int index, const tuple_t *tuple, int64_t when, socket_info_t *out) noexcept nogil
    cdef int tables_survey(self, int index, const tuple_t *tuple, int64_t when, diag_match_t *out,
                           int room) noexcept nogil

    # Takes in what is new: once a batch.
    cdef void refresh_monitored(self) noexcept nogil
    # The addresses of a home; NULL if it is none.
    cdef const local_routes_t *monitored_routes(self, int index) noexcept nogil

    cdef bint _take_map(self) noexcept nogil
    cdef bint _wait(self, bint search) noexcept nogil
    cdef bint _work(self) noexcept with gil
    cdef int _follow_routes(self, int monitored, int index, const tuple_t *end) noexcept nogil
