"""Find holders of sockets and paths of cgroups, with privileges that the reading thread has given up."""
from libc.stdint cimport uint32_t, uint64_t

from nfct_fast.processes.cgroup_filesystem cimport CgroupFilesystem
from nfct_fast.kernel.helper_channel cimport HelperChannel, request_head_t
from nfct_fast.sockets.socket_holders cimport holder_t, holders_t
from nfct_fast.sockets.fd_scanner cimport FdScanner
from nfct_fast.sockets.socket_info cimport socket_info_t

cdef struct request_t:
    request_head_t head
    uint32_t kind            # HOLDERS, HOLDS or CGROUP_PATH
    uint64_t inode           # inode of the socket
    uint64_t cgroup_id       # cgroup of the socket, or the one whose path is wanted; 0: not known
    uint32_t uid             # user of the socket
    uint32_t uid_known
    holder_t holder          # for HOLDS: the process to check

cdef union answer_body_t:
    holders_t holders        # for HOLDERS
    char path[4096]          # for CGROUP_PATH, without a NUL

cdef struct answer_t:
    uint32_t number          # number of the request
    int rc                   # the function's return value; for CGROUP_PATH the length of the path
    uint64_t trusted         # for CGROUP_PATH: see CgroupFilesystem.path
    answer_body_t body       # only the part that is used is sent

# One caller at a time.
cdef class HolderSearch:
    cdef FdScanner scanner         # None: a helper process scans
    cdef CgroupFilesystem cgroups
    cdef HelperChannel channel     # to the helper process; None: this thread scans

    # As FdScanner.find(), with the processes of the socket's cgroup as the likely ones.
    cdef int holders(self, const socket_info_t *sock, holders_t *out) noexcept nogil
    # As scanner_holds().
    cdef bint holds(self, const holder_t *holder, uint64_t inode) noexcept nogil
    # As CgroupFilesystem.path().
    cdef ssize_t cgroup_path(self, uint64_t id, char *out, size_t size, size_t *trusted) noexcept nogil
    cdef ssize_t _ask(self, request_t *request, answer_t *answer) noexcept nogil
