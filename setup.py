"""Build the .pyx files under src/nfct_fast into one shared object; everything else is in pyproject.toml."""

import os
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.modified import newer_group

PACKAGE = Path("src/nfct_fast")
LIBRARIES = ("libnetfilter_conntrack", "libnfnetlink", "libmnl")
# Modules that few flows or none pass through, compiled for size: that takes 95 KB off a wheel.
SELDOM_RUN = set(
    """
    batch batches cgroup_filesystem cgroup_paths cmdline_reader conntrack discovery engine fork_guard helper_channel
    holder_search interval_timer links local_addresses local_routes map_builder message_encoder netlink_query
    netns_census open_netns opener os_error privileges proc_connector process_reader process_watch rebuild
    receive_memory redactor row_player sandbox sources watched_namespace
    """.split()
)
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


def extensions(testing):
    """One Extension for each .pyx; none is linked by itself, see Joined."""
    # One abi3 wheel serves every CPython from 3.11 on; a free-threaded build has no stable ABI.
    abi3 = not sysconfig.get_config_var("Py_GIL_DISABLED")
    macros = [("Py_LIMITED_API", "0x030B0000")] if abi3 else []
    # Strings that are compressed already cannot be compressed once more together, as a wheel's are.
    macros.append(("CYTHON_COMPRESS_STRINGS", "0"))
    versions = ", ".join(f"{name} {pkg_config('--modversion', [name])[0]}" for name in LIBRARIES)
    of_libraries = ("NFCT_FAST_LIBRARIES", f'"{versions}"')
    sources = [path for path in sorted(PACKAGE.rglob("*.pyx")) if testing or path.parent.name != "testing"]
    if gone := SELDOM_RUN - {path.stem for path in sources}:
        sys.exit(f"setup.py: SELDOM_RUN names modules that are not there: {' '.join(sorted(gone))}")
    return [
        Extension(
            ".".join(path.relative_to("src").with_suffix("").parts),
            [str(path)],
            include_dirs=["include", "src"],
            py_limited_api=abi3,
            depends=[str(header) for header in PACKAGE.rglob("*.h")],
            define_macros=[*macros, of_libraries] if path.stem == "build_info" else macros,
            extra_compile_args=[
                "-Os" if path.stem in SELDOM_RUN else "-O2",
                "-Wall",
                "-Wextra",
                "-Wno-unused-parameter",
                "-Wno-unused-function",
                *pkg_config("--cflags"),
            ],
        )
        for path in sources
    ]


# The interpreter asks a shared object for PyInit_ and the last part of a module's name: hence no two may share it.
TABLE_OF_CONTENTS = """\
#include <Python.h>

static int add_names(PyObject *module)
{{
    PyObject *names = Py_BuildValue("({formats})", {names});
    int result = names ? PyModule_AddObjectRef(module, "NAMES", names) : -1;
    Py_XDECREF(names);
    return result;
}}

static PyModuleDef_Slot slots[] = {{{{Py_mod_exec, (void *)add_names}}, {{0, NULL}}}};
static PyModuleDef definition = {{PyModuleDef_HEAD_INIT, "_modules", "Every extension module of the package.", 0, NULL,
                                 slots, NULL, NULL, NULL}};

PyMODINIT_FUNC PyInit__modules(void)
{{
    return PyModuleDef_Init(&definition);
}}
"""


class Joined(build_ext):
    """Compile the modules that changed in parallel, and link all into nfct_fast._modules, which _loader.py opens.

    Each in a shared object of its own, what Cython repeats in them makes a wheel twice as large."""

    user_options = [
        *build_ext.user_options,
        ("with-hooks", None, "build the hooks for tests, as an in-place build does"),
    ]
    boolean_options = [*build_ext.boolean_options, "with-hooks"]

    def initialize_options(self):
        super().initialize_options()
        self.with_hooks = False

    def run(self):
        # A wheel has no hooks for tests; a tree that is developed in has. While it builds, setuptools clears `inplace`.
        self.with_hooks = self.with_hooks or self.inplace or self.editable_mode
        super().run()

    def build_extensions(self):
        (joined,) = self.extensions
        found = modules(testing=self.with_hooks)
        found.append(self.table_of_contents([module.name for module in found], found[0]))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(self.compile_module, found))
        # -pthread: before glibc 2.34 the old symbols that pthread_old.h names are in a library of their own.
        self.compiler.link_shared_object(
            objects,
            self.get_ext_fullpath(joined.name),
            build_temp=self.build_temp,
            extra_postargs=[*pkg_config("--libs"), "-pthread"],
        )

    def table_of_contents(self, names, like):
        """The Extension that is nfct_fast._modules itself and says which others the file holds."""
        last = [name.rpartition(".")[2] for name in names]
        if twice := {name for name in last if last.count(name) > 1}:
            sys.exit(f"setup.py: two modules are called {' and '.join(sorted(twice))}; rename one")
        text = TABLE_OF_CONTENTS.format(formats="s" * len(names), names=", ".join(f'"{name}"' for name in names))
        source = Path("build/cython/_modules.c")
        if not source.exists() or source.read_text() != text:
            source.write_text(text)
        return Extension(
            "nfct_fast._modules",
            [str(source)],
            define_macros=like.define_macros,
            include_dirs=like.include_dirs,
            extra_compile_args=like.extra_compile_args,
        )

    def compile_module(self, module):
        """Path of the object file."""
        (source,) = module.sources
        (path,) = self.compiler.object_filenames([source], output_dir=self.build_temp)
        if self.force or newer_group([source, "setup.py", *module.depends], path):
            self.compiler.compile(
                [source],
                output_dir=self.build_temp,
                macros=module.define_macros,
                include_dirs=module.include_dirs,
                extra_postargs=module.extra_compile_args,
            )
        return path


def modules(testing):
    return cythonize(
        extensions(testing),
        include_path=["include"],
        build_dir="build/cython",
        # Functions of Cython's own type, the default, are a sixth of the size; the interpreter's say their signatures
        # as well.
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "binding": False,
            "embedsignature": True,
            "embedsignature.format": "clinic",
        },
    )


def description():
    """The beginning of README.md: all of it would be a fiftieth of the wheel."""
    beginning, _, _ = Path("README.md").read_text().partition("\n### Whole flows\n")
    return f"{beginning}\nThe rest of this text is in the source, and in `nfct-fast --man`.\n"


setup(
    long_description=description(),
    long_description_content_type="text/markdown",
    ext_modules=[Extension("nfct_fast._modules", [], py_limited_api=not sysconfig.get_config_var("Py_GIL_DISABLED"))],
    cmdclass={"build_ext": Joined},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
