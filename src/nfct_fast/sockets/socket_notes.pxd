from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from nfct_fast.events.flow cimport tuple_t
from nfct_fast.sockets.owners_find cimport (OWNERS_ACCEPT, OWNERS_BIND, OWNERS_CONNECT, OWNERS_CREATE, OWNERS_EXACT,
                          OWNERS_NO_SOURCE, OWNERS_SEND, owners, owners_probe, task_types)
from nfct_fast.processes.process_event cimport process_id, process_ring

# A note: which program used a socket, and as which user.
ctypedef struct bpf_owner_t:
    uint64_t cookie        # cookie of the socket
    uint64_t netns_cookie  # cookie of the socket's network namespace
    uint64_t cgroup_id     # id of the process's cgroup (v2)
    uint64_t time          # CLOCK_BOOTTIME ns at which the note was written
    uint64_t other_time    # when another program last used the tuple in the same namespace, CLOCK_BOOTTIME ns; 0: never
    process_id id          # identity of the program; tgid as in the initial pid namespace
    uint32_t uid           # user id as in the initial user namespace, like gid
    uint32_t gid
    char comm[16]          # name of the process's main thread; of the calling thread if the kernel has no BTF
    uint8_t hook           # OWNERS_CREATE etc.: what the program did
    uint8_t match          # OWNERS_EXACT or OWNERS_NO_SOURCE: how the note fits the tuple
    bint is_kernel         # a kernel thread used the socket, so it belongs to no program
    bint again             # the same program used the tuple before

cdef enum:
    USERS = 8            # OWNERS_USERS

cdef class SocketNotes:
    cdef owners _owners
    cdef bint _open
    cdef readonly bint covers_all        # attached to the root cgroup, so that the notes cover every process
    cdef readonly str cgroup             # the cgroup v2 directory to which the programs are attached
    cdef readonly bint packets           # the program that runs for each packet is attached
    cdef readonly str processes_missing  # why the kernel does not report processes; None: it does
    cdef readonly uint32_t notes         # after grow(), how many are kept before the oldest is replaced
    cdef int64_t _since                  # CLOCK_BOOTTIME ns at which is_due() last began to count notes
    cdef uint64_t _counted               # number of notes written before `_since`

    # Find the newest note of a tuple, as seen from the socket: src is the local end. Return 1 if there is one, 0 if
    # not. Allocates nothing, and can be called from any thread until close().
    cdef int lookup(self, const tuple_t *tuple, uint64_t netns_cookie, bpf_owner_t *out) noexcept nogil

    # Return the time since which the notes are complete, CLOCK_BOOTTIME ns: older ones may have been overwritten. 0 if
    # none ever was.
    cdef uint64_t complete_since(self) noexcept nogil

    # Find the last use of a tuple between two times, CLOCK_BOOTTIME ns. Needed if the newest note is later or has
    # `again` set. Takes up to 0.1 ms. Return 1 if there is one, 0 if not, -E2BIG if there are too many later notes.
    cdef int lookup_past(self, const tuple_t *tuple, uint64_t netns_cookie, uint64_t begin, uint64_t until,
                         bpf_owner_t *out) noexcept nogil

    # Find all programs that used a tuple from `since` to `until`, CLOCK_BOOTTIME ns, the latest first. `slack`: the
    # longest time in ns between a note and the conntrack entry. Return how many are in `out`, at most USERS. other_time
    # and match are not filled in.
    cdef int lookup_users(self, const tuple_t *tuple, uint64_t netns_cookie, uint64_t since, uint64_t slack,
                          uint64_t until, bpf_owner_t *out) noexcept nogil

    # lookup() in three steps, by which the memory of many tuples is fetched at the same time: prepare() each tuple
    # (with a netns_cookie that is not 0), approach() all of them (those with netns 0 are skipped), and then call
    # lookup_prepared() for each.
    cdef void prepare(self, const tuple_t *tuple, uint64_t netns_cookie, owners_probe *out) noexcept nogil
    cdef void approach(self, const owners_probe *probes, int count) noexcept nogil
    cdef int lookup_prepared(self, const owners_probe *probe, bpf_owner_t *out) noexcept nogil
    # Return a counter that changes when a socket comes to a local port, leaves it, or begins to listen or connects.
    cdef uint32_t port_changes(self, uint64_t netns_cookie, uint8_t proto, uint16_t port) noexcept nogil
    # The same for all 65,536 ports.
    cdef void all_port_changes(self, uint64_t netns_cookie, uint8_t proto, uint32_t *out) noexcept nogil
    # Watch for the end of the socket with this cookie. From then on is_watched() is true until the socket is closed;
    # `watch_id` is what watch() returned. The socket may have been closed before, so check then that it exists.
    # One thread only.
    cdef uint64_t watch(self, uint64_t cookie) noexcept nogil
    cdef bint is_watched(self, uint64_t cookie, uint64_t watch_id) noexcept nogil

    # Whether notes come so fast that grow() is due. To be called regularly, by one thread. now: CLOCK_BOOTTIME ns.
    cdef bint is_due(self, int64_t now) noexcept nogil

    # Stop using the small ring once the larger one, had it existed from the start, would have replaced all its notes.
    # To be called regularly, by the same thread as is_due().
    cdef void retire(self, int64_t now) noexcept nogil

    # Find the newest note of the socket with this cookie. Return 1 if there is one, 0 if not.
    cdef int lookup_cookie(self, uint64_t cookie, bpf_owner_t *out) noexcept nogil
    cdef int _load(self, int fd, uint32_t records, uint32_t larger, bint each, const task_types *tasks) except -1
    cdef object _answer(self, const tuple_t *tuple, uint64_t netns_cookie)

cdef process_ring *owners_ring(SocketNotes self) noexcept nogil     # the ring of process events, for History.drain()
cdef uint64_t owners_lost(SocketNotes self) noexcept nogil          # how many process events were lost
cdef uint64_t owners_lost_at(SocketNotes self) noexcept nogil       # when the last one was lost, CLOCK_BOOTTIME ns
