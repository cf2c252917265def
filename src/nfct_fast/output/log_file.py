"""A file that lines are appended to, opened so that nobody else can choose what it is."""

import errno
import os
import stat


def open_log(path, trusted=(), directory=None) -> int:
    """Open a regular file for appending, make it with mode 0600 if there is none, and return the descriptor.

    Args:
        path: Its path, or its name in `directory`.
        trusted: Users beside root and the caller whose file it may be: others could read what is appended.
        directory: A descriptor of its directory, or None.

    Raises:
        OSError: It cannot be opened; it is a symbolic link, no regular file, another user's, or has several names.
    """
    shown = os.fspath(path) if directory is None else os.path.join(os.readlink(f"/proc/self/fd/{directory}"), path)
    # O_NONBLOCK, lest a FIFO in its place blocks.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o600, dir_fd=directory)
    except OSError as error:
        why = "is a symbolic link" if error.errno == errno.ELOOP else f"cannot be opened: {error.strerror}"
        raise OSError(f"{shown} {why}") from None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{shown} is not a regular file")
        if found.st_uid not in (0, os.geteuid(), *trusted):
            raise OSError(f"{shown} belongs to another user (uid {found.st_uid})")
        if found.st_nlink != 1:
            raise OSError(f"{shown} has {found.st_nlink} names (hard links)")
        _end_line(fd, found.st_size)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _end_line(fd, size):
    """End a line that was cut when the program that wrote it was killed, or its disk was full."""
    if not size:
        return
    try:
        reading = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # it may be appended to, but not be read
        return
    try:
        if os.pread(reading, 1, size - 1) not in (b"", b"\n"):
            os.write(fd, b"\n")
    except OSError:  # the disk is still full
        pass
    finally:
        os.close(reading)


def log_opener(path, trusted=()):
    """Return a function that opens this file as open_log() does, and again later, whatever becomes of its directory.

    OSError if there is no such directory.
    """
    try:
        directory = os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise OSError(f"{path} cannot be opened: {error.strerror}") from None
    return lambda: open_log(os.path.basename(path), trusted, directory)
