"""A Debian with systemd as its first process, in namespaces of its own, that leaves nothing behind."""

import contextlib
import os
import shlex
import subprocess
import tempfile
import time
from pathlib import Path

_BOOT = """set -e
mount -t tmpfs -o mode=755 tmpfs {folder}
mkdir {folder}/upper {folder}/work {folder}/root
mount -t overlay overlay -o lowerdir={tree},upperdir={folder}/upper,workdir={folder}/work {folder}/root
cd {folder}/root
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 dev dev
mkdir dev/pts dev/shm
for device in null zero full random urandom tty; do touch dev/$device; mount --bind /dev/$device dev/$device; done
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
touch dev/console
mount -t tmpfs -o mode=1777 shm dev/shm
mount -t tmpfs -o mode=755 run run
mount -t tmpfs -o mode=1777 tmp tmp
mount --bind {shared} mnt
echo uninitialized >etc/machine-id
ip link set lo up
mkdir .old
pivot_root . .old
umount -l /.old
rmdir /.old
exec env -i container=nfct-fast PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd
"""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BOOT_SECONDS = 60


def _cgroup2():
    """Where this machine has its cgroup v2."""
    for line in Path("/proc/mounts").read_text().splitlines():
        if line.split()[2] == "cgroup2":
            return Path(line.split()[1])
    raise SystemExit("needs cgroup v2")


class Container:
    """What runs in a tree, of which it changes nothing: all changes are in memory.

    Args:
        tree: A Debian with systemd.
        shared: A folder that is /mnt inside, where pip looks for packages, and nowhere else.
    """

    def __init__(self, tree, shared):
        self._folder = tempfile.mkdtemp(prefix="nfct-service-")
        self._cgroup = _cgroup2() / Path(self._folder).name
        self._cgroup.mkdir()
        script = _BOOT.format(folder=self._folder, tree=shlex.quote(str(tree)), shared=shlex.quote(str(shared)))
        # The cgroup is entered before its namespace is made, so that it is the root inside.
        enter = f'echo $$ >{self._cgroup}/cgroup.procs && exec unshare "$@"'
        names = ("--mount", "--propagation=private", "--uts", "--ipc", "--net", "--cgroup", "--pid", "--fork")
        self._unshare = subprocess.Popen(
            ["sh", "-c", enter, "sh", *names, "--kill-child", "sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        try:
            self.pid = self._first_process()
            self.prefix = ["nsenter", "-t", str(self.pid), "-a"]
            self.until("systemctl is-system-running | grep -E 'running|degraded'", _BOOT_SECONDS)
        except BaseException:
            self.close()
            raise

    def _first_process(self):
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children")
        deadline = time.monotonic() + _BOOT_SECONDS
        while time.monotonic() < deadline and self._unshare.poll() is None:
            for child in children.read_text().split():
                with contextlib.suppress(OSError):
                    if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                        return int(child)
            time.sleep(0.05)
        raise SystemExit("systemd did not start")

    def run(self, script, check=True):
        """Run a shell's script as root, without standard input; its output, which is in the error if it fails."""
        variables = (f"PATH={_PATH}", "HOME=/root", "LC_ALL=C.UTF-8", "PIP_NO_INDEX=1", "PIP_FIND_LINKS=/mnt")
        command = [*self.prefix, "env", "-i", *variables]
        done = subprocess.run(
            [*command, "sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        if check and done.returncode:
            raise SystemExit(f"{script}\nended with {done.returncode}:\n{done.stdout}")
        return done.stdout.strip()

    def until(self, script, seconds=30):
        """Run a script until it succeeds, and return its output."""
        deadline = time.monotonic() + seconds
        while True:
            said = self.run(f"{script} && echo done", check=False)
            if said.endswith("done"):
                return said.removesuffix("done").strip()
            if time.monotonic() > deadline:
                raise SystemExit(f"in {seconds} s this did not succeed: {script}\n{said}")
            time.sleep(0.2)

    def close(self):
        self._unshare.kill()
        self._unshare.wait()
        for path in sorted(self._cgroup.glob("**/"), key=lambda path: len(path.parts), reverse=True):
            deadline = time.monotonic() + 10  # processes that were killed need a moment
            while time.monotonic() < deadline:
                try:
                    path.rmdir()
                    break
                except OSError:
                    time.sleep(0.05)
        os.rmdir(self._folder)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()
