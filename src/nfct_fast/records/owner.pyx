"""The owner of one end of a flow: the process, how it was found, or the reason why there is none."""
cimport cython
from libc.stdlib cimport free, malloc
from procfs_calls cimport __ATOMIC_ACQ_REL, __ATOMIC_RELAXED, __atomic_add_fetch, __atomic_sub_fetch
from nfct_fast.processes.process cimport (
    PROCESS_CGROUP, PROCESS_IDS, process_drop, process_object, process_t, process_take,
)

cdef extern from "nfct_fast/records/owner_labels.h" nogil:
    const char *const nfct_fast_match_names[MATCH_COUNT]
    const char *const nfct_fast_reason_names[REASON_COUNT]


cdef others_t *others_new(int room) noexcept nogil:
    cdef others_t *others = <others_t *>malloc(sizeof(others_t) + room * sizeof(process_t *))
    if others != NULL:
        others.refs = 1
        others.count = 0
    return others


cdef void _others_drop(others_t *others) noexcept nogil:
    cdef int i
    if others != NULL and __atomic_sub_fetch(&others.refs, 1, __ATOMIC_ACQ_REL) == 0:
        for i in range(others.count):
            process_drop(others.at[i])
        free(others)


cdef void owner_drop(owner_t *owner) noexcept nogil:
    process_drop(owner.process)
    process_drop(owner.cgroup)
    _others_drop(owner.others)
    owner.process = owner.cgroup = NULL
    owner.others = NULL


cdef void owner_copy(const owner_t *owner, owner_t *out) noexcept nogil:
    out[0] = owner[0]
    process_take(out.process)
    process_take(out.cgroup)
    if out.others != NULL:
        __atomic_add_fetch(&out.others.refs, 1, __ATOMIC_RELAXED)


cdef const char *match_name(uint8_t match) noexcept nogil:
    return nfct_fast_match_names[match] if match < MATCH_COUNT else NULL


cdef const char *reason_name(uint8_t reason) noexcept nogil:
    return nfct_fast_reason_names[reason] if reason < REASON_COUNT else NULL


cdef str _label(const char *word):
    return None if word == NULL else word.decode("ascii")


@cython.final
@cython.auto_pickle(False)
cdef class Owner:
    """The owner of one end of a flow. Immutable; only Conntrack makes it. Attributes that are unknown are None.

    process: the `Process` printed for the flow. If several processes hold the socket, it is the first of `processes`:
    the one that was started first, as sockets are inherited by children. pid 1 and systemd come last. Which of the
    holders used the socket cannot be determined.

    Limits of every match other than "bpf": the socket is looked up after the event. If it was closed by then and
    another process has taken the same port, that process is named if it was started before the flow, and not if after.
    A raw socket is identified by its protocol alone (match "protocol"), so that with two processes that come and go the
    wrong one may be named. Two connected UDP sockets with identical addresses and ports are taken for one.
    """

    def __init__(self):
        raise TypeError("an Owner cannot be made directly; Conntrack makes it")

    def __dealloc__(self):
        owner_drop(&self.owner)

    @property
    def process(self):
        """The owning `Process`, or None."""
        return process_object(process_take(self.owner.process))

    @property
    def processes(self) -> tuple:
        """Every `Process` found to hold the socket, `process` first; empty if none is known.

        It contains up to 32 processes that got the socket by fork or execve. One that received it over a UNIX socket is
        only found if no other was; `find_holders()` finds the rest.

        For an UPDATE or DESTROY event with match "bpf": every process that used the tuple while the conntrack entry
        lived, up to 8, the latest first. A live UDP entry is used again, without an event, by whoever takes its port.
        This needs net.netfilter.nf_conntrack_timestamp=1; without the entry's start time, it reaches back as far as
        the BPF programs' notes do.
        """
        owner = () if self.owner.process == NULL else (self.process,)
        others = range(other_count(&self.owner))
        return (*owner, *[process_object(process_take(self.owner.others.at[i])) for i in others])

    @property
    def pid(self) -> int | None:
        """The process id of `process`."""
        return None if self.owner.process == NULL else self.owner.process.pid

    @property
    def uid(self) -> int | None:
        """The real user id of the process, or of the socket if the process is unknown."""
        if self.owner.process != NULL and self.owner.process.has & PROCESS_IDS:
            return self.owner.process.uid
        return self.owner.uid if self.owner.has & OWNER_UID else None

    @property
    def gid(self) -> int | None:
        """The real group id of the process."""
        if self.owner.process != NULL and self.owner.process.has & PROCESS_IDS:
            return self.owner.process.gid
        return self.owner.gid if self.owner.has & OWNER_GID else None

    @property
    def inode(self) -> int | None:
        """The inode of the socket, as /proc/PID/fd shows it."""
        return self.owner.inode or None

    @property
    def cookie(self) -> int | None:
        """The socket's cookie, as SO_COOKIE and sock_diag(7) report it."""
        return self.owner.cookie or None

    @property
    def cgroup_id(self) -> int | None:
        """The id of the socket's cgroup (v2): the inode of its directory."""
        return self.owner.cgroup_id or None

    @property
    def cgroup(self) -> str | None:
        """The path of the process's cgroup, or of the socket's (v2) if the process is unknown."""
        cdef const process_t *known = self.owner.process if self.owner.process != NULL else self.owner.cgroup
        if known == NULL or not known.has & PROCESS_CGROUP:
            return None
        return known.cgroup.at[:known.cgroup.size].decode("utf-8", "surrogateescape")

    @property
    def match(self) -> str | None:
        """How the owner was found: "bpf", "socket", "wildcard", "listener" or "protocol"; None if no socket was."""
        return _label(match_name(self.owner.match))

    @property
    def reason(self) -> str | None:
        """Why there is no process: "closed", "forwarded", "ambiguous", ...; None if there is one."""
        return _label(reason_name(self.owner.reason))

    def __repr__(self):
        return f"<Owner pid={self.pid} uid={self.uid} match={self.match} reason={self.reason}>"


cdef object owner_object(const owner_t *owner):
    cdef Owner result = Owner.__new__(Owner)
    owner_copy(owner, &result.owner)
    return result
