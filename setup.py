"""Builds every src/nfct_fast/*.pyx as one extension module; everything else is in pyproject.toml."""
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

LIBRARIES = ("libnetfilter_conntrack", "libnfnetlink", "libmnl")
PACKAGES = """\
nfct_fast needs the headers of libnetfilter_conntrack, libnfnetlink and libmnl, and pkg-config:
  Debian, Ubuntu:  apt install gcc python3-dev pkg-config libnetfilter-conntrack-dev libnfnetlink-dev libmnl-dev
  Fedora, RHEL:    dnf install gcc python3-devel pkgconf libnetfilter_conntrack-devel libnfnetlink-devel libmnl-devel
  Arch:            pacman -S gcc pkgconf libnetfilter_conntrack libnfnetlink libmnl"""


def pkg_config(option, libraries=LIBRARIES):
    command = [os.environ.get("PKG_CONFIG", "pkg-config"), option, *libraries]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    except FileNotFoundError:
        sys.exit(f"setup.py: {command[0]} is missing.\n{PACKAGES}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"setup.py: {error.stderr.strip()}\n{PACKAGES}")


def extensions():
    # One abi3 wheel serves every CPython from 3.11 on; a free-threaded build has no stable ABI.
    abi3 = not sysconfig.get_config_var("Py_GIL_DISABLED")
    common = {
        "include_dirs": ["include"],
        "define_macros": [("Py_LIMITED_API", "0x030B0000")] if abi3 else [],
        "py_limited_api": abi3,
        "extra_compile_args": ["-O2", "-Wall", "-Wextra", "-Wno-unused-parameter", *pkg_config("--cflags")],
        "extra_link_args": pkg_config("--libs"),
    }
    modules = {
        path.stem: Extension(f"nfct_fast.{path.stem}", [str(path)], **common)
        for path in sorted(Path("src/nfct_fast").glob("*.pyx"))
    }
    versions = ", ".join(f"{name} {pkg_config('--modversion', [name])[0]}" for name in LIBRARIES)
    # A list of its own: the others share theirs.
    modules["libraries"].define_macros = [*common["define_macros"], ("NFCT_FAST_LIBRARIES", f'"{versions}"')]
    return list(modules.values())


setup(
    ext_modules=cythonize(
        extensions(),
        include_path=["include"],
        build_dir="build/cython",
        compiler_directives={"language_level": 3, "boundscheck": False, "wraparound": False, "cdivision": True,
                             "embedsignature": True},
    ) if not {"clean", "egg_info", "sdist", "--version"} & set(sys.argv) else [],
    options={"build_ext": {"parallel": os.cpu_count()}, "bdist_wheel": {"py_limited_api": "cp311"}},
)
