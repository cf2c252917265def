"""Whether this process is in the namespaces that the host booted with, whose inodes are the same on every Linux."""

import os

INITIAL = {"user": 0xEFFFFFFD, "pid": 0xEFFFFFFC}  # PROC_USER_INIT_INO, PROC_PID_INIT_INO in linux/proc_ns.h


def is_initial(kind: str) -> bool:
    """Return whether the process is in the initial namespace of this kind, one of INITIAL. OSError without /proc."""
    return os.stat(f"/proc/self/ns/{kind}").st_ino == INITIAL[kind]
