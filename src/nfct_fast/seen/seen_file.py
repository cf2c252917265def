"""The file in which what was seen outlives the program: DIR/seen of a store.

A header of 64 bytes with the key, then entries as SeenSet has them; of two that are the same the later one counts.
nfct-store adds entries once the flows that were marked are committed: what is lost is marked again, and a mark is never
missing. The program reads the file before it gives up its privileges.
"""

import contextlib
import errno
import os
import stat
import struct

from nfct_fast.seen.first_seen import FirstSeen

NAME = "seen"
_MAGIC = b"\x89NFCTsee"
_VERSION = 1
_HEADER = struct.Struct("=8sII16s32x")
_BYTE_ORDER = 0x01020304
_ENTRY = 16
_MOST = 1 << 30  # bytes: no file of ours is larger
_CHUNK = struct.Struct("=16sI4x")  # how a CHUNK_SEEN begins: the key, and how many entries are remembered
_PENDING_MOST = 4 << 20
_WORN = 4 << 20  # bytes that were added, at the least, before the file is made anew


class SeenFileError(Exception):
    """The file is not one of ours, or of another version; the text says so."""


def _read(directory):
    """Return the key and the entries. FileNotFoundError, OSError, SeenFileError."""
    path = os.path.join(directory, NAME)
    try:
        # Whoever owns the directory may have put anything there, and the reader may be root.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise SeenFileError(f"{path} is a symbolic link") from None
        raise
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST:
            raise SeenFileError(f"{path} is no regular file, or too large to be one of --first-seen")
        header = file.read(_HEADER.size)
        entries = file.read(_MOST)
    if len(header) < _HEADER.size:
        raise SeenFileError(f"{path} is damaged: it has no header")
    magic, version, byte_order, key = _HEADER.unpack(header)
    if magic != _MAGIC or byte_order != _BYTE_ORDER:
        raise SeenFileError(f"{path} is not a file of --first-seen of this host")
    if version != _VERSION:
        raise SeenFileError(f"{path} is of format {version}, but this version of nfct-fast knows format 1 only")
    return key, entries[: len(entries) // _ENTRY * _ENTRY]


def read_seen(directory, limit) -> tuple[FirstSeen, str | None]:
    """Return the FirstSeen of a store, and a sentence for the operator if there is something to say."""
    problem = "nothing is remembered yet of what programs talked to: at first, every address and port is first seen"
    try:
        key, entries = _read(directory)
        return FirstSeen(limit, key, entries, True), None
    except FileNotFoundError:
        pass
    except SeenFileError as error:
        problem = f"{error}: it is put aside, and every address and port is first seen again"
    except OSError as error:
        problem = f"{error.filename}: {error.strerror}: every address and port is first seen again"
    return FirstSeen(limit, kept=True), problem


class SeenFile:
    """The file while nfct-store adds to it. What cannot be written is not remembered; `say` is told, once."""

    def __init__(self, directory, say):
        self._directory, self._say = directory, say
        self._path = os.path.join(directory, NAME)
        self._pending = []
        self._size = 0  # bytes that wait
        self._fd = -1
        self._key = None
        self._limit = 0
        self._added = self._fresh = 0  # bytes since the file was made anew, and then
        self._complained = False

    def add(self, chunk) -> None:
        """Keep a CHUNK_SEEN until commit(); None: those that wait are not to be remembered."""
        if chunk is None or self._size > _PENDING_MOST:
            self._pending.clear()
            self._size = 0
        if chunk is None or len(chunk) < _CHUNK.size:
            return
        self._key, self._limit = _CHUNK.unpack_from(chunk)
        self._pending.append(chunk[_CHUNK.size :])
        self._size += len(chunk)

    def commit(self) -> None:
        """Have all that waits on the disk."""
        if not self._pending:
            return
        entries = b"".join(self._pending)
        self.add(None)
        try:
            if self._fd < 0:
                self._open()
            _write(self._fd, entries)
            os.fdatasync(self._fd)
            self._added += len(entries)
            if self._added > max(_WORN, self._fresh):
                self._make()
            self._complained = False
        except (OSError, ValueError, MemoryError, SeenFileError) as error:
            self.close()
            if not self._complained:
                reason = error.strerror if isinstance(error, OSError) else error
                self._say(f"{self._path} cannot be written: {reason}. What is seen now may be marked again later")
            self._complained = True

    def _open(self):
        try:
            key, entries = _read(self._directory)
        except FileNotFoundError:
            key, entries = None, b""
        except SeenFileError:
            try:
                os.replace(self._path, f"{self._path}.damaged")
            except OSError:
                os.unlink(self._path)  # no regular file: Landlock does not let this process make one of its kind
            key, entries = None, b""
        if key != self._key or len(entries) > 2 * _ENTRY * self._limit:
            self._make(entries if key == self._key else b"")
            return
        self._fd = os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        # After a crash an entry may have been cut.
        os.ftruncate(self._fd, _HEADER.size + len(entries))
        os.lseek(self._fd, 0, os.SEEK_END)
        self._added, self._fresh = 0, len(entries)

    def _make(self, entries=None):
        """Write the file anew, with one entry of each that is the same, and no more than are remembered."""
        if entries is None:
            _, entries = _read(self._directory)
        _, entries = FirstSeen(self._limit, self._key, entries).dump()
        new = f"{self._path}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            _write(fd, _HEADER.pack(_MAGIC, _VERSION, _BYTE_ORDER, self._key) + entries)
            os.fsync(fd)
            os.rename(new, self._path)
        except BaseException:
            os.close(fd)
            raise
        self.close()
        self._fd = fd
        self._added, self._fresh = 0, len(entries)

    def close(self) -> None:
        """Close it; it is opened again when it is needed."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _write(fd, data):
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]
