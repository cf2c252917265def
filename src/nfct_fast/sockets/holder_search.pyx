"""Who holds a socket, and what a cgroup's id means: what takes rights that who reads had better not have.

To list the open files of another user's process takes CAP_DAC_READ_SEARCH, and so does opening a cgroup by its id: with
it any file can be read. The program has a process of its own for these, forked at the start, that is asked in numbers,
answers in numbers and paths, and parses nothing but what the kernel writes.
"""
cimport cython
from libc.errno cimport EPIPE, ESRCH
from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from nfct_fast.kernel.pass_fd cimport pass_receive, pass_send

from nfct_fast.kernel.helper_channel cimport channel_follow_cpu
from nfct_fast.sockets.socket_holders cimport HOLDERS_MAX
from nfct_fast.sockets.fd_scanner cimport scanner_holds
from nfct_fast.sockets.socket_info cimport SOCK_CGROUP, SOCK_UID

import functools

cdef enum:
    HOLDERS = 1              # question_t.kind
    HOLDS = 2
    CGROUP_PATH = 3
    CANDIDATES = 64          # processes of the socket's cgroup that are looked into before others
    HEAD = 16                # bytes of answer_t before `seen`


cdef int look_for_holders(FdScanner scanner, CgroupFilesystem cgroups, const question_t *asked, holders_t *out) noexcept nogil:
    cdef int32_t candidates[CANDIDATES]
    cdef int count = 0
    if asked.cgroup_id:
        count = max(0, cgroups.pids(asked.cgroup_id, candidates, CANDIDATES))
    return scanner.find(asked.inode, asked.uid, asked.uid_known, candidates, count, out)


cdef size_t reply(FdScanner scanner, CgroupFilesystem cgroups, const question_t *asked, answer_t *out) noexcept nogil:
    """The size of the answer."""
    cdef size_t trusted = 0
    out.number, out.rc, out.trusted = asked.head.number, -ESRCH, 0
    if asked.kind == HOLDERS:
        out.rc = look_for_holders(scanner, cgroups, asked, &out.seen.holders)
        return HEAD + sizeof(holders_t)
    if asked.kind == HOLDS and asked.holder.pid > 0 and asked.holder.fd >= 0:
        out.rc = scanner_holds(scanner, &asked.holder, asked.inode)
    elif asked.kind == CGROUP_PATH:
        out.rc = <int>cgroups.path(asked.cgroup_id, out.seen.path, sizeof(out.seen.path), &trusted)
        out.trusted = trusted
    return HEAD + (max(0, out.rc) if asked.kind == CGROUP_PATH else 0)


cdef void serve_at(int fd, FdScanner scanner, CgroupFilesystem cgroups) noexcept nogil:
    cdef question_t asked
    cdef answer_t answer
    cdef uint32_t here = <uint32_t>-1
    cdef ssize_t got
    cdef int passed
    while True:
        got = pass_receive(fd, &asked, sizeof(asked), 0, &passed)
        if passed >= 0 or got != sizeof(asked):
            return      # the program has ended
        if pass_send(fd, &answer, reply(scanner, cgroups, &asked, &answer), -1) < 0:
            return
        channel_follow_cpu(asked.head.processor, &here)


def _serve(FdScanner scanner, CgroupFilesystem cgroups, int fd):
    with nogil:
        serve_at(fd, scanner, cgroups)


def _prepare(proc, budget):
    return functools.partial(_serve, FdScanner(proc, budget=budget), CgroupFilesystem())


@cython.final
@cython.auto_pickle(False)
cdef class HolderSearch:
    """proc and budget: see FdScanner. spawn_helper: Rights.spawn_helper, to have a process of its own look; None: it looks itself, with
    `cgroups`. OSError."""

    def __init__(self, proc, double budget, CgroupFilesystem cgroups, spawn_helper=None):
        self.cgroups = cgroups
        if spawn_helper is None:
            self.scanner = FdScanner(proc, budget=budget)
        else:
            self.channel = HelperChannel(*spawn_helper("nfct-seeker", functools.partial(_prepare, proc, budget),
                                          ("dac_read_search", "sys_ptrace")))

    def close(self):
        """No question may be under way."""
        if self.scanner is not None:
            self.scanner.close()
        if self.channel is not None:
            self.channel.close()

    def check(self):
        """OSError if nobody looks any more."""
        if self.channel is not None:
            self.channel.check()

    cdef ssize_t _ask(self, question_t *question, answer_t *answer) noexcept nogil:
        """answer.rc, after a second at most; -EAGAIN if there was none in time."""
        cdef int received
        cdef ssize_t got = self.channel.call(&question.head, sizeof(question[0]), answer, sizeof(answer[0]), -1, &received)
        if got < HEAD:
            return got if got < 0 else -EPIPE
        return answer.rc

    cdef int holders(self, const socket_info_t *sock, holders_t *out) noexcept nogil:
        cdef question_t question
        cdef answer_t answer
        cdef int rc
        memset(&question, 0, sizeof(question))
        question.kind, question.inode = HOLDERS, sock.inode
        question.cgroup_id = sock.cgroup_id if sock.has & SOCK_CGROUP else 0
        question.uid, question.uid_known = sock.uid, sock.has & SOCK_UID
        if self.scanner is not None:
            return look_for_holders(self.scanner, self.cgroups, &question, out)
        memset(&answer, 0, sizeof(answer))
        rc = <int>self._ask(&question, &answer)
        if not 0 <= answer.seen.holders.count <= HOLDERS_MAX:
            return -EPIPE
        out[0] = answer.seen.holders
        return rc

    cdef bint holds(self, const holder_t *holder, uint64_t inode) noexcept nogil:
        cdef question_t question
        cdef answer_t answer
        if self.scanner is not None:
            return scanner_holds(self.scanner, holder, inode)
        memset(&question, 0, sizeof(question))
        question.kind, question.inode, question.holder = HOLDS, inode, holder[0]
        return self._ask(&question, &answer) > 0

    cdef ssize_t cgroup_path(self, uint64_t id, char *out, size_t size, size_t *trusted) noexcept nogil:
        cdef question_t question
        cdef answer_t answer
        cdef int rc
        if self.scanner is not None:
            return self.cgroups.path(id, out, size, trusted)
        memset(&question, 0, sizeof(question))
        question.kind, question.cgroup_id = CGROUP_PATH, id
        rc = <int>self._ask(&question, &answer)
        if rc < 0:
            return rc
        if <size_t>rc >= min(size, sizeof(answer.seen.path)) or answer.trusted > <uint64_t>rc:
            return -EPIPE
        memcpy(out, answer.seen.path, rc)
        out[rc] = 0
        trusted[0] = answer.trusted
        return rc
