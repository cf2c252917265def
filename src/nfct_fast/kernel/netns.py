"""Network namespaces: find them by name, process or path.

A namespace is identified by the inode number of its nsfs file, which is unique as long as the namespace exists.
"""

import os
from errno import EACCES, EMFILE, ENFILE
from pathlib import Path

from nfct_fast.kernel.open_netns import Netns, enter, owner

__all__ = ["NAMED", "Netns", "current", "enter", "keep_named", "mounted", "named", "owner", "paths", "pids", "resolve"]

# The folders in which "ip netns" and docker bind-mount named namespaces.
NAMED = ("/run/netns", "/run/docker/netns")


def current(proc="/proc") -> int:
    """Return the inode of the calling thread's network namespace. OSError."""
    return os.stat(f"{proc}/thread-self/ns/net").st_ino


def keep_named() -> dict:
    """Open the folders of named namespaces, as {folder: descriptor}, for a thread that may not reach them later."""
    kept = {}
    for folder in NAMED:
        try:
            kept[folder] = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
    return kept


def named(kept=None) -> dict:
    """Return the named namespaces as {name: path}; if both have a name, ip-netns(8) wins over docker.

    kept: the result of keep_named(). Its descriptors are used only for folders that can no longer be reached by path,
    as something else may have been mounted over the others since.
    """
    found = {}
    for folder in NAMED:
        try:
            entries = os.listdir(folder)
        except OSError as error:
            if error.errno != EACCES or not kept or folder not in kept:
                continue
            folder = f"/proc/self/fd/{kept[folder]}"
            try:
                entries = os.listdir(folder)
            except OSError:
                continue
        for name in sorted(entries):
            found.setdefault(name, f"{folder}/{name}")
    return found


def pids(proc="/proc") -> list:
    """Return pairs (pid, inode of its network namespace) of all processes that the caller may inspect."""
    found = []
    for name in os.listdir(proc):
        if name.isdecimal():
            try:
                found.append((int(name), os.stat(f"{proc}/{name}/ns/net").st_ino))
            except OSError:  # gone, or another user's
                continue
    return found


def mounted(kept=None) -> dict:
    """Return the named namespaces as {inode: (name, path)}. kept: see named()."""
    found = {}
    for name, path in named(kept).items():
        try:
            status, parent = os.stat(path), os.stat(os.path.dirname(path))
        except OSError:
            continue
        # A name whose namespace is not mounted (yet, or any more) is an ordinary file on the folder's own device.
        if status.st_dev != parent.st_dev:
            found.setdefault(status.st_ino, (name, path))
    return found


def paths(proc="/proc", kept=None) -> dict:
    """Return the visible namespaces of this host as {inode: (name, path)}: the named ones, then those of processes.

    A namespace that only an open file or socket keeps alive is not found.
    """
    found = mounted(kept)
    for pid, inode in pids(proc):
        found.setdefault(inode, (f"pid:{pid}", f"{proc}/{pid}/ns/net"))
    return found


def resolve(spec, proc="/proc") -> list:
    """Open the namespaces that `spec` stands for: a name (ip-netns(8) or docker), a process id, a path, or "all".

    A name wins over a process id. With "all", namespaces that vanish meanwhile are left out.

    Raises:
        FileNotFoundError: There is no such name; the message lists the names there are.
        ProcessLookupError: There is no such process.
        OSError: The namespace cannot be opened.
    """
    spec = os.fspath(spec) if isinstance(spec, Path) else str(spec)
    if spec == "all":
        found = []
        for _, (name, path) in sorted(paths(proc).items()):
            try:
                found.append(Netns(path, name))
            except OSError as error:
                if error.errno in (EMFILE, ENFILE):
                    raise
        return found
    names = named()
    if "/" in spec:
        return [Netns(spec)]
    if spec in names:
        return [Netns(names[spec], spec)]
    if spec.isdecimal():
        try:
            return [Netns(f"{proc}/{spec}/ns/net", f"pid:{spec}")]
        except FileNotFoundError:
            raise ProcessLookupError(f"no process {spec}, and no network namespace of that name") from None
        except PermissionError as error:
            raise PermissionError(error.errno, f"network namespace of process {spec}: needs CAP_SYS_PTRACE") from None
    there = ", ".join(sorted(names)) or "none"
    raise FileNotFoundError(f"no network namespace {spec!r}; named ones: {there}")
