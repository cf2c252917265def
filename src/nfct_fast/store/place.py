"""The directory of a store: made if it is not there, checked, and locked by the one process that writes to it."""

import errno
import fcntl
import os
import pwd
import time

from nfct_fast.store.store_error import StoreError

_LOCK = "lock"
_LOCK_S = 3.0  # how long the process of a program that has just ended may still have something to commit


def _user_name(uid):
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def prepare(directory, user=None) -> str:
    """Return the absolute path of a directory, which is made for `user` if it is not there.

    Args:
        directory: Its path, of which the last part must not be a symbolic link.
        user: The user and group id of whoever will write there; None for the calling process's.

    Raises:
        StoreError: It cannot be used.
    """
    path = os.path.abspath(os.fsdecode(directory))
    uid, gid = (os.geteuid(), os.getegid()) if user is None else user
    try:
        made = _make(path)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise StoreError(f"{path} is no directory, or a symbolic link") from None
        if error.errno == errno.ENOENT:
            raise StoreError(f"{path} cannot be made: the directory it should be in is not there") from None
        raise StoreError(f"{path}: {error.strerror}") from None
    try:
        status = os.fstat(fd)
        if made and status.st_uid == os.geteuid() and not os.listdir(fd):
            os.fchown(fd, uid, gid)  # what was just made, and not what somebody has put in its place
            status = os.fstat(fd)
        if status.st_uid != uid:
            raise StoreError(
                f"{path} belongs to {_user_name(status.st_uid)}, but {_user_name(uid)} is to write there: "
                f"chown -R {_user_name(uid)}: {path}"
            )
        if status.st_mode & 0o022:
            raise StoreError(f"others can write to {path}, and so forge what is found there: chmod 700 {path}")
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from None
    finally:
        os.close(fd)
    return path


def _make(path):
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return False
    return True


def lock(path) -> int:
    """Return a descriptor that keeps others from writing to the store; the calling process is as it will be.

    Raises StoreError if that is not possible; waits three seconds at most.
    """
    try:
        fd = os.open(os.path.join(path, _LOCK), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        name = _user_name(os.geteuid())
        if error.errno in (errno.EACCES, errno.ENOENT):
            raise StoreError(
                f"{name}, who is to write to {path}, cannot get there: a directory above it is closed to others "
                f"(namei -l {path} shows which); /var/lib/nfct-fast is a usual place"
            ) from None
        if error.errno == errno.ENOSPC:
            raise StoreError(f"{path}: there is no space left, not even to begin") from None
        raise StoreError(f"{path} cannot be written by {name}: {error.strerror}") from None
    until = time.monotonic() + _LOCK_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > until:
                who = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
                os.close(fd)
                raise StoreError(
                    f"{path} is written by another nfct-fast (process {who or 'unknown'}): "
                    "give each a directory of its own"
                ) from None
            time.sleep(0.05)
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    except OSError:
        pass  # the disk is full: only the number is missing
    return fd
