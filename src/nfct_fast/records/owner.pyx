"""Who is behind one end of a flow: the process, how it was found, and why not if it was not."""
cimport cython
from libc.stdlib cimport free, malloc
from nfct_fast.processes.process cimport (
    PROCESS_CGROUP, PROCESS_IDS, process_drop, process_object, process_t, process_take,
)
from nfct_fast.processes.process_reader cimport ProcessReader
from nfct_fast.sockets.fd_scanner cimport FdScanner

cdef extern from "nfct_fast/records/owner_words.h" nogil:
    const char *const nfct_fast_match_words[MATCH_COUNT]
    const char *const nfct_fast_reason_words[REASON_COUNT]


cdef void owner_drop(owner_t *owner) noexcept nogil:
    cdef int i
    process_drop(owner.process)
    process_drop(owner.cgroup)
    owner.process = owner.cgroup = NULL
    for i in range(owner.other_count):
        process_drop(owner.others[i])
    free(owner.others)
    owner.others = NULL
    owner.other_count = 0


cdef const char *match_name(uint8_t match) noexcept nogil:
    return nfct_fast_match_words[match] if match < MATCH_COUNT else NULL


cdef const char *reason_name(uint8_t reason) noexcept nogil:
    return nfct_fast_reason_words[reason] if reason < REASON_COUNT else NULL


cdef str _word(const char *word):
    return None if word == NULL else word.decode("ascii")


@cython.final
@cython.auto_pickle(False)
cdef class Owner:
    """Who is behind one end of a flow. Immutable; made by Conntrack only. What is not known is None.

    process: the `Process` printed for the flow. Where several hold the socket it is the first of `processes`: the one
    that was started first, as sockets are handed down to children; pid 1 and systemd only if there is no other. Which of
    them used the socket cannot be told.

    Limits without the kernel's own notes (match "bpf"). The socket is looked up after the event: if it was closed
    before and a process that is as old or older took the same port, that one is named; a younger one is not. A raw
    socket is told by its protocol alone (match "protocol"), so that of two processes that come and go the wrong one
    may be named. Two connected UDP sockets of the very same addresses and ports are taken for one.
    """

    def __init__(self):
        raise TypeError("an Owner comes from Conntrack")

    def __dealloc__(self):
        owner_drop(&self.owner)

    @property
    def process(self):
        """The owning `Process`, or None."""
        return process_object(process_take(self.owner.process))

    @property
    def processes(self) -> tuple:
        """Every `Process` found to hold the socket, `process` first; empty if none is known.

        Those that got it by fork or execve are all here, up to 32. One that got it over a UNIX socket is here only if
        no other was found before: `holders()` finds the rest.

        Of an UPDATE or DESTROY event with match "bpf": every process that used the tuple while the conntrack entry lived, up to 8,
        the latest first. A live UDP entry is used again, without an event, by whoever takes its port. Needs
        net.netfilter.nf_conntrack_timestamp=1; without the start of the entry it is as far as the kernel's notes reach back.
        """
        owner = () if self.owner.process == NULL else (self.process,)
        return (*owner, *[process_object(process_take(self.owner.others[i])) for i in range(self.owner.other_count)])

    def holders(self, proc="/proc") -> tuple:
        """Every `Process` that holds the socket at this moment, by a search through all of /proc.

        `process` comes first by the same rule; () if the socket is unknown or closed. Takes 4 us for each open file
        of the host. OSError if `proc` cannot be read; PermissionError if some processes may not be looked into and
        none was found.
        """
        if not self.owner.inode:
            return ()
        reader = ProcessReader(proc)
        found = [reader.process(pid) for pid, _ in FdScanner(proc).all_holders(self.owner.inode)]
        return tuple([process for process in found if process is not None])

    @property
    def pid(self) -> int | None:
        """The process id of `process`."""
        return None if self.owner.process == NULL else self.owner.process.pid

    @property
    def uid(self) -> int | None:
        """The real user id of the process; that of the socket where the process is not known."""
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
        """The inode of the socket, as in /proc/PID/fd."""
        return self.owner.inode or None

    @property
    def cookie(self) -> int | None:
        """The socket's cookie, as SO_COOKIE and sock_diag have it."""
        return self.owner.cookie or None

    @property
    def cgroup_id(self) -> int | None:
        """The id of the socket's cgroup (v2): the inode of its directory."""
        return self.owner.cgroup_id or None

    @property
    def cgroup(self) -> str | None:
        """The path of the process's cgroup; that of the socket (v2) where the process is not known."""
        cdef const process_t *known = self.owner.process if self.owner.process != NULL else self.owner.cgroup
        if known == NULL or not known.has & PROCESS_CGROUP:
            return None
        return known.cgroup.at[:known.cgroup.size].decode("utf-8", "surrogateescape")

    @property
    def match(self) -> str | None:
        """How the socket was found: "bpf", "socket", "wildcard", "listener" or "protocol"; None if it was not."""
        return _word(match_name(self.owner.match))

    @property
    def reason(self) -> str | None:
        """Why there is no process: "closed", "forwarded", "ambiguous", ...; None where there is one."""
        return _word(reason_name(self.owner.reason))

    def __repr__(self):
        return f"<Owner pid={self.pid} uid={self.uid} match={self.match} reason={self.reason}>"


cdef process_t **_copy(process_t **others, int count) noexcept nogil:
    cdef process_t **result = <process_t **>malloc(count * sizeof(process_t *))
    cdef int i
    if result != NULL:
        for i in range(count):
            result[i] = process_take(others[i])
    return result


cdef object owner_object(const owner_t *owner):
    cdef Owner result = Owner.__new__(Owner)
    result.owner = owner[0]
    process_take(result.owner.process)
    process_take(result.owner.cgroup)
    # The list of further holders is not counted: each object has its own copy of it.
    result.owner.others = NULL
    result.owner.other_count = 0
    if owner.other_count:
        result.owner.others = _copy(owner.others, owner.other_count)
        if result.owner.others == NULL:
            raise MemoryError("owner")
        result.owner.other_count = owner.other_count
    return result
