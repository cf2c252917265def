"""The class `Process`: what is known of a process as a Python value."""
cimport cython
from libc.errno cimport ENOMEM
from libc.stdint cimport int32_t, uint64_t
from libc.string cimport memset
from posix.unistd cimport _SC_CLK_TCK, close, sysconf

from nfct_fast.kernel.procfs cimport procfs_open
from nfct_fast.processes.cgroup cimport span_t
from nfct_fast.processes.cgroup_filesystem cimport CgroupFilesystem
from nfct_fast.processes.cmdline_reader cimport CommandLineReader
from nfct_fast.processes.identity cimport ENTITY_ID_SIZE, Identity
from nfct_fast.processes.process cimport (
    ANCESTORS, PROCESS_CMDLINE, PROCESS_EXE_FILE, PROCESS_FORKED, PROCESS_IDS, PROCESS_LOGIN, PROCESS_NETNS,
    PROCESS_PPID, ancestor_build, ancestor_drop, ancestor_t, process_build, process_drop, process_read, process_t,
)
from nfct_fast.processes.process_json cimport process_json
from nfct_fast.text.text_buffer cimport buffer_object, buffer_put, text_buffer_t

import json
import os
from typing import NamedTuple


class Ancestor(NamedTuple):
    """A process as it was when it forked a child."""

    pid: int
    comm: str           # name of its main thread, at most 15 bytes
    exe: str | None     # path of its executable; None: not known
    start_ns: int       # start time: CLOCK_BOOTTIME, ns since boot
    start: float        # as Process.start
    entity_id: str | None   # as Process.entity_id


cdef object text(span_t s):
    return s.at[:s.size].decode("utf-8", "surrogateescape") if s.size else None


cdef str entity(Identity host, int32_t pid, uint64_t ticks):
    cdef char out[ENTITY_ID_SIZE]
    return out[:ENTITY_ID_SIZE].decode("ascii") if host.entity_id(pid, ticks, out) else None


