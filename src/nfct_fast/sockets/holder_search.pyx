"""Find holders of sockets and paths of cgroups, with privileges that the reading thread has given up.

Listing the open files of another user's process takes CAP_DAC_READ_SEARCH, and so does opening a cgroup by its id, but
that capability also allows reading any file. Therefore a helper process, forked at the start, does both. Its requests
are numbers, its answers are numbers and paths, and it parses nothing but what the kernel writes.
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

from nfct_fast.sockets.fd_scanner import BURST

cdef enum:
    HOLDERS = 1              # this and the next two are values of request_t.kind
    HOLDS = 2
    CGROUP_PATH = 3
    LIKELY_PIDS = 64         # processes of the socket's cgroup that are scanned before others
    HEAD = 16                # bytes of answer_t before `body`


cdef int find_holders(FdScanner scanner, CgroupFilesystem cgroups, const request_t *request,
                      holders_t *out) noexcept nogil:
    cdef int32_t likely_pids[LIKELY_PIDS]
    cdef int count = 0
    if request.cgroup_id:
        count = max(0, cgroups.pids(request.cgroup_id, likely_pids, LIKELY_PIDS))
    return scanner.find(request.inode, request.uid, request.uid_known, likely_pids, count, out)


cdef size_t serve_request(FdScanner scanner, CgroupFilesystem cgroups, const request_t *request,
                          answer_t *out) noexcept nogil:
    """Return the size of the answer in bytes."""
    cdef size_t trusted = 0
    out.number, out.rc, out.trusted = request.head.number, -ESRCH, 0
    if request.kind == HOLDERS:
        out.rc = find_holders(scanner, cgroups, request, &out.body.holders)
        return HEAD + sizeof(holders_t)
    if request.kind == HOLDS and request.holder.pid > 0 and request.holder.fd >= 0:
        out.rc = scanner_holds(scanner, &request.holder, request.inode)
    elif request.kind == CGROUP_PATH:
        out.rc = <int>cgroups.path(request.cgroup_id, out.body.path, sizeof(out.body.path), &trusted)
        out.trusted = trusted
    return HEAD + (max(0, out.rc) if request.kind == CGROUP_PATH else 0)


cdef void serve_requests(int fd, FdScanner scanner, CgroupFilesystem cgroups) noexcept nogil:
    cdef request_t request
    cdef answer_t answer
    cdef uint32_t processor = <uint32_t>-1
    cdef ssize_t got
    cdef int passed
    while True:
        got = pass_receive(fd, &request, sizeof(request), 0, &passed)
        if passed >= 0 or got != sizeof(request):
            return      # the program has ended
        if pass_send(fd, &answer, serve_request(scanner, cgroups, &request, &answer), -1) < 0:
            return
        channel_follow_cpu(request.head.processor, &processor)


def _serve(FdScanner scanner, CgroupFilesystem cgroups, int fd):
    with nogil:
        serve_requests(fd, scanner, cgroups)


def _prepare(proc, budget, burst):
    return functools.partial(_serve, FdScanner(proc, budget=budget, burst=burst), CgroupFilesystem())


@cython.final
@cython.auto_pickle(False)
cdef class HolderSearch:
    """A search for holders of sockets and paths of cgroups, in a helper process or in the calling thread.

    Args:
        proc, budget, burst: See FdScanner.
        cgroups: The cgroup file systems to use without a helper process.
        spawn_helper: Rights.spawn_helper, to have a helper process search; None: the calling thread does.

    Raises:
        OSError: /proc cannot be opened, or the helper process cannot be started.
    """

    def __init__(self, proc, double budget, CgroupFilesystem cgroups, spawn_helper=None,
                 double burst=BURST):
        self.cgroups = cgroups
        if spawn_helper is None:
            self.scanner = FdScanner(proc, budget=budget, burst=burst)
        else:
            self.channel = HelperChannel(*spawn_helper("nfct-holders", functools.partial(_prepare, proc, budget, burst),
                                                       ("dac_read_search", "sys_ptrace")))

    def close(self):
        """Close descriptors, which ends the helper process. No request may be running."""
        if self.scanner is not None:
            self.scanner.close()
        if self.channel is not None:
            self.channel.close()

    def check(self):
        """Raise OSError if the helper process has ended."""
        if self.channel is not None:
            self.channel.check()

    cdef ssize_t _ask(self, request_t *request, answer_t *answer) noexcept nogil:
        """Return answer.rc within a second, or -EAGAIN if there is no answer by then."""
        cdef int received
        cdef ssize_t got = self.channel.call(&request.head, sizeof(request[0]), answer, sizeof(answer[0]), -1,
                                             &received)
        if got < HEAD:
            return got if got < 0 else -EPIPE
        return answer.rc

    cdef int holders(self, const socket_info_t *sock, holders_t *out) noexcept nogil:
        cdef request_t request
        cdef answer_t answer
        cdef int rc
        memset(&request, 0, sizeof(request))
        request.kind, request.inode = HOLDERS, sock.inode
        request.cgroup_id = sock.cgroup_id if sock.has & SOCK_CGROUP else 0
        request.uid, request.uid_known = sock.uid, sock.has & SOCK_UID
        if self.scanner is not None:
            return find_holders(self.scanner, self.cgroups, &request, out)
        memset(&answer, 0, sizeof(answer))
        rc = <int>self._ask(&request, &answer)
        if not 0 <= answer.body.holders.count <= HOLDERS_MAX:
            return -EPIPE
        out[0] = answer.body.holders
        return rc

    cdef bint holds(self, const holder_t *holder, uint64_t inode) noexcept nogil:
        cdef request_t request
        cdef answer_t answer
        if self.scanner is not None:
            return scanner_holds(self.scanner, holder, inode)
        memset(&request, 0, sizeof(request))
        request.kind, request.inode, request.holder = HOLDS, inode, holder[0]
        return self._ask(&request, &answer) > 0

    cdef ssize_t cgroup_path(self, uint64_t id, char *out, size_t size, size_t *trusted) noexcept nogil:
        cdef request_t request
        cdef answer_t answer
        cdef int rc
        if self.scanner is not None:
            return self.cgroups.path(id, out, size, trusted)
        memset(&request, 0, sizeof(request))
        request.kind, request.cgroup_id = CGROUP_PATH, id
        rc = <int>self._ask(&request, &answer)
        if rc < 0:
            return rc
        if <size_t>rc >= min(size, sizeof(answer.body.path)) or answer.trusted > <uint64_t>rc:
            return -EPIPE
        memcpy(out, answer.body.path, rc)
        out[rc] = 0
        trusted[0] = answer.trusted
        return rc
