"""The facts about one process: read from /proc once, then kept in a plain block of memory that outlives the process.

Facts that cannot be read (another user's exe, or a process that ends meanwhile) stay unknown. Only the start time is
indispensable, since it and the pid identify a process.
"""
from libc.errno cimport ENOENT, ENOMEM, ESRCH, errno
from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcpy, memset
from posix.fcntl cimport O_DIRECTORY, openat
from posix.stat cimport struct_stat
from nfct_fast.kernel.fstatat cimport fstatat
from posix.unistd cimport close

from procfs_calls cimport AT_SYMLINK_NOFOLLOW, O_CLOEXEC, O_PATH
from stdatomic cimport __ATOMIC_ACQ_REL, __ATOMIC_RELAXED, __atomic_add_fetch, __atomic_sub_fetch

from nfct_fast.processes.cgroup cimport cgroup_names, span_t
from nfct_fast.processes.cgroup_filesystem cimport CgroupFilesystem
from nfct_fast.processes.cmdline_reader cimport CMDLINES_UNKNOWN_USER, CommandLineReader, cmdline_t
from nfct_fast.kernel.procfs cimport procfs_link, procfs_link_number, procfs_name, procfs_read
from nfct_fast.processes.proc_stat cimport (
    PF_EXITING, PF_KTHREAD, STAT_SIZE, cgroup_choose, hash_mix, stat_read, stat_read_below, stat_t,
    status_number,
)

cdef enum:
    STATUS_SIZE = 1024       # bytes read of /proc/PID/status; the ids are in its first 300
    CGROUP_SIZE = 16384
    PATH_SIZE = 4096


cdef uint64_t owner_hash_mix(uint64_t hash, int root, const char *name) noexcept nogil:
    # The owner of /proc/PID is the effective user and group, so this notices a daemon that drops its privileges.
    cdef struct_stat st
    cdef uint32_t ids[2]
    if fstatat(root, name, &st, AT_SYMLINK_NOFOLLOW) == 0:
        ids[0] = st.st_uid
        ids[1] = st.st_gid
        hash = hash_mix(hash, <const char *>ids, sizeof(ids))
    return hash


cdef span_t put(char **room, span_t text) noexcept nogil:
    if text.size:
        memcpy(room[0], text.at, text.size)
    text.at = room[0]
    room[0] += text.size
    room[0][0] = 0
    room[0] += 1
    return text


cdef inline void move(span_t *name, span_t old, span_t new) noexcept nogil:
    # The root slice "-.slice" is not part of any path, so it does not move.
    if name.size and old.at <= name.at < old.at + old.size:
        name.at = new.at + (name.at - old.at)


cdef ancestor_t *ancestor_take(ancestor_t *ancestor) noexcept nogil:
    if ancestor != NULL:
        __atomic_add_fetch(&ancestor.refs, 1, __ATOMIC_RELAXED)
    return ancestor


cdef void ancestor_drop(ancestor_t *ancestor) noexcept nogil:
    cdef ancestor_t *next
    while ancestor != NULL and __atomic_sub_fetch(&ancestor.refs, 1, __ATOMIC_ACQ_REL) == 0:
        next = ancestor.next
        free(ancestor)
        ancestor = next


cdef ancestor_t *ancestor_copy(int32_t pid, uint64_t start_ns, span_t comm, span_t exe) noexcept nogil:
    cdef size_t size = sizeof(ancestor_t) + comm.size + exe.size + 2
    cdef ancestor_t *out = <ancestor_t *>malloc(size)
    cdef char *room
    if out == NULL:
        return NULL
    memset(out, 0, sizeof(out[0]))
    room = <char *>(out + 1)
    out.refs, out.pid, out.start_ns, out.bytes = 1, pid, start_ns, size
    out.comm = put(&room, comm)
    out.exe = put(&room, exe)
    return out


cdef void ancestor_link(ancestor_t *child, ancestor_t *next) noexcept nogil:
    child.next = next
    if next != NULL:
        child.depth = next.depth + 1
        child.bytes += next.bytes


cdef ancestor_t *ancestors_cut(ancestor_t *ancestor) noexcept nogil:
    # Copy only the nearest ANCESTORS: for a daemon that keeps forking and exiting the chain would grow forever.
    cdef ancestor_t *copies[ANCESTORS]
    cdef ancestor_t *above = NULL
    cdef int count = 0
    while ancestor != NULL and count < ANCESTORS:
        copies[count] = ancestor_copy(ancestor.pid, ancestor.start_ns, ancestor.comm, ancestor.exe)
        if copies[count] == NULL:
            break
        count += 1
        ancestor = ancestor.next
    while count:
        count -= 1
        ancestor_link(copies[count], above)
        above = copies[count]
    return above


