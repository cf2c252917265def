"""A module imports only from its own folder and from those before it in the order below."""

import re

import pytest

import nfct_fast
from support.paths import ROOT

FOLDERS = (
    "kernel",
    "text",
    "events",
    "processes",
    "sockets",
    "namespaces",
    "records",
    "filters",
    "seen",
    "attribution",
    "output",
    "columns",
    "monitoring",
    "replay",
    "store",
    "clickhouse",
    "reading",
    "metrics",
    "checking",
    "",
    "live_table",
    "search",
    "command",
    "data",
    "testing",
)  # "" is the package itself
PACKAGE = ROOT / "src" / "nfct_fast"
SOURCES = sorted(
    path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".pyx", ".pxd") and path.parent.name != "bpf"
)
# These stand at the top because Python looks for them there; they import nothing of the package but each other.
LOADING = {"nfct_fast._loader", "nfct_fast._modules", "nfct_fast._version"}
from_source = pytest.mark.skipif(not SOURCES, reason="the sources are not here: tests run against an installed package")
_FROM = re.compile(r"^\s*from\s+(nfct_fast[\w.]*|\.\w*)\s+c?import\s+(\([^)]*\)|[^\n#]*)", re.M)
_WHOLE = re.compile(r"^\s*c?import\s+(nfct_fast[\w.]+)", re.M)


def module_of(path):
    return ".".join(("nfct_fast", *path.relative_to(PACKAGE).with_suffix("").parts))


MODULES = {module_of(path) for path in SOURCES} | LOADING


def folder_of(module):
    if module == "nfct_fast.__main__":  # Python looks for it at the top
        return "command"
    return module.split(".")[1] if module.count(".") == 2 else ""


def imported(text):
    """The modules of the package that a source imports or cimports, anywhere in it."""
    for match in _FROM.finditer(text):
        start = match[1] if not match[1].startswith(".") else "nfct_fast" + match[1].rstrip(".")
        for name in match[2].strip("()").split(","):
            whole = f"{start}.{name.split(' as ')[0].strip()}"
            if whole in MODULES:
                yield whole
            elif start in MODULES:
                yield start
    yield from _WHOLE.findall(text)


@from_source
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_its_folder_and_those_before(path):
    own = module_of(path)
    assert folder_of(own) in FOLDERS, f"{path.parent.name} has no place in the order above"
    for other in set(imported(path.read_text())) - {own}:
        assert other in MODULES, f"{path.name} imports {other}, which is not there"
        if other not in LOADING:
            assert FOLDERS.index(folder_of(other)) <= FOLDERS.index(folder_of(own)), (
                f"{own} imports {other}, whose folder comes later"
            )


@from_source
def test_no_modules_import_each_other_in_a_circle():
    graph = {module: set() for module in MODULES}
    for path in SOURCES:
        graph[module_of(path)] |= set(imported(path.read_text())) - {module_of(path)}
    done = set()

    def visit(module, way):
        assert module not in way, " -> ".join([*way, module])
        if module not in done:
            for other in graph[module]:
                visit(other, [*way, module])
            done.add(module)

    for module in graph:
        visit(module, [])


@from_source
def test_folders_say_what_they_know_and_names_are_unique():
    """Every folder says in its docstring what it knows, and no two modules have the same last name (see setup.py)."""
    for folder in FOLDERS:
        assert (PACKAGE / folder / "__init__.py").read_text().startswith('"""'), folder
    names = [module.rpartition(".")[2] for module in MODULES if not module.endswith("__init__")]
    assert len(names) == len(set(names))


def test_what_is_exported_is_there():
    for name in nfct_fast.__all__:
        assert getattr(nfct_fast, name) is not None
    with pytest.raises(AttributeError):
        _ = nfct_fast.nothing


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("from nfct_fast.events.flow cimport tuple_t", ["events.flow"]),
        ("from nfct_fast.events.flow cimport (a,\n   b)", ["events.flow"] * 2),
        ("from nfct_fast.kernel import netns, procfs as f", ["kernel.netns", "kernel.procfs"]),
        ("    cimport nfct_fast.kernel.mutex", ["kernel.mutex"]),
        ("from . import _loader", ["_loader"]),
        ("from libc.errno cimport errno\nimport os", []),
    ],
)
@from_source
def test_imports_are_seen(text, names):
    assert list(imported(text)) == [f"nfct_fast.{name}" for name in names]
