from libc.stdint cimport uint8_t, uint32_t, uint64_t
from nfct_fast.processes.process cimport process_t

cdef enum:               # owner_t.has
    OWNER_UID = 1
    OWNER_GID = 2
    OWNER_USERS = 4      # `others` are who used the tuple before, not holders of the same socket

cdef enum:               # owner_t.match: how the owner was found
    MATCH_NONE = 0
    MATCH_BPF = 1        # the kernel's own note of who used the socket
    MATCH_SOCKET = 2     # the socket of exactly this tuple
    MATCH_WILDCARD = 3   # an unconnected socket that sends and receives for it
    MATCH_LISTENER = 4   # the listener it was, or will be, accepted from
    MATCH_PROTOCOL = 5   # the one raw socket of that IP protocol: it has no port to tell it by
    MATCH_COUNT = 6

cdef enum:               # owner_t.reason: why there is none
    REASON_NONE = 0
    REASON_OFF = 1           # attribution was not asked for
    REASON_FORWARDED = 2     # neither end is an address of this namespace
    REASON_CLOSED = 3        # no socket has this tuple (any more)
    REASON_ORPHANED = 4      # the socket lives on in the kernel, closed by its process
    REASON_EXITED = 5        # the socket was found, but no process holds it
    REASON_PERMISSION = 6    # some process may not be looked into
    REASON_BUDGET = 7        # looking further would have cost too much
    REASON_AMBIGUOUS = 8     # several sockets answer to this tuple
    REASON_KERNEL = 9        # the kernel itself answers or sends, or no process has the socket open
    REASON_UNSUPPORTED = 10  # no table of this protocol's sockets
    REASON_ERROR = 11        # asking the kernel failed
    REASON_REMOTE = 12       # this end is another host's
    REASON_NETNS = 13        # perhaps in a network namespace that could not be entered
    REASON_COUNT = 14

ctypedef struct owner_t:
    process_t *process       # a reference; NULL: not known
    process_t **others       # further holders of the same socket, or users of the tuple, a reference each
    process_t *cgroup        # where there is no process: a reference to one that has but the socket's cgroup; or NULL
    uint64_t inode           # of the socket; 0: not known
    uint64_t cookie          # of the socket; 0: not known
    uint64_t cgroup_id       # of the socket; 0: not known
    uint32_t uid             # of the socket
    uint32_t gid
    uint8_t other_count
    uint8_t has              # OWNER_*
    uint8_t match            # MATCH_*
    uint8_t reason           # REASON_*

cdef void owner_drop(owner_t *owner) noexcept nogil
cdef const char *match_name(uint8_t match) noexcept nogil
cdef const char *reason_name(uint8_t reason) noexcept nogil

cdef class Owner:
    cdef owner_t owner

cdef object owner_object(const owner_t *owner)    # with references of its own
