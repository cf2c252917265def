"""Find the owners of flows: the direction of a flow, and the processes at its ends."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from nfct_fast.attribution.batch_times cimport batch_times_t
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
    GROUP = 64               # flows whose notes are fetched into the cache together

# One caller at a time.
cdef class Resolver:
    cdef readonly str mode
    cdef bint off                  # the mode is "off", or the resolver is closed
    cdef set off_numbers           # numbers that monitor() has returned while `off`
    cdef NamespaceIndex namespaces
    cdef LiveLookup live_lookup
    cdef batch_times_t times         # times of the current batch
    cdef readonly BpfLookup bpf_lookup            # None: without BPF
    cdef readonly str bpf_missing  # why BPF is not used although the mode would; else None
    cdef CgroupPaths cgroup_paths
    cdef readonly ResponderCache responder_cache  # None: without BPF
    cdef readonly ClosedPorts closed_ports        # None: without BPF
    cdef bint is_old               # the flow being resolved is not new, so several programs may have used its tuple
    cdef int64_t began             # when that flow began, ns since the epoch; 0: unknown
    cdef int64_t occurred          # when the kernel made the event of that flow, if it is new, likewise
    # The prepared look-ups of the flows that are resolved together: originator and responder of each, in the namespace
    # in which the event was received. netns 0: there is nothing to look up.
    cdef owners_probe ends[128]
    cdef owners_probe *at          # the two look-ups of the flow being resolved
    cdef uint64_t generation       # value of NamespaceIndex.generation when the directions were determined

    # Process the kernel's process events. To be called about once a second, and when fileno() is readable.
    cdef void drain(self) noexcept nogil
    # Begin a batch. received_at: when it was received; nothing read before that is used. drained_at: the last time at
    # which all earlier events were known to be received. Both are CLOCK_MONOTONIC ns.
    cdef void begin(self, int64_t received_at, int64_t drained_at) noexcept nogil
    # Fill in direction, owner and peer of each record. record.flow.netns is what monitor() returned for the namespace
    # in which the event was received.
    cdef void resolve(self, record_t *records, int count) noexcept nogil
    # A flow of this batch ends whose owners are remembered (record.live): add who else used its tuple since it began,
    # and name who accepted the connection. since: CLOCK_BOOTTIME ns, it began later. Return whether the kernel's notes
    # prove that its originator's end was used by nobody but its owner.
    cdef bint add_users(self, record_t *record, int64_t since) noexcept nogil
    cdef bint _add_users(self, int monitored, const tuple_t *end, bint here, int64_t since, int64_t accepted,
                         owner_t *out) noexcept nogil
    cdef void _prepare(self, record_t *record, owners_probe *ends) noexcept nogil
    cdef void _resolve(self, record_t *record, owners_probe *ends) noexcept nogil
    cdef uint8_t _direction(self, int monitored, const tuple_t *orig, const tuple_t *reply) noexcept nogil

    # Find the owner of one end. Return REASON_NONE, why `out` has no process, or NOWHERE if no namespace has the
    # address.
    cdef int _end(self, int monitored, const tuple_t *end, bint originator, bint search, bint local, bint fresh,
                  owner_t *out) noexcept nogil
    cdef int _by_note(self, const tuple_t *end, uint64_t netns, const owners_probe *probe, owner_t *out,
                      int64_t accepted=*) noexcept nogil
    cdef int _originator(self, int index, const tuple_t *end, owner_t *out) noexcept nogil
    cdef int _responder(self, int index, const tuple_t *end, bint fresh, owner_t *out) noexcept nogil
    cdef void _remember(self, int index, const tuple_t *end, uint64_t netns, uint32_t changes, int64_t began,
                        const owner_t *found, int reason) noexcept nogil
    cdef void _keep(self, const tuple_t *end, uint64_t netns, uint32_t changes, int64_t began, const owner_t *found,
                    int reason) noexcept nogil
    cdef void _peer(self, int monitored, const tuple_t *reply, bint fresh, record_t *record) noexcept nogil
