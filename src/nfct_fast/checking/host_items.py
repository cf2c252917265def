"""Preconditions of the host and of this process: kernel, capabilities, namespaces, sandbox, user, clock."""

import os
import re
import resource

from nfct_fast.checking.findings import limited, missing, ok, unknown
from nfct_fast.events.preflight import NEEDS_NET_ADMIN
from nfct_fast.kernel import sandbox
from nfct_fast.kernel.clock import is_synchronized
from nfct_fast.kernel.initial_namespaces import is_initial
from nfct_fast.kernel.privileges import lacking
from nfct_fast.kernel.program_user import USER, has_user

_LOCKDOWN = "/sys/kernel/security/lockdown"
_MAP_MEMORY = 24 << 20  # bytes of BPF maps that are counted as locked memory before Linux 5.11
# What is lost without a capability, the most important first.
_USES = {
    "sys_ptrace": "programs of other users' processes",
    "dac_read_search": "other users' processes that hold a socket, and cgroups by id",
    "sys_admin": "flows and owners in other network namespaces",
    "bpf": "notes of who used a socket",
    "perfmon": "notes of who used a socket",
}
_CHANGES_USER = ("setuid", "setgid", "setpcap")
AS_ROOT = "sudo nfct-fast --check"


def version(release):
    """Return the first two numbers of a kernel release, (0, 0) if it has none."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def kernel(release, has_notes):
    """has_notes: Whether BPF notes work, which kernels with backports have earlier."""
    number = version(release)
    if number < (4, 14):
        return limited(f"Linux {release}: never tried on a kernel older than 4.14")
    if number < (5, 15) and not has_notes:
        track = " and 5.12 for --track" if number < (5, 12) else ""
        return limited(f"Linux {release}: the kernel's notes of who used a socket need 5.15{track}")
    return ok(f"Linux {release}")


def capabilities():
    if lacking(["net_admin"]):
        container = "" if os.geteuid() else " (podman and docker: --cap-add=NET_ADMIN)"
        return missing(f"{NEEDS_NET_ADMIN.what}{container}", AS_ROOT if os.geteuid() else None)
    lost = {}
    for name, use in _USES.items():
        for capability in lacking([name]):
            lost.setdefault(use, []).append(capability)
    if change := lacking(_CHANGES_USER):
        if os.geteuid() == 0:
            lost["giving up root, once everything is open"] = change
    if not lost:
        return ok("all that are needed")
    effects = "; ".join(f"without {' and '.join(names)} no {use}" for use, names in lost.items())
    return limited(effects, AS_ROOT if os.geteuid() else None)


def namespaces():
    """The user and pid namespace: in a container these are not those of the host."""
    inside = [kind for kind in ("user", "pid") if not is_initial(kind)]
    if not inside:
        return ok("the host's user and pid namespace")
    effects = {
        "user": "from another user namespace no BPF programs can be loaded",
        "pid": "from another pid namespace only its own processes are seen (podman and docker: --pid=host)",
    }
    return limited("; ".join(effects[kind] for kind in inside))


def lockdown(has_programs):
    """has_programs: Whether BPF programs may read the kernel's structures, which shows what cannot be read here."""
    try:
        with open(_LOCKDOWN) as file:
            found = re.search(r"\[(\w+)\]", file.read())
    except FileNotFoundError:
        if has_programs:
            return ok("not in the way: BPF programs may read what they need")
        return unknown(f"there is no {_LOCKDOWN}: the kernel has no lockdown, or securityfs is not mounted")
    mode = found[1] if found else "unknown"
    if mode == "confidentiality":
        return limited(
            "lockdown=confidentiality: BPF programs may not read the kernel's structures, so that the proc connector "
            "reports programs, later and with less detail (set lockdown=integrity at boot)"
        )
    return ok(f"lockdown is {mode}, which is not in the way")


def memory_lock(release, has_notes):
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    if has_notes or version(release) >= (5, 11):
        return ok("BPF maps are not locked memory since Linux 5.11")
    if limit == resource.RLIM_INFINITY or limit >= _MAP_MEMORY or not lacking(["sys_resource"]):
        return ok("enough for BPF maps")
    return limited(
        f"BPF maps count as locked memory before Linux 5.11, and {limit} bytes are allowed", "ulimit -l 32768"
    )


def seccomp():
    if sandbox.has_filter():
        return ok("the program gives up most system calls")
    return limited("the program can still use every system call: there is no filter for this machine and kernel")


def landlock():
    if sandbox.has_landlock():
        return ok("helpers can open only the files they need")
    return limited(f"with --attribution off the program {sandbox.NO_LANDLOCK} (lsm=landlock,... at boot)")


def user():
    if has_user():
        return ok(f"the program continues as the user {USER}")
    return limited(
        "the program continues as nobody, whose other processes can kill it and use up its limits",
        f"useradd --system {USER}",
    )


def clock():
    if is_synchronized():
        return ok("the kernel's clock is kept synchronized")
    return limited(
        "nothing tells the kernel that it keeps the clock right: times may not agree with those of other hosts",
        "timedatectl set-ntp true",
    )
