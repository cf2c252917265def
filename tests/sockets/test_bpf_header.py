"""The generated header is what the BPF source compiles to."""

import importlib.util
import re

import pytest

from support.paths import ROOT

PATH = ROOT / "src/nfct_fast/sockets/bpf/generate.py"
pytestmark = pytest.mark.skipif(
    not PATH.exists(), reason="the BPF source is not here: tests run against an installed package"
)


@pytest.fixture
def generate():
    spec = importlib.util.spec_from_file_location("generate", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_header_names_this_very_source(generate):
    """Needs no clang: after a change to the source the header must be generated again."""
    recorded = re.search(r"sources: (\w+)", generate.HEADER.read_text())[1]
    assert recorded == generate.source_hash(), "run src/nfct_fast/sockets/bpf/generate.py"


def test_clang_gives_the_same_instructions(generate):
    kept = generate.HEADER.read_text()
    wanted, here = int(re.search(r"clang: (\d+)", kept)[1]), generate.clang_major()
    if here is None:
        pytest.skip("no clang with a BPF target")
    fresh = generate.header(generate.compiled(), here)
    if here != wanted:
        pytest.skip(f"clang {here} compiles the source, but the header is of clang {wanted}: not compared")
    assert fresh == kept, "run src/nfct_fast/sockets/bpf/generate.py"
