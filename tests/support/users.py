"""Unprivileged users: processes of nobody, and root of namespaces that such a user made."""

import contextlib
import ctypes
import os
import time

from support.flows import Worker

NOBODY = 65534
CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWNS = 0x10000000, 0x40000000, 0x00020000


def as_user(uid=NOBODY):
    """Make this process that user's, for good."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    # Otherwise its /proc files would be root's, and it could not write its own uid_map.
    ctypes.CDLL(None).prctl(4, 1)  # PR_SET_DUMPABLE


def own_namespaces(flags=CLONE_NEWUSER | CLONE_NEWNET):
    """Make this process root of new namespaces of its own, as `unshare -Urn` does."""
    uid, gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) < 0:
        raise OSError(ctypes.get_errno(), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


@contextlib.contextmanager
def unshared(work, uid=NOBODY):
    """A Worker that becomes that user, then root of a network namespace of its own, says the inode of that namespace,
    and runs work(self)."""

    def run(worker):
        as_user(uid)
        own_namespaces()
        worker.say(os.stat("/proc/self/ns/net").st_ino)
        return work(worker)

    with Worker(run) as worker:
        yield worker, worker.hear()


def unshare_many(count):
    """Have nobody make `count` network namespaces without links, each with a process."""

    def work(worker):
        pids = []
        for _ in range(count):
            pid = os.fork()
            if pid == 0:
                as_user()
                own_namespaces()
                ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG: with the worker, whatever becomes of the test
                worker.say(os.stat("/proc/self/ns/net").st_ino)
                time.sleep(60)
                os._exit(0)
            pids.append(pid)
            worker.hear()
        worker.say("made")
        worker.hear()
        for pid in pids:
            os.kill(pid, 9)

    return work
