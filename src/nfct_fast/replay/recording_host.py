"""The beginning of a recording: what recorded it, on which host; see recording_format.pxd."""

import json
import os
import stat
import struct

from nfct_fast._version import __version__
from nfct_fast.kernel.host import Host
from nfct_fast.replay.recording_error import RecordingError

MAGIC = b"\x89NFCTrec"
VERSION = 2
_PLAYED = (1, VERSION)
_BYTE_ORDER = 0x01020304
_HEADER = struct.Struct("=8sII")
_CHUNK = struct.Struct("=II")
_HOST = 1
_MOST = 1 << 17
_NAMES_MOST = 48_000  # bytes of names of users, and of groups; further ones are left out


def _names(path):
    """Name and id of each account, and nothing else, in the form of the file."""
    lines, size = [], 0
    try:
        with open(path, "rb") as file:
            for line in file:
                fields = line.rstrip(b"\n").split(b":")
                if len(fields) > 2 and size < _NAMES_MOST:
                    lines.append(b"%b:x:%b:\n" % (fields[0], fields[2]))
                    size += len(lines[-1])
    except OSError:
        pass
    return b"".join(lines).decode("utf-8", "surrogateescape")


def beginning(identity) -> bytes:
    """Return the first bytes of a recording made on the host of an Identity."""
    kernel = os.uname()
    about = {
        "program": f"nfct-fast {__version__}",
        "kernel": f"{kernel.release} {kernel.machine}",
        "host": identity.host.name,
        "machine_id": identity.host.machine_id,
        "boot_id": identity.host.boot_id,
        "boot_time": identity.boot_time,
        "users": _names("/etc/passwd"),
        "groups": _names("/etc/group"),
    }
    text = json.dumps(about).encode("ascii")
    return _HEADER.pack(MAGIC, VERSION, _BYTE_ORDER) + _CHUNK.pack(len(text), _HOST) + text + bytes(-len(text) % 8)


def open_recording(path) -> int:
    """Return a descriptor of a recording, at its first chunk. Raises OSError, RecordingError.

    path: A path, or a descriptor of a file, which is read from its beginning and not closed.
    """
    if isinstance(path, int):
        fd, path = os.dup(path), f"descriptor {path}"
    else:
        # Not blocking: this may be a pipe that nobody writes to.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise RecordingError(f"{path}: not a recording, as it is no regular file")
        os.lseek(fd, 0, os.SEEK_SET)
        header = os.read(fd, _HEADER.size)
        if len(header) < _HEADER.size or not header.startswith(MAGIC):
            raise RecordingError(f"{path}: not a recording of nfct-fast")
        _, version, byte_order = _HEADER.unpack(header)
        if byte_order != _BYTE_ORDER:
            raise RecordingError(f"{path}: recorded on a host of another byte order")
        if version not in _PLAYED:
            raise RecordingError(
                f"{path}: format {version}, but this version of nfct-fast reads no format above {VERSION}"
            )
    except BaseException:
        os.close(fd)
        raise
    return fd


def _identity(about):
    text = [about["host"], about["users"], about["groups"]]
    ids = [about["machine_id"], about["boot_id"]]
    if not all(isinstance(one, str) for one in text) or not all(
        one is None or isinstance(one, str) and len(one) == 32 and one.isascii() and one.isalnum() for one in ids
    ):
        raise ValueError("of another type")
    names = tuple(one.encode("utf-8", "surrogateescape") for one in text[1:])
    boot_time = about["boot_time"]
    if not isinstance(boot_time, int) or not 0 <= boot_time < 1 << 62:
        raise ValueError("of another type")
    return Host(text[0], *ids), boot_time, names


def identity_of(text: bytes, path) -> tuple:
    """Return the arguments of an Identity that the first chunk of a recording holds. RecordingError."""
    try:
        return _identity(json.loads(text))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RecordingError(f"{path}: damaged, or cut off: it does not say who recorded it, at byte 16") from None


def read_identity(path) -> tuple:
    """Return the arguments of an Identity of the host that recorded. Raises OSError, RecordingError.

    path: As of open_recording().
    """
    fd = open_recording(path)
    try:
        head = os.read(fd, _CHUNK.size)
        size, kind = _CHUNK.unpack(head) if len(head) == _CHUNK.size else (0, 0)
        text = os.read(fd, size) if kind == _HOST and size <= _MOST else b""
        return identity_of(text, path)
    finally:
        os.close(fd)
