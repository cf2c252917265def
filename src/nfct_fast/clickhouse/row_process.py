"""The process of a row, as a recording has it."""

import json
import struct
from base64 import b64decode
from typing import NamedTuple

from nfct_fast.processes.cgroup import names

_FIXED = struct.Struct("=IiiIIIIQQQQQQIIIIII")  # without the slot
_ANCESTOR = struct.Struct("=QiHH")
_PPID, _IDS, _COMM, _EXE, _CMDLINE, _CGROUP, _EXE_FILE, _LOGIN, _FORKED = 1, 2, 4, 8, 16, 32, 128, 512, 1024
TICK_NS = 10_000_000  # USER_HZ is 100 wherever the program runs
_MS = 1_000_000
_ANCESTORS_MOST = 64
_PATH_MOST = 16384  # bytes of /proc/PID/cgroup that are read
_NAMES = (
    "unit", "user_unit", "slice", "container", "runtime", "claimed_unit", "claimed_container", "claimed_runtime",
)  # fmt: skip


class RowProcess(NamedTuple):
    """What is known of one."""

    content: bytes  # of its chunk, but for the slot, which comes first
    is_process: bool  # else only the cgroup is known, of a socket without one
    boot_time: int | None  # when its host booted, ns since the epoch; None: it does not tell


def _bytes(text):
    return b"" if text is None else text.encode("utf-8", "surrogateescape")


def _arguments(cmdline, args_json, base64):
    if "cmdline" in base64:
        return b"\0".join([b64decode(one) for one in json.loads(base64["cmdline"])])
    if args_json is not None:
        return b"\0".join([_bytes(one) for one in json.loads(args_json)])
    return _bytes(cmdline).replace(b" ", b"\0")  # where no argument has a blank


def _trusted(path, known):
    """How many bytes of a cgroup path have to be the host's root's for these names to be found in it."""
    if len(path) > _PATH_MOST:
        raise ValueError("no path of a cgroup")
    for size in range(len(path), -1, -1):
        if size in (0, len(path)) or path[size] == 0x2F:
            found = names(path, size)
            if all((found[name] or "").encode("utf-8", "surrogateescape") == known[name] for name in _NAMES):
                return size
    return 0


def _ancestors(text):
    found = json.loads(text) if text else []
    parts = []
    for one in found[:_ANCESTORS_MOST]:
        name, exe = (
            b64decode(one[f"{key}_base64"]) if f"{key}_base64" in one else _bytes(one.get(key))
            for key in ("comm", "exe")
        )
        parts.append(_ANCESTOR.pack(one.get("start_ns", 0), one["pid"], len(name), len(exe)) + name + exe)
    return parts


def _number(text):
    return None if text is None else int(text)


def row_process(text: str) -> RowProcess | None:
    """Read a process as row_columns.py selects it; None if nothing is known of one. ValueError, TypeError and more."""
    values = json.loads(text)
    (
        pid, ppid, ns_pid, start_ns, start_ms, forked, comm, exe, cmdline, args_json, uid, gid, login_uid, cgroup,
        *names_found, exe_dev, exe_inode, ancestors, sizes, base64,
    ) = values  # fmt: skip
    if pid is None and cgroup is None:
        return None
    sizes, base64 = json.loads(sizes), json.loads(base64)
    texts = {"comm": comm, "exe": exe, "cgroup": cgroup, **dict(zip(_NAMES, names_found, strict=True))}
    exact = {name: b64decode(base64[name]) if name in base64 else _bytes(one) for name, one in texts.items()}
    path = exact["cgroup"]
    arguments = b"" if cmdline is None else _arguments(cmdline, args_json, base64)
    pid, ppid, ns_pid, uid, gid, login_uid = map(_number, (pid, ppid, ns_pid, uid, gid, login_uid))
    exe_dev, exe_inode, start_ms = map(_number, (exe_dev, exe_inode, start_ms))
    start_ns = _number(start_ns) or 0
    has = _CGROUP if cgroup is not None else 0
    if pid is not None:
        for bit, is_known in (
            (_PPID, ppid is not None),
            (_IDS, uid is not None and gid is not None),
            (_COMM, comm is not None),
            (_EXE, exe is not None),
            (_CMDLINE, cmdline is not None),
            (_EXE_FILE, exe_dev is not None and exe_inode is not None),
            (_LOGIN, login_uid is not None),
            (_FORKED, forked == "true"),
        ):
            has |= bit if is_known else 0
    parts = _ancestors(ancestors)
    fixed = _FIXED.pack(
        has, pid or 0, ppid or 0, uid or 0, gid or 0, login_uid or 0, ns_pid or 0, start_ns // TICK_NS, start_ns, 0,
        max(len(arguments), sizes.get("cmdline", 0)), exe_dev or 0, exe_inode or 0, len(exact["comm"]),
        len(exact["exe"]), len(arguments), len(path), _trusted(path, exact), len(parts),
    )  # fmt: skip
    boot_time = None
    if start_ms is not None and start_ns:
        boot_time = start_ms * _MS - start_ns // TICK_NS * TICK_NS
    content = b"".join((fixed, exact["comm"], exact["exe"], arguments, path, *parts))
    return RowProcess(content, pid is not None, boot_time)


def bare_process(
    pid: int, start_ns: int = 0, uid: int | None = None, gid: int | None = None, comm: bytes = b""
) -> bytes:
    """Return the chunk's content of a process of which no more is known, as row_process() has it."""
    has = (_COMM if comm else 0) | (_IDS if uid is not None and gid is not None else 0)
    fixed = _FIXED.pack(
        has, pid, 0, uid or 0, gid or 0, 0, 0, start_ns // TICK_NS, start_ns, 0, 0, 0, 0, len(comm), 0, 0, 0, 0, 0
    )
    return fixed + comm
