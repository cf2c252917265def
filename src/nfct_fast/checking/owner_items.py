"""Preconditions of finding owners: the kernel's notes, its reports of processes, sock_diag, and /proc."""

import os
import socket

from nfct_fast.attribution.degradation import without_notes, without_programs
from nfct_fast.checking.findings import limited, missing, ok, reason_of
from nfct_fast.kernel.privileges import lacking
from nfct_fast.processes.cgroup_filesystem import find_mount
from nfct_fast.processes.proc_connector import check_connector
from nfct_fast.sockets.sock_diag import check_answers
from nfct_fast.sockets.socket_notes import SocketNotes, check_pid_namespace

_BTF = "/sys/kernel/btf/vmlinux"
_NOTES = 1024  # enough for a check, and 0.2 MiB
_MOUNT = "mount -t cgroup2 none /sys/fs/cgroup"
_DIAG_MODULES = "modprobe -a inet_diag tcp_diag udp_diag"


class NotesCheck:
    """An attempt to load and attach the BPF programs that take notes, which are removed again at once.

    Attributes:
        missing: Why there are no notes, a str; None: there are.
        processes_missing: Why the programs do not report processes, a str; None: they do, or there are no notes.
        covers_all: Whether all processes of the host are noted.
        own_mount: Whether cgroup v2 had to be mounted privately.
    """

    def __init__(self):
        self.missing = self.processes_missing = None
        self.covers_all = self.own_mount = False
        try:
            check_pid_namespace()
            notes = SocketNotes(notes=_NOTES)
        except OSError as error:
            self.missing = reason_of(error)
            return
        with notes:
            self.processes_missing = notes.processes_missing
            self.covers_all = notes.covers_all
            self.own_mount = find_mount() is None

    @property
    def has_programs(self) -> bool:
        """Whether processes are reported by the programs."""
        return self.missing is None and self.processes_missing is None


def cgroup2(notes):
    mount = find_mount()
    if mount is not None:
        return ok(f"mounted at {os.fsdecode(mount)}")
    if notes.own_mount:
        return ok("not mounted here: the program mounts it for itself")
    return limited(without_notes("no cgroup v2 is mounted"), _MOUNT)


def btf():
    if os.access(_BTF, os.R_OK):
        return ok("the kernel describes its types")
    return limited(
        without_programs(f"there is no {_BTF}, which a kernel has that was built with CONFIG_DEBUG_INFO_BTF=y")
    )


def cgroup_programs(notes):
    if notes.missing is not None:
        return limited(without_notes(notes.missing))
    if not notes.covers_all:
        return limited("only sockets used in this cgroup and below it are noted: the root of cgroup v2 is not visible")
    return ok("BPF programs note who uses each socket")


def tracepoints(notes):
    if notes.missing is not None:
        return limited("processes are reported only together with notes: see cgroup_programs")
    if notes.processes_missing is not None:
        return limited(without_programs(notes.processes_missing))
    return ok("BPF programs report each fork, exec and exit")


def proc_connector(notes):
    needed = notes.missing is None and notes.processes_missing is not None
    try:
        check_connector()
    except OSError as error:
        why = reason_of(error).removeprefix("proc connector: ")
        if needed:
            return limited(f"processes that end at once will not be known: {why}")
        return ok(f"not there, and not needed: {why}")
    return ok("reports processes" if needed else "there, in case BPF cannot report processes")


def sock_diag():
    failed = []
    for name in ("TCP", "UDP"):
        try:
            check_answers(getattr(socket, f"IPPROTO_{name}"))
        except OSError as error:
            failed.append(f"{name}: {reason_of(error).rpartition(': ')[2]}")
    if failed:
        return limited(
            f"sockets are looked up in the tables of /proc/net, which takes longer ({'; '.join(failed)})", _DIAG_MODULES
        )
    return ok("finds sockets of TCP and UDP by their tuple")


def procfs():
    """Whether other users' processes can be seen in /proc."""
    options = _proc_options()
    if options is None:
        return missing("/proc is not mounted: processes and settings cannot be read", "mount -t proc proc /proc")
    if "subset=pid" in options:
        return limited("/proc is mounted with subset=pid: neither /proc/net nor settings can be read")
    hidden = [option for option in options if option.startswith("hidepid=")]
    if not hidden or hidden[0] in ("hidepid=0", "hidepid=off"):
        return ok("shows every process")
    without = lacking(["sys_ptrace"])
    if without:
        return limited(
            f"/proc is mounted with {hidden[0]}, and CAP_SYS_PTRACE is missing: other users' processes are not seen",
            "mount -o remount,hidepid=0 /proc",
        )
    return ok(f"{hidden[0]} does not hide processes from CAP_SYS_PTRACE")


def _proc_options():
    """Return the options of the procfs that is mounted at /proc last; None if none is."""
    options = None
    try:
        with open("/proc/self/mountinfo", "rb") as lines:
            for line in lines:
                before, _, after = line.partition(b" - ")
                if before.split(b" ")[4:5] == [b"/proc"] and after.startswith(b"proc "):
                    options = os.fsdecode(after.split()[-1]).split(",")
    except FileNotFoundError:
        return None
    return options
