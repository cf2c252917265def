"""The stubs match the modules, and satisfy a user of mypy --strict."""

import os
import subprocess
import sys

import pytest

from nfct_fast.text.status import Status
from support.paths import ROOT, TESTS

SOURCE = ROOT / "src"
from_source = pytest.mark.skipif(
    not SOURCE.exists(), reason="the sources are not here: tests run against an installed package"
)
# What Cython adds to every module, the signature of a constructor it does not tell, and what is imported, not offered.
ARTEFACTS = r""".*\.__pyx_capi__
.*\.__test__
.*\.__init__
nfct_fast\.conntrack\.(GROUPS|NOTED_FIRST)
"""


def mypy(cache, *arguments):
    environment = os.environ | {"MYPYPATH": str(SOURCE), "MYPY_CACHE_DIR": str(cache)}
    result = subprocess.run(
        [sys.executable, "-m", *arguments], capture_output=True, text=True, env=environment, cwd=SOURCE
    )
    assert result.returncode == 0, result.stdout + result.stderr


@from_source
def test_stubs_are_true(tmp_path):
    (tmp_path / "allowed").write_text(ARTEFACTS)
    stubs = (
        path.relative_to(SOURCE).with_suffix("")
        for path in SOURCE.glob("nfct_fast/**/*.pyi")
        if path.stem != "__init__"
    )
    modules = [".".join(stub.parts) for stub in stubs]
    assert len(modules) >= 7
    mypy(tmp_path, "mypy.stubtest", "--allowlist", str(tmp_path / "allowed"), "--ignore-unused-allowlist", *modules)


@from_source
def test_a_strict_user(tmp_path):
    mypy(tmp_path, "mypy", "--strict", str(TESTS / "package" / "typed_sample.py"))


def test_status_bits():
    assert Status(8) is Status.CONFIRMED and Status.HW_OFFLOAD == 1 << 15
