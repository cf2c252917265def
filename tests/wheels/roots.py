"""Debian and Ubuntu trees made by debootstrap and kept in the user's cache: one to build in, the others to try a wheel
in."""

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

DEBIAN = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
# Ubuntu's archive key is in no Debian release, so this one rests on TLS instead of a signature.
UBUNTU = os.environ.get("UBUNTU_MIRROR", "https://archive.ubuntu.com/ubuntu")
UBUNTU_KEYS = Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg")
# iproute2 makes the namespaces and nftables the rule that a wheel is tried with. Neither brings libnetfilter_conntrack.
RUN = ("python3", "python3-venv", "iproute2", "nftables", "procps")
# What the suite asks for beside these. conntrack(8) brings the library: a wheel has to prefer its own to it.
TEST = (*RUN, "conntrack", "gcc", "libc6-dev", "strace")
BUILD = (
    "gcc",
    "libc6-dev",
    "pkg-config",
    "python3-dev",
    "python3-pip",
    "libnetfilter-conntrack-dev",
    "libnfnetlink-dev",
    "libmnl-dev",
)


@dataclass(frozen=True)
class Root:
    """One tree: its release, the packages it holds beside the base system, and its Python."""

    suite: str
    python: str
    packages: tuple = TEST
    mirror: str = DEBIAN
    script: str = ""
    arch: str = ""

    @property
    def path(self):
        """Where it is kept; a changed recipe gets another name."""
        recipe = hashlib.sha256(repr((self.packages, self.arch)).encode()).hexdigest()[:8]
        return cache() / "roots" / "-".join(filter(None, (self.suite, self.arch, recipe)))

    def ensure(self):
        """The path, after making the tree if it is not there yet (about a minute, 300 to 600 MB)."""
        if self.path.exists():
            return self.path
        part = self.path.with_name(self.path.name + ".part")
        if part.exists():
            shutil.rmtree(part)
        part.parent.mkdir(parents=True, exist_ok=True)
        options = ["--variant=minbase", f"--include={','.join(self.packages)}"]
        if self.mirror == UBUNTU:
            options += [
                "--components=main,universe",
                f"--keyring={UBUNTU_KEYS}" if UBUNTU_KEYS.exists() else "--no-check-gpg",
            ]
        if self.arch:
            options += ["--foreign", f"--arch={self.arch}"]
        log = part.with_suffix(".log")
        with open(log, "w") as out:
            done = subprocess.run(
                ["debootstrap", *options, self.suite, part, self.mirror, *filter(None, [self.script])],
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        if done.returncode:
            raise SystemExit(f"debootstrap {self.suite} failed, see {log}")
        if self.arch:
            unpack_all(part)
        for litter in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc-base", "usr/share/locale"):
            shutil.rmtree(part / litter, ignore_errors=True)
        part.rename(self.path)
        return self.path


BUILD_ROOT = Root("bookworm", "3.11", tuple(dict.fromkeys(TEST + BUILD)))
BARE_ROOT = Root("trixie", "3.13", RUN)
TEST_ROOTS = (
    Root("noble", "3.12", mirror=UBUNTU, script="gutsy"),
    Root("trixie", "3.13"),
    Root("forky", "3.14", script="sid"),
)
AARCH64_ROOT = Root("bookworm", "3.11", BUILD, arch="arm64")


def cache():
    """This project's folder under the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nfct_fast"


def unpack_all(root):
    """Lay every downloaded package out: a tree of another architecture cannot run its own dpkg."""
    for package in sorted((root / "var/cache/apt/archives").glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)


def command_in(root, command, binds=(), env=None):
    """The argument list that runs `command` as root inside the tree, with this machine's /proc, /sys and /dev.

    The mounts live in a mount namespace of their own and go with it. /run and /tmp are empty; `binds` are
    (host path, path inside) pairs.
    """
    # "ip netns" remounts "/", which works on a mount point only; pivot_root, because a process in a chroot may make no
    # user namespace.
    mounts = [f"mount --bind {root} {root}"]
    mounts += [f"mount --rbind /{name} {root}/{name}" for name in ("proc", "sys", "dev")]
    mounts += [f"mount -t tmpfs {name} {root}/{name}" for name in ("run", "tmp")]
    for outside, inside in binds:
        target = f"{root}/{inside.lstrip('/')}"
        mounts.append(f"mkdir -p {target} && mount --bind {outside} {target}")
    clean = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        **(env or {}),
    }
    script = (
        "set -e; "
        + "; ".join(mounts)
        + f'; cd {root}; mkdir -p .old; pivot_root . .old; umount -l /.old; exec env -i "$@"'
    )
    return [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        script,
        "sh",
        *(f"{name}={value}" for name, value in clean.items()),
        *map(str, command),
    ]
