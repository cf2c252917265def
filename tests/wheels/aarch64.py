"""Cross-builds the aarch64 wheel on x86_64 and imports it under qemu-user: `make wheels-aarch64`.

Releases are built by cibuildwheel on an arm machine. This shows beforehand that the code compiles and the wheel is whole there;
qemu-user has no NETLINK_NETFILTER, so nothing beyond importing and decoding can be tried. The compiler is zig's (from the
package index, 100 MB), the libraries and the Python are Debian's for arm64.
"""
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from build import FLAGS, HERE, PROJECT, run, step, tools
from roots import AARCH64_ROOT, cache

TARGET = "aarch64-linux-gnu"
QEMU = "qemu-aarch64-static"
# Imports every module, so that each finds its libraries and each symbol in them.
IMPORT = """
import importlib, pkgutil, platform, sys, nfct_fast
names = [module.name for module in pkgutil.iter_modules(nfct_fast.__path__) if module.name not in ("__main__", "_modules")]
names += sys.meta_path[0].names
for name in names:
    importlib.import_module("nfct_fast." + name)
mapped = {line.split()[-1] for line in open("/proc/self/maps") if ".so" in line}
own = sorted(path.rpartition("/")[2] for path in mapped if "/nfct_fast.libs/" in path)
assert len(own) == 3, (own, mapped)
print(platform.machine(), "CPython", platform.python_version(), "imported", len(names), "modules, own libraries:", *own)
"""


def compiler(bin):
    """Path of a one-word C compiler for the target; setuptools splits CC at blanks only in some places."""
    if subprocess.run([bin / "python", "-c", "import ziglang"], capture_output=True).returncode:
        run(bin / "pip", "install", "-q", "ziglang")
    # libc is taken as of glibc 2.17, whatever the tree has.
    path = cache() / "zigcc"
    path.write_text(f'#!/bin/sh\nexec {bin}/python -m ziglang cc -target {TARGET}.2.17 "$@"\n')
    path.chmod(0o755)
    return path


def build(bin, root, out):
    """Path of the unrepaired wheel, built from a copy of the tree."""
    libraries = root / "usr/lib" / TARGET
    # Only what the package needs: zig brings the headers and the libc of the target itself.
    narrow = out / "sysroot"
    (narrow / "lib").mkdir(parents=True)
    (narrow / "include").mkdir()
    for name in ("libnetfilter_conntrack", "libnfnetlink", "libmnl"):
        for library in libraries.glob(f"{name}.so*"):
            shutil.copy(library, narrow / "lib")
        shutil.copytree(root / "usr/include" / name, narrow / "include" / name)
    shutil.copytree(root / "usr/include/python3.11", narrow / "include/python3.11")
    shutil.copytree(root / "usr/include" / TARGET / "python3.11", narrow / "include" / TARGET / "python3.11")
    tree = out / "tree"
    shutil.copytree(PROJECT, tree, ignore=shutil.ignore_patterns(".git", ".venv", "build", "wheelhouse", "*.so", "*.egg-info"))
    cc, include = compiler(bin), narrow / "include"
    env = {**os.environ, "CC": str(cc), "LDSHARED": f"{cc} -shared", "AR": "ar", "_PYTHON_HOST_PLATFORM": "linux-aarch64",
           # The headers of the interpreter that runs this come later on the command line and find themselves included already.
           "CFLAGS": f"{FLAGS['CFLAGS']} -I{include} -I{include}/python3.11", "LDFLAGS": f"{FLAGS['LDFLAGS']} -L{narrow}/lib",
           "PKG_CONFIG_LIBDIR": str(libraries / "pkgconfig"), "PKG_CONFIG_SYSROOT_DIR": str(narrow)}
    run(bin / "python", "-m", "build", "-q", "--no-isolation", "--wheel", "--outdir", out / "plain", tree, env=env)
    made, = (out / "plain").glob("*.whl")
    return made


def repair(bin, root, wheel, out):
    """Path of the repaired wheel. The packages are not installed here, so their sources are not named: not one to publish."""
    env = {**os.environ, "PATH": f"{bin}:{os.environ['PATH']}"}
    run(bin / "auditwheel", "repair", f"--ldpaths={root / 'usr/lib' / TARGET}", "-w", out, wheel, env=env)
    made, = out.glob("*aarch64.whl")
    return made


def audit(bin, wheel):
    """All of check.py but what only the native build can know."""
    done = subprocess.run([bin / "python", HERE / "check.py", wheel], capture_output=True, text=True)
    wrong = [line for line in (done.stdout + done.stderr).splitlines()
             if line != "nothing wrong" and "SOURCES.txt" not in line and "SBOM" not in line]
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
        # pip cannot install for another machine into a folder without being told; a wheel of this kind is a plain zip.
        shutil.unpack_archive(wheel, scratch / "site", "zip")
        run(QEMU, "-L", root, "-E", f"PYTHONPATH={scratch / 'site'}", "-E", f"PYTHONHOME={root}/usr",
            root / "usr/bin/python3.11", "-c", IMPORT, cwd="/")
    print(f"{wheel.relative_to(PROJECT)}: {wheel.stat().st_size} bytes")
    audit(bin, wheel)


if __name__ == "__main__":
    sys.exit(main())
