from libc.stdint cimport uint8_t, uint32_t, uint64_t
from nfct_fast.processes.identity cimport Identity
from nfct_fast.processes.process cimport PROCESS_IDS, process_t
from nfct_fast.processes.process_texts cimport process_text_t
from nfct_fast.processes.redactor cimport Redactor
from nfct_fast.text.text_buffer cimport text_buffer_t

cdef enum:               # bits of owner_t.has
    OWNER_UID = 1        # owner_t.uid is known
    OWNER_GID = 2        # owner_t.gid is known
    OWNER_USERS = 4      # `others` used the tuple earlier; else they hold the same socket

cdef enum:               # owner_t.match: how the owner was found
    MATCH_NONE = 0
    MATCH_BPF = 1        # by a note that a BPF program wrote when the socket was used
    MATCH_SOCKET = 2     # by the socket with exactly this tuple
    MATCH_WILDCARD = 3   # by the unconnected socket that is bound to the local end
    MATCH_LISTENER = 4   # by the listening socket of the connection
    MATCH_PROTOCOL = 5   # by the only raw socket of the IP protocol, as raw sockets have no ports
    MATCH_COUNT = 6

cdef enum:               # owner_t.reason: why there is no process
    REASON_NONE = 0          # there is a process
    REASON_OFF = 1           # attribution is turned off
    REASON_FORWARDED = 2     # neither end is an address of this namespace
    REASON_CLOSED = 3        # no socket has this tuple, at least not any more
    REASON_ORPHANED = 4      # the process has closed the socket, which lives on in the kernel
    REASON_EXITED = 5        # the socket was found, but no process holds it
    REASON_PERMISSION = 6    # some processes may not be inspected
    REASON_BUDGET = 7        # the search was given up, as it would have taken too long
    REASON_AMBIGUOUS = 8     # several sockets match this tuple
    REASON_KERNEL = 9        # the kernel itself sends or answers, or no process has the socket open
    REASON_UNSUPPORTED = 10  # the kernel has no table of this protocol's sockets
    REASON_ERROR = 11        # a query to the kernel failed
    REASON_REMOTE = 12       # this end is on another host
    REASON_NETNS = 13        # possibly in a network namespace that could not be entered
    REASON_FORGOTTEN = 14    # it is not remembered who began the flow, and cannot be told at its end
    REASON_COUNT = 15

# Further processes of an owner. References are counted, from any thread, and the reading thread's caches share the list
# with every flow of a server: never change one that is not newly made, but make another by others_new() in its place.
ctypedef struct others_t:
    int refs
    int count
    uint32_t live_flows      # live flows that keep this list; changed by LiveFlows only, in its one thread
    # The next two are changed by Aggregator only, in the thread that takes records.
    uint32_t groups          # groups of flows that keep this list
    uint64_t digest          # of all of them; 0: not made yet
    others_t *shown          # as they are shown where command lines are redacted; see process_t.shown
    process_t *at[1]         # `count` references

# All zero: nothing is known. Owns its references until owner_drop().
ctypedef struct owner_t:
    process_t *process       # the process to name, a reference; NULL: unknown
    others_t *others         # further holders of the socket or users of the tuple, a reference; NULL: none
    process_t *cgroup        # if `process` is unknown, a reference to one that has only the socket's cgroup; or NULL
    uint64_t inode           # inode number of the socket; 0: unknown
    uint64_t cookie          # cookie of the socket (SO_COOKIE); 0: unknown
    uint64_t cgroup_id       # id of the socket's cgroup (v2); 0: unknown
    uint32_t uid             # user id of the socket's user, if OWNER_UID is set
    uint32_t gid             # group id of the socket's user, if OWNER_GID is set
    uint8_t has              # OWNER_* bits
    uint8_t match            # MATCH_*
    uint8_t reason           # REASON_*

cdef void owner_drop(owner_t *owner) noexcept nogil             # drop its references
cdef void owner_copy(const owner_t *owner, owner_t *out) noexcept nogil    # with references of its own

# What it says but its socket, as a number that others cannot foresee: two that have the same say the same. It is kept
# in its processes, for one key only, so for one thread.
cdef uint64_t owner_digest(const owner_t *owner, const uint64_t *key) noexcept nogil
cdef uint64_t process_digest(process_t *process, const uint64_t *key) noexcept nogil

# Replace its references by those to processes as they may be shown. For one thread at a time.
cdef void owner_redact(owner_t *owner, Redactor redactor) noexcept nogil

cdef others_t *others_new(int room) noexcept nogil              # empty, with room for as many; NULL without memory
cdef void others_drop(others_t *others) noexcept nogil           # drop a reference; NULL is none

cdef inline int other_count(const owner_t *owner) noexcept nogil:
    return owner.others.count if owner.others != NULL else 0

# The real user and group id of the process, or else of the socket's user. Whether it is known; *id is 0 if not.
cdef inline bint owner_uid(const owner_t *owner, uint32_t *id) noexcept nogil:
    cdef bint of_process = owner.process != NULL and owner.process.has & PROCESS_IDS
    cdef bint known = of_process or owner.has & OWNER_UID
    id[0] = owner.process.uid if of_process else owner.uid if known else 0
    return known

cdef inline bint owner_gid(const owner_t *owner, uint32_t *id) noexcept nogil:
    cdef bint of_process = owner.process != NULL and owner.process.has & PROCESS_IDS
    cdef bint known = of_process or owner.has & OWNER_GID
    id[0] = owner.process.gid if of_process else owner.gid if known else 0
    return known

cdef const char *match_name(uint8_t match) noexcept nogil       # NULL for MATCH_NONE
cdef const char *reason_name(uint8_t reason) noexcept nogil     # NULL for REASON_NONE

cdef class Owner:
    cdef owner_t owner
    cdef Identity identity

# Write an owner as a JSON object, with what opens it in `key`. texts: where processes' text is kept; NULL: nowhere.
cdef void owner_json(text_buffer_t *out, const char *key, const owner_t *owner, process_text_t *texts,
                     Identity identity) noexcept nogil

# All that is known of an owner as values, and back again; and the users and groups in it.
cdef tuple owner_state(const owner_t *owner)
cdef int owner_restore(owner_t *out, tuple state) except -1
cdef tuple owner_ids(const owner_t *owner)

cdef object owner_object(const owner_t *owner, Identity identity)    # an Owner with references of its own
