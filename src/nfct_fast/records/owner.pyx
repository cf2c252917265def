"""The owner of one end of a flow: the process, how it was found, or the reason why there is none."""
cimport cython
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset
from nfct_fast.processes.account_names cimport ACCOUNT_NAME_MAX
from nfct_fast.processes.identity cimport Identity
from nfct_fast.processes.process_json cimport identity_json, process_json, process_json_kept
from nfct_fast.processes.process_texts cimport process_text_t
from nfct_fast.text.json_text cimport json_label, json_name, json_number, json_raw
from nfct_fast.text.text_buffer cimport buffer_object, buffer_put, text_buffer_t
from stdatomic cimport __ATOMIC_ACQ_REL, __ATOMIC_RELAXED, __atomic_add_fetch, __atomic_sub_fetch
from nfct_fast.processes.redactor cimport Redactor
from nfct_fast.processes.process cimport PROCESS_CGROUP, PROCESS_IDS, process_drop, process_t, process_take
from nfct_fast.processes.process_object cimport process_object, process_restore, process_state

import json

from nfct_fast.records.words import Match, Reason

cdef extern from "nfct_fast/text/siphash.h" nogil:
    uint64_t nfct_fast_text_hash(const uint64_t *key, const char *data, size_t length)

cdef extern from "nfct_fast/records/owner_labels.h" nogil:
    const char *const nfct_fast_match_names[MATCH_COUNT]
    const char *const nfct_fast_reason_names[REASON_COUNT]


cdef others_t *others_new(int room) noexcept nogil:
    cdef others_t *others = <others_t *>malloc(sizeof(others_t) + room * sizeof(process_t *))
    if others != NULL:
        others.refs = 1
        others.count = 0
        others.live_flows = others.groups = 0
        others.digest = 0
        others.shown = NULL
    return others


cdef void others_drop(others_t *others) noexcept nogil:
    cdef int i
    if others != NULL and __atomic_sub_fetch(&others.refs, 1, __ATOMIC_ACQ_REL) == 0:
        for i in range(others.count):
            process_drop(others.at[i])
        others_drop(others.shown)
        free(others)


cdef void owner_drop(owner_t *owner) noexcept nogil:
    process_drop(owner.process)
    process_drop(owner.cgroup)
    others_drop(owner.others)
    owner.process = owner.cgroup = NULL
    owner.others = NULL


cdef void owner_copy(const owner_t *owner, owner_t *out) noexcept nogil:
    out[0] = owner[0]
    process_take(out.process)
    process_take(out.cgroup)
    if out.others != NULL:
        __atomic_add_fetch(&out.others.refs, 1, __ATOMIC_RELAXED)


cdef uint64_t process_digest(process_t *process, const uint64_t *key) noexcept nogil:
    # Not what can change while it is the same program in the same process, as its parent does. Its names are in its
    # cgroup, and all texts in the memory behind it.
    cdef uint64_t words[16]
    if process == NULL:
        return 0
    if process.digest == 0:
        words[:] = [
            <uint64_t>process.pid, process.start, process.start_ns, process.uid, process.gid,
            process.exe_dev, process.exe_inode, process.login_uid, process.ns_pid, process.cmdline_size,
            process.cgroup_trusted, process.comm.size, process.exe.size, process.cmdline.size, process.cgroup.size,
            nfct_fast_text_hash(key, <const char *>(process + 1), process.bytes - sizeof(process_t)),
        ]
        process.digest = nfct_fast_text_hash(key, <const char *>words, sizeof(words)) | 1
    return process.digest


cdef uint64_t _others_digest(others_t *others, const uint64_t *key) noexcept nogil:
    cdef uint64_t digest = 1
    cdef int i
    if others == NULL:
        return 0
    if others.digest == 0:
        for i in range(others.count):
            digest += process_digest(others.at[i], key) << 1        # in any order
        others.digest = digest
    return others.digest


cdef uint64_t owner_digest(const owner_t *owner, const uint64_t *key) noexcept nogil:
    cdef uint64_t words[7]
    words[:] = [
        process_digest(owner.process, key), process_digest(owner.cgroup, key), _others_digest(owner.others, key),
        owner.cgroup_id,
        <uint64_t>owner.uid << 32 | owner.gid, other_count(owner),
        owner.has | <uint64_t>owner.match << 8 | <uint64_t>owner.reason << 16,
    ]
    return nfct_fast_text_hash(key, <const char *>words, sizeof(words))


cdef others_t *_shown(others_t *others, Redactor redactor) noexcept nogil:
    cdef others_t *shown = others_new(others.count)
    cdef int i
    if shown != NULL:
        for i in range(others.count):
            shown.at[shown.count] = process_take(others.at[i])
            redactor.show(&shown.at[shown.count])
            shown.count += shown.at[shown.count] != NULL
    return shown


