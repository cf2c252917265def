"""Who holds a socket, and what a cgroup's id means: what takes rights that who reads had better not have."""
from libc.stdint cimport uint32_t, uint64_t

from nfct_fast.processes.cgroup_filesystem cimport CgroupFilesystem
from nfct_fast.kernel.helper_channel cimport HelperChannel, request_head_t
from nfct_fast.sockets.socket_holders cimport holder_t, holders_t
from nfct_fast.sockets.fd_scanner cimport FdScanner
from nfct_fast.sockets.socket_info cimport socket_info_t

cdef struct question_t:
    request_head_t head
    uint32_t kind
    uint64_t inode
    uint64_t cgroup_id       # 0: not known
    uint32_t uid
    uint32_t uid_known
    holder_t holder

cdef union fingerprint_set_t:
    holders_t holders
    char path[4096]

cdef struct answer_t:
    uint32_t number
    int rc
    uint64_t trusted
    fingerprint_set_t seen              # as much of it as was sent

# One caller at a time.
cdef class HolderSearch:
    cdef FdScanner scanner         # None: another process does it
    cdef CgroupFilesystem cgroups
    cdef HelperChannel channel           # to that

    # FdScanner.find, where the processes of the socket's cgroup come first.
    cdef int holders(self, const socket_info_t *sock, holders_t *out) noexcept nogil
    # scanner_holds
    cdef bint holds(self, const holder_t *holder, uint64_t inode) noexcept nogil
    # CgroupFilesystem.path
    cdef ssize_t cgroup_path(self, uint64_t id, char *out, size_t size, size_t *trusted) noexcept nogil
    cdef ssize_t _ask(self, question_t *question, answer_t *answer) noexcept nogil