cdef ancestor_t *ancestor_build(int32_t pid, uint64_t start_ns, span_t comm, span_t exe,
                                ancestor_t *next) noexcept nogil:
    cdef ancestor_t *out
    cdef ancestor_t *nearest
    if next != NULL and next.depth >= 2 * ANCESTORS:
        nearest = ancestors_cut(next)
        ancestor_drop(next)
        next = nearest
    if exe.size > ANCESTOR_EXE:
        exe.size = 0
    out = ancestor_copy(pid, start_ns, comm, exe)
    if out == NULL:
        ancestor_drop(next)
        return NULL
    ancestor_link(out, next)
    return out


cdef process_t *process_build(const process_t *facts) noexcept nogil:
    cdef size_t size = (sizeof(process_t) + facts.comm.size + facts.exe.size + facts.cmdline.size
                        + facts.cgroup.size + 4)
    cdef process_t *out = <process_t *>malloc(size)
    cdef char *room
    if out == NULL:
        return NULL
    out[0] = facts[0]
    room = <char *>(out + 1)
    out.comm = put(&room, facts.comm)
    out.exe = put(&room, facts.exe)
    out.cmdline = put(&room, facts.cmdline)
    out.cgroup = put(&room, facts.cgroup)
    cgroup_names(out.cgroup.at, out.cgroup.size, out.cgroup_trusted, &out.names)
    ancestor_take(out.ancestors)
    out.bytes = size
    out.shown = NULL
    out.refs = 1
    out.live_flows = out.groups = 0
    out.digest = 0
    out.subject = 0
    return out


cdef void status_read(int dirfd, process_t *facts) noexcept nogil:
    cdef char status[STATUS_SIZE]
    cdef ssize_t got = procfs_read(dirfd, b"status", status, STATUS_SIZE)
    cdef uint64_t value, uid
    if got <= 0:
        return
    if status_number(status, status + got, b"Tgid:", 5, &value) and 0 < value <= 0x7fffffff:
        facts.pid = <int32_t>value
    if (status_number(status, status + got, b"Uid:", 4, &uid)
            and status_number(status, status + got, b"Gid:", 4, &value)):
        facts.uid, facts.gid = <uint32_t>uid, <uint32_t>value
        facts.has |= PROCESS_IDS


cdef size_t unpadded(const char *arguments, size_t size) noexcept nogil:
    # A process that writes a title over its arguments fills the rest of that memory with NULs: leave them out.
    cdef size_t end = size
    while end and arguments[end - 1] == 0:
        end -= 1
    return end if memchr(arguments, 0, end) == NULL else size


cdef void cmdline_take(process_t *facts, const cmdline_t *cmdline, bint is_kthread) noexcept nogil:
    # A kernel thread has an empty command line. For any other process that means that an execve or exit is in progress,
    # since there are no empty argument lists any more (Linux 5.18).
    if cmdline.size < 0 and cmdline.size != -ESRCH and cmdline.size != -ENOENT:
        facts.has |= PROCESS_UNREAD
    elif cmdline.size > 0 or (cmdline.size == 0 and is_kthread):
        facts.cmdline.at = cmdline.buf
        facts.cmdline.size = unpadded(cmdline.buf, cmdline.size)
        facts.cmdline_size = cmdline.full_size if facts.cmdline.size == <size_t>cmdline.size else facts.cmdline.size
        facts.has |= PROCESS_CMDLINE


cdef int facts_read(int root, int dirfd, CommandLineReader lines, CgroupFilesystem cgroups, process_t *facts,
                    char *scratch, uint32_t limit) noexcept nogil:
    # Return 0, 1 if the process executed another program meanwhile, or -errno. scratch: room for 2 * STAT_SIZE +
    # PATH_SIZE + CGROUP_SIZE + `limit` bytes, used in this order.
    cdef char name[64]
    cdef char *exe = scratch + 2 * STAT_SIZE
    cdef char *cgroup = exe + PATH_SIZE
    cdef cmdline_t cmdline
    cdef stat_t before, after
    cdef ssize_t got
    cdef bint systemd
    cdef int32_t pid = facts.pid     # may be a thread's id
    cdef int rc = stat_read_below(dirfd, pid, scratch, &before)
    if rc < 0:
        return rc
    status_read(dirfd, facts)
    # While the helper reads the command line, read everything that never waits. The cgroup has to wait until later, as
    # it takes a lock that the whole machine shares.
    cmdline.dirfd, cmdline.pid, cmdline.start, cmdline.known = dirfd, facts.pid, before.start, before.arguments
    cmdline.buf, cmdline.limit = cgroup + CGROUP_SIZE, limit
    cmdline.user = facts.uid if facts.has & PROCESS_IDS else <uint64_t>CMDLINES_UNKNOWN_USER
    lines.begin(&cmdline)
    got = procfs_link(dirfd, b"exe", exe, PATH_SIZE)
    if got > 0:
        facts.exe.at = exe
        facts.exe.size = got
        facts.has |= PROCESS_EXE
    if procfs_link_number(dirfd, b"ns/net", b"net:[", &facts.netns) == 1:
        facts.has |= PROCESS_NETNS
    procfs_name(name, facts.pid, b"")
    facts.start = before.start
    facts.comm = before.comm
    facts.ppid = before.ppid
    facts.program_hash = owner_hash_mix(before.program_hash, root, name)
    facts.arg_start = before.arg_start
    facts.has |= PROCESS_COMM | PROCESS_PPID
    lines.finish(&cmdline, 0)
    cmdline_take(facts, &cmdline, before.flags & PF_KTHREAD != 0)
    got = procfs_read(dirfd, b"cgroup", cgroup, CGROUP_SIZE)
    if got > 0:
        facts.cgroup = cgroup_choose(cgroup, got, &systemd)
        if facts.cgroup.size:
            facts.cgroup_trusted = cgroups.trusted(facts.cgroup.at, facts.cgroup.size, systemd)
            facts.has |= PROCESS_CGROUP
    rc = stat_read_below(dirfd, pid, scratch + STAT_SIZE, &after)
    if rc == 0 and after.program_hash != before.program_hash:
        return 1
    # execve has made the new memory but not filled it in yet, or, if there is no exe, the process is exiting.
    if facts.has & PROCESS_UNREAD or not facts.has & PROCESS_EXE:
        return 0
    return 1 if facts.cmdline.size == 0 or before.code == 0 else 0