cdef void owner_redact(owner_t *owner, Redactor redactor) noexcept nogil:
    cdef others_t *others = owner.others
    if owner.process != NULL:
        redactor.show(&owner.process)
        if owner.process == NULL:
            owner.reason = REASON_ERROR
    if others != NULL:
        if others.shown == NULL:
            others.shown = _shown(others, redactor)
        owner.others = others.shown
        if owner.others != NULL:
            __atomic_add_fetch(&owner.others.refs, 1, __ATOMIC_RELAXED)
        others_drop(others)


cdef const char *match_name(uint8_t match) noexcept nogil:
    return nfct_fast_match_names[match] if match < MATCH_COUNT else NULL


cdef const char *reason_name(uint8_t reason) noexcept nogil:
    return nfct_fast_reason_names[reason] if reason < REASON_COUNT else NULL


cdef tuple _words(const char *const *names, int count, kind):
    return tuple([None if names[i] == NULL else kind(names[i].decode("ascii")) for i in range(count)])


cdef tuple _MATCHES = _words(nfct_fast_match_names, MATCH_COUNT, Match)
cdef tuple _REASONS = _words(nfct_fast_reason_names, REASON_COUNT, Reason)


@cython.final
@cython.auto_pickle(False)
cdef class Owner:
    """The owner of one end of a flow. Immutable; only Conntrack makes it. Attributes that are unknown are None.

    process: the `Process` printed for the flow. If several processes hold the socket, it is the first of `processes`:
    the one that was started first, as sockets are inherited by children. pid 1 and systemd come last. Which of the
    holders used the socket cannot be determined.

    Limits of every match other than "bpf": the socket is looked up after the event. If it was closed by then and
    another process has taken the same port, that process is named, provided it was started before the flow. A raw
    socket is identified by its protocol alone (match "protocol"), so the wrong one of two processes that come and go
    may be named. Two connected UDP sockets with identical addresses and ports are taken for one.
    """

    def __init__(self):
        raise TypeError("an Owner cannot be made directly; Conntrack makes it")

    def __dealloc__(self):
        owner_drop(&self.owner)

    @property
    def process(self):
        """The owning `Process`, or None."""
        return process_object(process_take(self.owner.process), self.identity)

    @property
    def processes(self) -> tuple:
        """Every `Process` found to hold the socket, `process` first; empty if none is known.

        There are at most 32, which share the socket by fork. A process that received it over a UNIX socket is found
        only if no other was; `find_holders()` finds the rest.

        For an UPDATE or DESTROY event with match "bpf": every process that used the tuple while the conntrack entry
        lived, up to 8, the latest first, since whoever takes the port of a live UDP entry uses it again without an
        event. This needs net.netfilter.nf_conntrack_timestamp=1; without the entry's start time, it reaches back as far
        as the BPF programs' notes do.
        """
        owner = () if self.owner.process == NULL else (self.process,)
        others = range(other_count(&self.owner))
        return (*owner, *[process_object(process_take(self.owner.others.at[i]), self.identity) for i in others])

    @property
    def pid(self) -> int | None:
        """The process id of `process`."""
        return None if self.owner.process == NULL else self.owner.process.pid

    @property
    def uid(self) -> int | None:
        """The real user id of the process, or of the socket if the process is unknown."""
        cdef uint32_t id = 0
        return id if owner_uid(&self.owner, &id) else None

    @property
    def gid(self) -> int | None:
        """The real group id of the process."""
        cdef uint32_t id = 0
        return id if owner_gid(&self.owner, &id) else None

    @property
    def user(self) -> str | None:
        """The name of the user `uid`, by /etc/passwd of this host; None if it has none there."""
        cdef uint32_t id = 0
        return self.identity.names.user_name(id) if owner_uid(&self.owner, &id) else None

    @property
    def group(self) -> str | None:
        """The name of the group `gid`, by /etc/group of this host; None if it has none there."""
        cdef uint32_t id = 0
        return self.identity.names.group_name(id) if owner_gid(&self.owner, &id) else None

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
    def match(self) -> Match | None:
        """How the owner was found: a `Match`, such as "bpf"; None if no socket was."""
        return _MATCHES[self.owner.match]

    @property
    def reason(self) -> Reason | None:
        """Why there is no process: a `Reason`, such as "closed"; None if there is one."""
        return _REASONS[self.owner.reason]

    def __repr__(self):
        return f"<Owner pid={self.pid} uid={self.uid} match={self.match} reason={self.reason}>"

    def to_json(self) -> str:
        """Return the object that `owner` and `peer` are in the output of --json."""
        cdef text_buffer_t out
        memset(&out, 0, sizeof(out))
        owner_json(&out, b"{", &self.owner, NULL, self.identity)
        return buffer_object(&out)

    def to_dict(self) -> dict:
        """Return what to_json() writes as a dict."""
        return json.loads(self.to_json())

    __match_args__ = ("pid", "uid", "match", "reason")

    def __eq__(self, other):
        if not isinstance(other, Owner):
            return NotImplemented
        return (owner_state(&self.owner) == owner_state(&(<Owner>other).owner)
                and self.identity.host == (<Owner>other).identity.host)

    def __hash__(self):
        return hash(owner_state(&self.owner))

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        uids, gids = owner_ids(&self.owner)
        return _restored, (owner_state(&self.owner), self.identity.saved(uids, gids))


