"""`nfct-fast --check`: its screen, its exit status, and that it refuses what makes no sense."""

import json
import os
import pty
import select
import shlex
import subprocess
import sys

import pytest

from support.cli import COMMAND, PROGRAM, SECONDS, inside, run
from support.netns import made, use_conntrack


def check(netns, *arguments, prefix=(), **options):
    return subprocess.run(
        inside(netns, [*prefix, *PROGRAM, "--check", *arguments]),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        **options,
    )


def test_where_flows_are_tracked(tracked):
    result = check(tracked)
    assert result.returncode in (0, 3) and result.stderr == ""
    *_, conclusion = lines = result.stdout.splitlines()
    assert conclusion.startswith("It works here") and all(len(line) <= 80 for line in lines)
    assert "\x1b" not in result.stdout
    [flow] = [line for line in lines if line.split()[1:2] == ["flow"]]
    assert flow.startswith("ok ")


def test_where_they_are_not(netns):
    result = check(netns)
    assert result.returncode == 1 and result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[-1] == "It does not work here as it is: see what is missing."
    [remedy] = [line for line in lines if line.startswith("    nft ")]
    subprocess.run(inside(netns, shlex.split(remedy)), check=True)
    assert check(netns).returncode in (0, 3)


def test_json(tracked):
    result = check(tracked, "--json")
    report = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1 and report["schema"] == 1
    assert result.returncode == {"ok": 0, "limited": 3, "unknown": 3, "missing": 1}[report["state"]]
    assert [flow["right"] for flow in report["flows"]] == [True, True]


def test_another_namespace(tracked):
    with made() as other:
        result = check(other, "--netns", tracked)
        assert result.returncode in (0, 3) and f"network namespace {tracked}" in result.stdout.splitlines()[0]
        assert check(tracked, "--netns", other).returncode == 1
        assert check(other, "--track").returncode in (0, 3)


@pytest.mark.parametrize("option", ["--no-sandbox", "--attribution=off", "--attribution=diag", "--user=nobody"])
def test_as_the_program_would_run(tracked, option):
    assert check(tracked, option).returncode in (0, 3)


def test_all_is_well(tracked):
    """Once every remedy that the host cannot refuse is executed, nothing is limited but what this machine lacks."""
    report = json.loads(check(tracked, "--json").stdout)
    for item in report["items"]:
        if item["name"] in ("accounting", "timestamps"):
            subprocess.run(inside(tracked, shlex.split(item["remedy"])), check=True, capture_output=True)
    report = json.loads(check(tracked, "--json").stdout)
    assert {item["name"] for item in report["items"] if item["state"] != "ok"} <= {
        "user",
        "clock",
        "kernel",
        "landlock",
    }


def test_colour_on_a_terminal_only(tracked):
    def shown(**environment):
        main, side = pty.openpty()
        process = subprocess.Popen(
            inside(tracked, [*COMMAND, "--check"]), stdout=side, env={**os.environ, "TERM": "xterm", **environment}
        )
        os.close(side)
        data = b""
        while select.select([main], [], [], SECONDS)[0]:
            try:
                data += os.read(main, 4096)
            except OSError:  # EIO: the other side is closed
                break
        process.wait(SECONDS)
        os.close(main)
        return data

    assert b"\x1b[32mok " in shown(NO_COLOR="")
    assert b"\x1b" not in shown(NO_COLOR="1")
    assert b"\x1b" not in shown(TERM="dumb", NO_COLOR="")


@pytest.mark.parametrize(
    "arguments",
    [["-p", "udp"], ["--flows"], ["dport", "53"], ["-L"], ["--replay", "x"], ["--netns", "all"], ["-f", "{ts}"]],
    ids=" ".join,
)
def test_what_does_not_go_with_it(netns, arguments):
    result = run(netns, "--check", *arguments)
    assert result.returncode == 2 and result.stdout == b"" and result.stderr.count(b"\n") == 1


def test_there_is_no_such_namespace(netns):
    result = run(netns, "--check", "--netns", "nothing\x1b[31m")
    assert result.returncode == 1 and result.stdout == b"" and b"\x1b" not in result.stderr


def test_a_full_disk_and_a_closed_output(tracked):
    with open("/dev/full", "w") as full:
        result = subprocess.run(inside(tracked, [*PROGRAM, "--check"]), stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == 1 and result.stderr.count(b"\n") == 1
    result = subprocess.run(
        inside(tracked, ["sh", "-c", f"{shlex.join(PROGRAM)} --check | true"]), stderr=subprocess.PIPE
    )
    assert result.stderr == b""


def test_an_unprivileged_user(tracked):
    result = check(tracked, prefix=["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"])
    if "ermission denied" in result.stderr and not result.stdout:
        pytest.skip(f"a user cannot run {sys.executable}")
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "\n    sudo nfct-fast --check\n" in result.stdout


def test_it_leaves_no_process_and_no_table(netns):
    use_conntrack(netns)
    check(netns, "--track")
    inode = os.stat(f"/run/netns/{netns}").st_ino
    left = [pid for pid in os.listdir("/proc") if pid.isdecimal() and _netns(pid) == inode]
    assert left == []
    tables = subprocess.run(inside(netns, ["nft", "list", "tables"]), check=True, capture_output=True, text=True).stdout
    assert tables == "table inet user\n"


def _netns(pid):
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return None
