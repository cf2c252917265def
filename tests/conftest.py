"""Fixtures that all tests share: namespaces of their own, and the sender of many flows."""

import os
import shutil
import signal
import subprocess

import pytest

from nfct_fast.kernel.netns import resolve
from support.netns import ip, made, use_conntrack
from support.paths import SUPPORT, TESTS

# A shell's background job ignores ^C, and so would all programs that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header():
    if os.geteuid() != 0:
        return (
            "not root: tests that make network namespaces, other users or BPF programs are skipped "
            "(`make test` runs all)"
        )


@pytest.hookimpl(tryfirst=True)  # before -m deselects tests
def pytest_collection_modifyitems(items):
    """Mark tests that make a network namespace as needing root; others that need root are marked where they are."""
    for item in items:
        if "netns" in item.fixturenames:
            item.add_marker("root")
        if item.get_closest_marker("root") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    # Tests in namespaces are what CI is for: there they may fail, but not be skipped.
    if (
        report.skipped
        and not hasattr(report, "wasxfail")
        and os.environ.get("CI") == "true"
        and "netns" in item.fixturenames
    ):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report


@pytest.fixture
def netns():
    """The name of a new network namespace with loopback up, in which nothing uses conntrack."""
    with made() as name:
        yield name


@pytest.fixture
def tracked(netns):
    """The same with a rule that uses conntrack."""
    use_conntrack(netns)
    return netns


@pytest.fixture
def within(netns):
    """A context manager that puts the thread into the test's namespace."""
    [home] = resolve(netns)
    with home:
        yield home.entered


@pytest.fixture
def flood(netns, tmp_path_factory):
    """A function that sends flows to a device that drops them: (count, rate, how="one", address) -> number sent."""
    program = tmp_path_factory.getbasetemp() / "flood"
    if not program.exists():
        compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc") or pytest.skip("no C compiler")
        subprocess.run([compiler, "-O2", "-o", program, TESTS / "bench" / "flood.c"], check=True)
    for kind in ("dummy", "ifb"):
        if (
            subprocess.run(["ip", "-n", netns, "link", "add", "sink", "type", kind], capture_output=True).returncode
            == 0
        ):
            break
    else:
        subprocess.run(["ip", "-n", netns, "tuntap", "add", "sink", "mode", "tun"], check=True)
    ip("link", "set", "sink", "up", netns=netns)
    ip("addr", "add", "10.99.0.1/16", "dev", "sink", netns=netns)
    ip("-6", "addr", "add", "fd99::1/64", "dev", "sink", "nodad", netns=netns)

    def make(count, rate, how="one", address="10.99.1.1"):
        command = ["nsenter", f"--net=/run/netns/{netns}", program, str(count), str(rate), how, address]
        return int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout.split()[0])

    return make


@pytest.fixture(scope="session")
def faults(tmp_path_factory):
    """The environment of a program to which the kernel seems to fail as support/faults.c describes."""
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc") or pytest.skip("no C compiler")
    subprocess.run(
        [compiler, "-O2", "-Wall", "-shared", "-fPIC", "-o", library, SUPPORT / "faults.c", "-ldl"], check=True
    )
    return lambda fault, **settings: (
        os.environ
        | {"LD_PRELOAD": str(library), "NFCT_FAULT": fault}
        | {f"NFCT_{name.upper()}": str(value) for name, value in settings.items()}
    )
