"""A wheel built here is repaired, installed where nothing else is, and works. `make wheels` does so on every Python."""

import os
import platform
import subprocess
import sys

import pytest

from support.wheel import CLEAN, RECIPES, empty_environment, is_source_tree, plain_wheel, run, wheel

if is_source_tree() and os.environ.get("CI") != "true":
    pytest.importorskip("auditwheel", reason="needs the dependency group wheel")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not is_source_tree(), reason="needs the source tree"),
]


@pytest.fixture(scope="module")
def check():
    sys.path.insert(0, str(RECIPES))
    try:
        import check

        return check
    finally:
        sys.path.remove(str(RECIPES))


@pytest.fixture(scope="module")
def installed():
    """Python of a virtual environment that has the wheel and no index to get anything else from."""
    python = empty_environment("installed")
    run(python, "-m", "pip", "install", "-q", "--no-index", wheel())
    return python


def glibc_limit():
    """2.17 on Debian 12, where releases are built; elsewhere the libraries of the machine decide."""
    if platform.freedesktop_os_release().get("VERSION_CODENAME") == "bookworm":
        return 2, 17
    return tuple(map(int, platform.libc_ver()[1].split(".")))


def test_repaired_wheel_has_no_fault(check):
    assert check.faults(wheel(), glibc_limit()) == []


def test_faults_are_found_in_an_unrepaired_wheel(check):
    found = "\n".join(check.faults(plain_wheel(), glibc_limit()))
    for fault in (
        "needs libnetfilter_conntrack.so.3",
        "grafted libraries are []",
        "SOURCES.txt is missing",
        "libmnl is not in the SBOM",
    ):
        assert fault in found


def test_installs_without_an_index_and_says_its_version(installed):
    version = run(installed, "-c", "import nfct_fast; print(nfct_fast.__version__)", cwd="/").strip()
    assert f"nfct_fast-{version}-cp311-abi3-" in wheel().name


@pytest.mark.root
def test_names_the_process_of_a_real_flow_with_its_own_libraries(installed):
    done = subprocess.run(
        ["unshare", "--net", installed, RECIPES / "main_job.py"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
        env=CLEAN,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("/nfct_fast.libs/") == 2 * 3  # it runs twice
