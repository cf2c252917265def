"""Every file and function that src/nfct_fast/README.md names exists."""

import re

import pytest

from support.paths import ROOT

PACKAGE = ROOT / "src" / "nfct_fast"
MAP = PACKAGE / "README.md"
pytestmark = pytest.mark.skipif(
    not MAP.exists(), reason="the sources are not here: tests run against an installed package"
)

SUFFIXES = {".py", ".pyx", ".pxd", ".h", ".c"}


def quoted():
    return re.findall(r"`([^`\n]+)`", MAP.read_text())


def sources():
    return {path: path.read_text() for path in PACKAGE.rglob("*") if path.suffix in SUFFIXES}


def test_files_are_there():
    root = PACKAGE.parents[1]
    named = {name for name in quoted() if re.fullmatch(r"[\w./]+(/|\.(py|pyx|pxd|h|c))", name)}
    assert len(named) > 40
    missing = {name for name in named if not any((place / name).exists() for place in (PACKAGE, root))}
    assert not missing


def test_functions_and_types_are_there():
    text = "\n".join(sources().values())
    functions = {name.rstrip("()").rpartition(".")[2] for name in quoted() if name.endswith("()")}
    assert len(functions) > 20
    assert not {name for name in functions if not re.search(rf"\b(def|cdef|cpdef)\b[^\n]*\b{name}\(", text)}
    types = {name for name in quoted() if re.fullmatch(r"\w+_t|[A-Z][a-z]+[A-Za-z]*", name)}
    assert len(types) > 5
    assert not {name for name in types if not re.search(rf"\b(struct|union|class|ctypedef) [^\n]*\b{name}\b", text)}


def test_every_folder_has_its_row():
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    rows = set(re.findall(r"^\| `(\w+)/` \|", MAP.read_text(), re.M))
    assert rows == folders