cdef void _user(text_buffer_t *out, const process_t *process, Identity identity) noexcept nogil:
    json_number(out, b'{"pid":', process.pid)
    json_number(out, b',"start_ns":', identity.start_ns(process.start_ns, process.start))
    identity_json(out, process.pid, process.start, False, identity)
    json_number(out, b',"uid":', process.uid)
    json_number(out, b',"gid":', process.gid)
    json_name(out, b',"comm":', process.comm.at, process.comm.size)
    buffer_put(out, b"}", 1)


cdef void owner_json(text_buffer_t *out, const char *key, const owner_t *owner, process_text_t *texts,
                     Identity identity) noexcept nogil:
    cdef int others = other_count(owner)
    cdef process_t *known = owner.process if owner.process != NULL else owner.cgroup
    cdef char name[ACCOUNT_NAME_MAX]
    cdef uint32_t id = 0
    cdef int i
    json_raw(out, key)
    if known != NULL and texts != NULL:
        process_json_kept(texts, out, known, identity)
    elif known != NULL:
        process_json(out, known, identity)
    else:
        json_raw(out, b'"pid":null')
    if owner_uid(owner, &id):
        json_number(out, b',"uid":', id)
        json_name(out, b',"user":', name, identity.names.user(id, name))
    if owner_gid(owner, &id):
        json_number(out, b',"gid":', id)
        json_name(out, b',"group":', name, identity.names.group(id, name))
    if owner.inode:
        json_number(out, b',"inode":', owner.inode)
    if owner.cookie:
        json_number(out, b',"cookie":', owner.cookie)
    if owner.cgroup_id:
        json_number(out, b',"cgroup_id":', owner.cgroup_id)
    if others and owner.has & OWNER_USERS:
        json_raw(out, b',"users":[')
        if owner.process != NULL:
            _user(out, owner.process, identity)
        for i in range(others):
            if i or owner.process != NULL:
                buffer_put(out, b",", 1)
            _user(out, owner.others.at[i], identity)
        buffer_put(out, b"]", 1)
    elif others:
        for i in range(others):
            json_number(out, b"," if i else b',"others":[', owner.others.at[i].pid)
        buffer_put(out, b"]", 1)
    json_label(out, b',"match":', match_name(owner.match))
    json_label(out, b',"reason":', reason_name(owner.reason))
    buffer_put(out, b"}", 1)


cdef tuple owner_ids(const owner_t *owner):
    cdef const process_t *process
    cdef int i
    uids, gids = set(), set()
    if owner.has & OWNER_UID:
        uids.add(owner.uid)
    if owner.has & OWNER_GID:
        gids.add(owner.gid)
    for i in range(-1, other_count(owner)):
        process = owner.process if i < 0 else owner.others.at[i]
        if process != NULL and process.has & PROCESS_IDS:
            uids.add(process.uid)
            gids.add(process.gid)
    return uids, gids


cdef tuple owner_state(const owner_t *owner):
    return (None if owner.process == NULL else process_state(owner.process),
            tuple([process_state(owner.others.at[i]) for i in range(other_count(owner))]),
            None if owner.cgroup == NULL else process_state(owner.cgroup),
            owner.inode, owner.cookie, owner.cgroup_id, owner.uid, owner.gid, owner.has, owner.match, owner.reason)


cdef int owner_restore(owner_t *out, tuple state) except -1:
    """Fill an owner that is all zero; what it holds after an exception is the caller's to drop."""
    process, others, cgroup = state[:3]
    out.inode, out.cookie, out.cgroup_id, out.uid, out.gid, out.has, out.match, out.reason = state[3:]
    if out.match >= MATCH_COUNT or out.reason >= REASON_COUNT or len(others) > 255:
        raise ValueError("not the state of an Owner")
    if process is not None:
        out.process = process_restore(process)
    if cgroup is not None:
        out.cgroup = process_restore(cgroup)
    if others:
        out.others = others_new(<int>len(others))
        if out.others == NULL:
            raise MemoryError("owner")
        for other in others:
            out.others.at[out.others.count] = process_restore(other)
            out.others.count += 1
    return 0


def _restored(state, saved):
    """Make an Owner of what __reduce__() saved."""
    cdef Owner result = Owner.__new__(Owner)
    result.identity = Identity(*saved)
    owner_restore(&result.owner, state)
    return result


cdef object owner_object(const owner_t *owner, Identity identity):
    cdef Owner result = Owner.__new__(Owner)
    result.identity = identity
    owner_copy(owner, &result.owner)
    return result
