"""A fake /proc of plain files, for contents that a real one cannot be made to show."""

import contextlib
import os
import signal


def fake_stat(pid, comm="x", ppid=1, start=1000, flags=0, state="S", addresses=(1, 1, 0, 0)):
    fields = [str(n) for n in range(53)]
    fields[4], fields[9], fields[22] = str(ppid), str(flags), str(start)
    fields[26], fields[28], fields[48], fields[49] = map(str, addresses)
    return os.fsencode(f"{pid} ({comm}) {state} " + " ".join(fields[4:]) + "\n")


def write_stat(root, pid, content):
    """Write the stat file of the main thread, which is the one that is read (see stat_read())."""
    directory = root / str(pid) / "task" / str(pid)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "stat").write_bytes(content)


def fake_process(root, pid, *, status=None, cmdline=b"x\0", cgroup=b"0::/\n", netns=None, fds=(), **stat):
    directory = root / str(pid)
    (directory / "fd").mkdir(parents=True, exist_ok=True)
    (directory / "ns").mkdir(exist_ok=True)
    write_stat(root, pid, fake_stat(pid, **stat))
    if status is None:
        status = (
            f"Name:\tx\nTgid:\t{pid}\nPid:\t{pid}\nPPid:\t{stat.get('ppid', 1)}\nUid:\t7\t8\t8\t8\nGid:\t9\t8\t8\t8\n"
        ).encode()
    (directory / "status").write_bytes(status)
    (directory / "cmdline").write_bytes(cmdline)
    (directory / "cgroup").write_bytes(cgroup)
    if netns:
        (directory / "ns" / "net").symlink_to(f"net:[{netns}]")
    for fd, target in enumerate(fds):
        (directory / "fd" / str(fd)).symlink_to(target)
    return directory


@contextlib.contextmanager
def child(work):
    """Run work() in a forked process, which then sleeps until the block ends."""
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(ready)
            work()
            os.write(told, b"x")
            signal.pause()
        finally:
            os._exit(1)
    os.close(told)
    try:
        assert os.read(ready, 1) == b"x"
        yield pid
    finally:
        os.close(ready)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
