"""Which host this is, and since which boot."""

import os
from pathlib import Path
from typing import NamedTuple


class Host(NamedTuple):
    """What tells the records of one host from those of others; ids as journald has them (_MACHINE_ID, _BOOT_ID)."""

    name: str  # as hostname(1) prints it
    machine_id: str | None  # 32 hexadecimal digits, see machine-id(5); None: there is none
    boot_id: str | None  # 32 hexadecimal digits, other ones after each boot


def _id(path):
    try:
        text = Path(path).read_text("ascii").strip().replace("-", "")
    except (OSError, ValueError):
        return None
    return text.lower() if len(text) == 32 and not text.strip("0123456789abcdefABCDEF") else None


def read_host() -> Host:
    """Read it from files that never block. Needs no privilege."""
    return Host(os.uname().nodename, _id("/etc/machine-id"), _id("/proc/sys/kernel/random/boot_id"))
