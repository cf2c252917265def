"""The ladder from a tuple to its owner."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from nfct_fast.attribution.cgroup_paths cimport CgroupPaths
from nfct_fast.namespaces.namespace_index cimport NamespaceIndex
from nfct_fast.events.flow cimport tuple_t
from nfct_fast.attribution.live_lookup cimport LiveLookup
from nfct_fast.attribution.bpf_lookup cimport BpfLookup
from nfct_fast.records.owner cimport owner_t
from nfct_fast.records.record cimport record_t
from nfct_fast.sockets.owners_find cimport owners_probe
from nfct_fast.attribution.responder_cache cimport ResponderCache
from nfct_fast.attribution.closed_ports cimport ClosedPorts

cdef enum:
    GROUP = 64               # flows whose memory is fetched at the same time

# One caller at a time.
cdef class Resolver:
    cdef readonly str mode
    cdef bint off
    cdef set unasked               # numbers of homes while off
    cdef NamespaceIndex directory
    cdef LiveLookup live_lookup
    cdef readonly BpfLookup notes      # None: the kernel takes none
    cdef readonly str missing      # why not, where it was wanted; else None
    cdef CgroupPaths paths
    cdef readonly ResponderCache responder_cache  # None: without notes
    cdef readonly ClosedPorts closed_ports
    cdef bint used                 # the flow being resolved is not new: others may have used its entry
    cdef int64_t began             # when that began, ns since the epoch; 0: not known
    # The ends of the flows that are resolved together, originator and responder of each, in the namespace they were heard in; netns
    # 0: nothing will be asked of it.
    cdef owners_probe ends[128]
    cdef owners_probe *at          # the flow being resolved
    cdef uint64_t turn             # the addresses that their directions were told by, see NamespaceIndex

    # Take in what the kernel has told of programs: about once a second, and when fileno() is readable.
    cdef void drain(self) noexcept nogil
    # A batch begins that was received at `received_at`, CLOCK_MONOTONIC ns: nothing older than that will do.
    # `drained_at`: the last time, on the same clock, that every event before it had been received.
    cdef void begin(self, int64_t received_at, int64_t drained_at) noexcept nogil
    # Fills in direction, owner and peer of each. record.flow.netns is what monitor() returned for the namespace the event came
    # from.
    cdef void resolve(self, record_t *records, int count) noexcept nogil
    cdef void _prepare(self, record_t *record, owners_probe *ends) noexcept nogil
    cdef void _resolve(self, record_t *record, owners_probe *ends) noexcept nogil
    cdef uint8_t _direction(self, int home, const tuple_t *orig, const tuple_t *reply) noexcept nogil

    # The reason why `out` has no process (REASON_NONE: it has), or NOWHERE: no namespace has the address.
    cdef int _end(self, int home, const tuple_t *end, bint originator, bint search, bint local, bint fresh,
                  owner_t *out) noexcept nogil
    cdef int _noted(self, const tuple_t *end, uint64_t netns, const owners_probe *probe, owner_t *out,
                    int64_t accepted=*) noexcept nogil
    cdef int _originator(self, int index, const tuple_t *end, owner_t *out) noexcept nogil
    cdef int _responder(self, int index, const tuple_t *end, bint fresh, owner_t *out) noexcept nogil
    cdef void _remember(self, int index, const tuple_t *end, uint64_t netns, uint32_t changes, int64_t began,
                        const owner_t *found, int reason) noexcept nogil
    cdef void _keep(self, const tuple_t *end, uint64_t netns, uint32_t changes, int64_t began, const owner_t *found,
                    int reason) noexcept nogil
    cdef void _peer(self, int home, const tuple_t *reply, bint fresh, record_t *record) noexcept nogil
