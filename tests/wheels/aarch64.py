"""Cross-builds the aarch64 wheel on x86_64 and imports it under qemu-user: `make wheels-aarch64`.

Releases are built by cibuildwheel on an arm machine. This shows beforehand that the code compiles with the same
settings and the wheel is whole there; qemu-user has no NETLINK_NETFILTER, so nothing beyond importing and decoding can
be tried. The compiler is gcc-aarch64-linux-gnu; the libraries, libc and the Python are Debian's for arm64.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from build import FLAGS, HERE, PROJECT, run, step, tools
from roots import AARCH64_ROOT

TARGET = "aarch64-linux-gnu"
QEMU = "qemu-aarch64-static"
# Imports every module, so that each finds its libraries and each symbol in them.
IMPORT = """
import importlib, pkgutil, platform, nfct_fast, nfct_fast._modules
names = [module.name for module in pkgutil.walk_packages(nfct_fast.__path__, "nfct_fast.")]
names = [*nfct_fast._modules.NAMES, *[name for name in names if not name.endswith(("__main__", "_modules"))]]
for name in names:
    importlib.import_module(name)
mapped = {line.split()[-1] for line in open("/proc/self/maps") if ".so" in line}
own = sorted(path.rpartition("/")[2] for path in mapped if "/nfct_fast.libs/" in path)
assert len(own) == 3, (own, mapped)
print(platform.machine(), "CPython", platform.python_version(), "imported", len(names), "modules, own libraries:", *own)
"""


def build(bin, root, out):
    """Path of the unrepaired wheel, built from a copy of the tree."""
    tree = out / "tree"
    shutil.copytree(
        PROJECT, tree, ignore=shutil.ignore_patterns(".git", ".venv", "build", "wheelhouse", "*.so", "*.egg-info")
    )
    cc = f"{TARGET}-gcc"
    env = {
        **os.environ,
        **FLAGS,
        "CC": cc,
        "LDSHARED": f"{cc} -shared",
        "_PYTHON_HOST_PLATFORM": "linux-aarch64",
        # The headers of the interpreter that runs this come later on the command line and find themselves included
        # already.
        "CFLAGS": f"{FLAGS['CFLAGS']} --sysroot={root} -I{root}/usr/include/python3.11",
        "PKG_CONFIG_LIBDIR": str(root / "usr/lib" / TARGET / "pkgconfig"),
        "PKG_CONFIG_SYSROOT_DIR": str(root),
    }
    run(bin / "python", "-m", "build", "-q", "--no-isolation", "--wheel", "--outdir", out / "plain", tree, env=env)
    (made,) = (out / "plain").glob("*.whl")
    return made


def repair(bin, root, wheel, out):
    """Path of the repaired wheel. The packages are not installed here, so their sources are not named: not one to
    publish."""
    env = {**os.environ, "PATH": f"{bin}:{os.environ['PATH']}"}
    run(bin / "auditwheel", "repair", f"--ldpaths={root / 'usr/lib' / TARGET}", "-w", out, wheel, env=env)
    (made,) = out.glob("*aarch64.whl")
    return made


def audit(bin, wheel):
    """All of check.py but what only the native build can know."""
    done = subprocess.run([bin / "python", HERE / "check.py", wheel], capture_output=True, text=True)
    wrong = [
        line
        for line in (done.stdout + done.stderr).splitlines()
        if line != "nothing wrong" and "SOURCES.txt" not in line and "SBOM" not in line
    ]
    if wrong:
        raise SystemExit("\n".join(wrong))
    run(bin / "abi3audit", "--strict", wheel)


def main():
    if os.geteuid():
        raise SystemExit("make wheels-aarch64 needs root: debootstrap does")
    step("tools and the arm64 tree")
    bin, root, out = tools(), AARCH64_ROOT.ensure(), PROJECT / "wheelhouse"
    for old in out.glob("*aarch64.whl"):
        old.unlink()
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        step("cross-build")
        plain = build(bin, root, scratch)
        step("repair")
        wheel = repair(bin, root, plain, out)
        step("import under qemu-user")
        # pip does not install for another machine into a folder by itself; such a wheel is a plain zip file.
        shutil.unpack_archive(wheel, scratch / "site", "zip")
        run(
            QEMU,
            "-L",
            root,
            "-E",
            f"PYTHONPATH={scratch / 'site'}",
            "-E",
            f"PYTHONHOME={root}/usr",
            root / "usr/bin/python3.11",
            "-c",
            IMPORT,
            cwd="/",
        )
    print(f"{wheel.relative_to(PROJECT)}: {wheel.stat().st_size} bytes")
    audit(bin, wheel)


if __name__ == "__main__":
    sys.exit(main())