cdef process_t *process_read(int root, int32_t pid, CommandLineReader lines, CgroupFilesystem cgroups,
                             uint32_t cmdline_limit, int *error) noexcept nogil:
    cdef char name[64]
    cdef char *scratch
    cdef process_t facts
    cdef process_t *out = NULL
    cdef int dirfd, _, rc = 0
    error[0] = -ENOMEM
    scratch = <char *>malloc(2 * STAT_SIZE + PATH_SIZE + CGROUP_SIZE + <size_t>cmdline_limit)
    if scratch == NULL:
        return NULL
    # Read again if `pid` was a thread's, and up to twice if the process called execve meanwhile, since a mixture of two
    # programs (the new name with the old ids) would be wrong.
    for _ in range(4):
        memset(&facts, 0, sizeof(facts))
        facts.pid = pid
        if procfs_name(name, pid, b"") < 0:
            error[0] = -ESRCH
            break
        # Read everything relative to one descriptor: it returns ESRCH once the process has ended, even if its pid has
        # been reused.
        dirfd = openat(root, name, O_PATH | O_DIRECTORY | O_CLOEXEC)
        if dirfd < 0:
            error[0] = -errno
            break
        rc = facts_read(root, dirfd, lines, cgroups, &facts, scratch, cmdline_limit)
        close(dirfd)
        if rc >= 0 and facts.pid != pid:
            pid, facts.start = facts.pid, 0
            continue
        if rc != 1:
            break
    else:
        rc = 0 if facts.start else -ESRCH
    if rc < 0:
        error[0] = rc
    elif facts.has & PROCESS_COMM:
        out = process_build(&facts)
    free(scratch)
    if out != NULL:
        error[0] = 0
    return out


cdef process_t *process_completed(process_t *process, const process_t *known) noexcept nogil:
    cdef process_t facts
    cdef process_t *out
    if (process == NULL or known == NULL or not process.has & PROCESS_UNREAD or not known.has & PROCESS_CMDLINE
            or known.pid != process.pid or known.start != process.start or known.program_hash != process.program_hash):
        return process
    facts = process[0]
    facts.cmdline, facts.cmdline_size = known.cmdline, known.cmdline_size
    facts.has |= PROCESS_CMDLINE
    out = process_build(&facts)
    if out == NULL:
        return process
    process_drop(process)
    return out


cdef process_t *process_of_cgroup(const char *path, size_t size, size_t trusted) noexcept nogil:
    cdef process_t facts
    memset(&facts, 0, sizeof(facts))
    facts.cgroup.at = path
    facts.cgroup.size = size
    facts.cgroup_trusted = trusted
    facts.has = PROCESS_CGROUP
    return process_build(&facts)


cdef int process_check(int root, const process_t *process) noexcept nogil:
    cdef char buf[STAT_SIZE]
    cdef char name[64]
    cdef stat_t now
    cdef int rc
    rc = stat_read(root, process.pid, buf, &now)
    if rc == -ENOENT or rc == -ESRCH:
        return PROCESS_GONE
    if rc < 0:
        return rc
    if now.start != process.start:
        return PROCESS_GONE
    if now.state == c'Z' or now.state == c'X' or now.flags & PF_EXITING:
        return PROCESS_ENDING
    procfs_name(name, process.pid, b"")
    return PROCESS_SAME if owner_hash_mix(now.program_hash, root, name) == process.program_hash else PROCESS_CHANGED


cdef process_t *process_take(process_t *process) noexcept nogil:
    if process != NULL:
        __atomic_add_fetch(&process.refs, 1, __ATOMIC_RELAXED)
    return process


cdef void process_drop(process_t *process) noexcept nogil:
    if process != NULL and __atomic_sub_fetch(&process.refs, 1, __ATOMIC_ACQ_REL) == 0:
        ancestor_drop(process.ancestors)
        if process.shown != process:
            process_drop(process.shown)
        free(process)