@cython.final
@cython.auto_pickle(False)
cdef class Process:
    """The facts about a process as they were when it was read. Immutable, and still valid after the process has ended.

    Facts that could not be read are None. Names are str; bytes that are not UTF-8 are kept as surrogates, and
    os.fsencode() restores them. Two objects are equal if pid and start time are. Only the library makes such objects.
    """

    def __init__(self):
        raise TypeError("Process objects come from flows and from process(pid)")

    def __dealloc__(self):
        process_drop(self._process)

    cdef Identity _host(self):
        if self._identity is None:
            self._identity = Identity()
        return self._identity

    @property
    def pid(self):
        """Process id (thread group id), int."""
        return self._process.pid

    @property
    def ppid(self):
        """Process id of the parent, int; 0 if the parent is outside our pid namespace."""
        return self._process.ppid if self._process.has & PROCESS_PPID else None

    @property
    def uid(self):
        """Real user id, int."""
        return self._process.uid if self._process.has & PROCESS_IDS else None

    @property
    def gid(self):
        """Real group id, int."""
        return self._process.gid if self._process.has & PROCESS_IDS else None

    @property
    def user(self) -> str | None:
        """Name of the user, by /etc/passwd of this host; None if it has none there. No directory server is asked."""
        return self._host().names.user_name(self._process.uid) if self._process.has & PROCESS_IDS else None

    @property
    def group(self) -> str | None:
        """Name of the group, by /etc/group of this host; None if it has none there."""
        return self._host().names.group_name(self._process.gid) if self._process.has & PROCESS_IDS else None

    @property
    def comm(self):
        """Name of the main thread, at most 15 bytes; the program can change it."""
        return text(self._process.comm) or ""

    @property
    def exe(self):
        """Path of the executable as the kernel shows it, followed by " (deleted)" if the file was deleted.

        The path is valid in the process's own mount namespace, where root of a container, or any user in a user
        namespace of their own, can put a file at any path. `exe_dev` and `exe_inode` identify the file itself.
        """
        return text(self._process.exe)

    @property
    def exe_dev(self):
        """Device of the file system that holds the executable, int, encoded like os.stat().st_dev.

        On btrfs, and on overlayfs with several layers, it is the kernel's own number, while stat(2) shows a made-up
        one.
        """
        return self._process.exe_dev if self._process.has & PROCESS_EXE_FILE else None

    @property
    def exe_inode(self):
        """Inode number of the executable, int."""
        return self._process.exe_inode if self._process.has & PROCESS_EXE_FILE else None

    @property
    def cmdline(self):
        """The arguments, a tuple of str, empty for a kernel thread. If `cmdline_cut`, the last one is not complete."""
        cdef bytes raw
        if not self._process.has & PROCESS_CMDLINE:
            return None
        raw = self._process.cmdline.at[:self._process.cmdline.size]
        if not raw:
            return ()
        return tuple(raw.decode("utf-8", "surrogateescape").split("\0"))

    @property
    def cmdline_size(self):
        """Bytes of the whole command line, int."""
        return self._process.cmdline_size if self._process.has & PROCESS_CMDLINE else None

    @property
    def cmdline_cut(self):
        """True if only the beginning of the command line was kept: see `cmdline_limit`."""
        return self._process.cmdline_size > self._process.cmdline.size

    @property
    def forked(self):
        """True if the process never called execve: `exe` and `cmdline` are those of the process it was forked from."""
        return bool(self._process.has & PROCESS_FORKED)

    @property
    def login_uid(self):
        """Audit login uid, int, which su and sudo do not change; None if it is not set or not known."""
        return self._process.login_uid if self._process.has & PROCESS_LOGIN else None

    @property
    def ns_pid(self):
        """Process id in the process's own pid namespace, int; None if that is the initial one or is not known."""
        return self._process.ns_pid or None

    @property
    def start_ns(self):
        """Start time, int: CLOCK_BOOTTIME, ns since boot. Exact if an event reported it, else to 10 ms."""
        return self._process.start_ns or self._process.start * (1000000000 // sysconf(_SC_CLK_TCK))

    @property
    def ancestors(self) -> tuple:
        """The processes it descends from by fork, as `Ancestor`, nearest first; () if they are not known.

        Includes processes that have ended. The nearest is the process that called fork, even if CLONE_PARENT gave the
        child another parent. Each is described as it was when it forked: a shell that later executed another program is
        listed as the shell. Ancestors that began before monitoring did are described as /proc showed them then. At
        least 16 are kept.
        """
        cdef ancestor_t *at = self._process.ancestors
        cdef Identity host = self._host()
        cdef uint64_t ticks
        found = []
        while at != NULL:
            ticks = host.ticks(at.start_ns)
            found.append(Ancestor(at.pid, text(at.comm) or "", text(at.exe), at.start_ns, host.start_time(ticks) / 1e9,
                                  entity(host, at.pid, ticks)))
            at = at.next
        return tuple(found)

    @property
    def start(self):
        """Start time: seconds since the epoch, float, to a hundredth of a second.

        By the clock as it was when the Conntrack was opened: a later step of the clock changes no process's start.
        """
        return self._host().start_time(self._process.start) / 1e9

    @property
    def entity_id(self) -> str | None:
        """A name for this process among those of all hosts and boots, 16 characters.

        The first 12 bytes of the SHA-1 of "BOOT_ID:PID:START", in URL-safe base64: the boot id as 32 hexadecimal
        digits, and `start_ticks`. Every program that knows these can compute it.
        """
        return entity(self._host(), self._process.pid, self._process.start)

    @property
    def start_ticks(self):
        """Start time in the kernel's clock ticks (1/100 s) after boot, int. With `pid` it identifies the process."""
        return self._process.start

    @property
    def cgroup(self):
        """Path of the process's cgroup, in the v1 hierarchy name=systemd or else in cgroup2."""
        return text(self._process.cgroup)

    @property
    def unit(self):
        """systemd unit, as `systemctl status PID` shows it.

        Like `slice`, `container` and `runtime`, it is taken only from levels of the cgroup path that the host's root
        made.
        """
        return text(self._process.names.unit)

    @property
    def user_unit(self):
        """Unit of the user's own service manager (`systemctl --user`), if it is in one; the user chooses its name."""
        return text(self._process.names.user_unit)

    @property
    def slice(self):
        """systemd slice."""
        return text(self._process.names.slice)

    @property
    def container(self):
        """Id of its container, or its name if the runtime uses names; the outermost one if containers are nested."""
        return text(self._process.names.container)

    @property
    def runtime(self):
        """Container runtime, if the cgroup path shows it: "docker", "libpod", "cri-containerd", "crio", "lxc"..."""
        return text(self._process.names.runtime)

    @property
    def claimed_unit(self):
        """systemd unit according to the whole cgroup path, if that differs from `unit`.

        Someone other than the host's root may have chosen it: the owner of a directory above, or root of a container.
        """
        return text(self._process.names.claimed_unit)

    @property
    def claimed_container(self):
        """Innermost container according to the whole cgroup path, if it is not `container`: a user's, or nested."""
        return text(self._process.names.claimed_container)

    @property
    def claimed_runtime(self):
        """Runtime of `claimed_container`."""
        return text(self._process.names.claimed_runtime)

    @property
    def netns(self):
        """Inode number of its network namespace, int."""
        return self._process.netns if self._process.has & PROCESS_NETNS else None

    def to_json(self) -> str:
        """Return a JSON object, with the keys of `owner` in the output of --json that are of a process."""
        cdef text_buffer_t out
        memset(&out, 0, sizeof(out))
        buffer_put(&out, b"{", 1)
        process_json(&out, self._process, self._host())
        buffer_put(&out, b"}", 1)
        return buffer_object(&out)

    def to_dict(self) -> dict:
        """Return what to_json() writes as a dict."""
        return json.loads(self.to_json())

    __match_args__ = ("pid", "uid", "comm", "exe", "cmdline")

    def __eq__(self, other):
        if not isinstance(other, Process):
            return NotImplemented
        return (self._process.pid == (<Process>other)._process.pid
                and self._process.start == (<Process>other)._process.start
                and self._host().host.boot_id == (<Process>other)._host().host.boot_id)

    def __hash__(self):
        return hash((self._process.pid, self._process.start))

    def __repr__(self):
        return f"<Process {self.pid} {self.comm!r}>"

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        ids = self._process.has & PROCESS_IDS
        saved = self._host().saved([self._process.uid] if ids else [], [self._process.gid] if ids else [])
        return _restored, (process_state(self._process), saved)


cdef bytes raw(span_t s):
    return s.at[:s.size] if s.size else b""


cdef tuple process_state(const process_t *process):
    cdef const ancestor_t *at = process.ancestors
    ancestors = []
    while at != NULL and len(ancestors) < ANCESTORS:
        ancestors.append((at.pid, at.start_ns, raw(at.comm), raw(at.exe)))
        at = at.next
    return (process.pid, process.ppid, process.uid, process.gid, process.has, process.start, process.netns,
            process.cmdline_size, process.cgroup_trusted, process.exe_dev, process.exe_inode, process.program_hash,
            process.arg_start, process.start_ns, process.login_uid, process.ns_pid, raw(process.comm),
            raw(process.exe), raw(process.cmdline), raw(process.cgroup), tuple(ancestors))


cdef int span_set(span_t *out, bytes text) except -1:
    out.at, out.size = text, len(text)
    return 0


cdef process_t *process_restore(tuple state) except NULL:
    cdef process_t facts
    cdef process_t *process
    cdef span_t comm, exe
    memset(&facts, 0, sizeof(facts))
    (facts.pid, facts.ppid, facts.uid, facts.gid, facts.has, facts.start, facts.netns, facts.cmdline_size,
     facts.cgroup_trusted, facts.exe_dev, facts.exe_inode, facts.program_hash, facts.arg_start, facts.start_ns,
     facts.login_uid, facts.ns_pid) = state[:16]
    span_set(&facts.comm, state[16])
    span_set(&facts.exe, state[17])
    span_set(&facts.cmdline, state[18])
    span_set(&facts.cgroup, state[19])
    for pid, start_ns, comm_text, exe_text in reversed(state[20]):
        span_set(&comm, comm_text)
        span_set(&exe, exe_text)
        facts.ancestors = ancestor_build(pid, start_ns, comm, exe, facts.ancestors)
    process = process_build(&facts)
    ancestor_drop(facts.ancestors)
    if process == NULL:
        raise MemoryError("process")
    return process


def _restored(state, saved):
    """Make a Process of what __reduce__() saved."""
    return process_object(process_restore(state), Identity(*saved))


cdef object process_object(process_t *process, Identity identity=None):
    cdef Process out
    if process == NULL:
        return None
    try:
        out = Process.__new__(Process)
    except MemoryError:
        process_drop(process)
        raise
    out._process, out._identity = process, identity
    return out


def process(pid, proc="/proc", cmdline_limit=4096):
    """Read a process from /proc now.

    Needs no privilege; without CAP_SYS_PTRACE other users' `exe` and `netns` are None.

    Args:
        pid: A process id, or a thread id for the process of that thread.
        proc: Where procfs is mounted.
        cmdline_limit: Bytes of the command line to keep, up to 1 MiB.

    Returns:
        A `Process`, or None if there is no such process or /proc hides it (hidepid).

    Raises:
        OSError: `proc` cannot be opened.
    """
    cdef bytes path = os.fsencode(proc)
    cdef int root = procfs_open(path), error
    cdef process_t *found
    cdef CommandLineReader lines = CommandLineReader()
    if root < 0:
        raise OSError(-root, os.strerror(-root), proc)
    found = process_read(root, pid, lines, CgroupFilesystem(), max(1, min(cmdline_limit, 1 << 20)), &error)
    close(root)
    if error == -ENOMEM:
        raise MemoryError
    return process_object(found)
