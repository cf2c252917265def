"""What Conntrack.check() finds in namespaces and for users that lack one thing after another, and whether it helps."""

import ctypes
import json
import os
import re
import shlex
import subprocess
import sys

import pytest

from nfct_fast import CheckItem, CheckReport, CheckState, Conntrack, TriedFlow
from nfct_fast.checking.event_items import judge_usage
from nfct_fast.checking.findings import examine_one
from nfct_fast.checking.host_items import kernel, version
from nfct_fast.checking.trial import judge
from support.cli import inside
from support.flows import Worker
from support.netns import ip
from support.paths import ROOT
from support.users import as_user, own_namespaces
from support.wheel import is_source_tree

OK, LIMITED, MISSING, UNKNOWN = CheckState.OK, CheckState.LIMITED, CheckState.MISSING, CheckState.UNKNOWN


def rules(netns):
    return subprocess.run(inside(netns, ["nft", "-s", "list", "ruleset"]), check=True, capture_output=True).stdout


def test_everything_where_flows_are_tracked(tracked):
    before = rules(tracked)
    report = Conntrack.check(netns=tracked)
    for name in ("modules", "events", "tracking", "receive_buffer", "table", "sock_diag", "procfs", "flow"):
        assert report.item(name).state == OK, report.item(name)
    assert [flow.right for flow in report.flows] == [True, True]
    assert [flow.closed_at_once for flow in report.flows] == [False, True]
    assert all(0 <= flow.milliseconds < 5000 and flow.reason is None for flow in report.flows)
    assert report.netns == tracked and report.kernel == os.uname().release
    assert report.state in (OK, LIMITED)
    assert rules(tracked) == before


def test_the_report_is_a_value(tracked):
    report = Conntrack.check(netns=tracked, attribution="off")
    assert json.loads(report.to_json()) == report.to_dict()
    names = [item.name for item in report.items]
    assert len(set(names)) == len(names)
    if is_source_tree():
        section = (ROOT / "README.md").read_text().split("\n## Check a host\n", 1)[1].split("\n## ", 1)[0]
        documented = [
            name for row in re.findall(r"^\| (`.*?) \|", section, re.M) for name in re.findall(r"`(\w+)`", row)
        ]
        assert sorted(documented) == sorted(names)
    assert report.item("flow").state == OK and "attribution is off" in report.item("flow").detail
    with pytest.raises(KeyError):
        report.item("nothing")
    with pytest.raises(AttributeError):
        report.netns = None


def set_to(name, value):
    return lambda netns: subprocess.run(inside(netns, ["sysctl", "-qw", f"net.netfilter.{name}={value}"]), check=True)


def remove_rules(netns):
    subprocess.run(inside(netns, ["nft", "flush", "ruleset"]), check=True)


def shut_loopback(netns):
    ip("addr", "flush", "dev", "lo", netns=netns)
    ip("link", "set", "lo", "down", netns=netns)


@pytest.mark.parametrize(
    ("item", "spoil", "state"),
    [
        ("tracking", remove_rules, MISSING),
        ("tracking", shut_loopback, UNKNOWN),
        ("events", set_to("nf_conntrack_events", 0), MISSING),
        ("accounting", set_to("nf_conntrack_acct", 0), LIMITED),
        ("timestamps", set_to("nf_conntrack_timestamp", 0), LIMITED),
    ],
    ids=["no-rule", "loopback-down", "events-off", "acct-off", "timestamp-off"],
)
def test_the_remedy_helps(tracked, item, spoil, state):
    spoil(tracked)
    report = Conntrack.check(netns=tracked)
    found = report.item(item)
    assert found.state == state and found.remedy, found
    assert report.item("flow").state == (OK if state == LIMITED else UNKNOWN)
    subprocess.run(shlex.split(found.remedy), check=True, capture_output=True)
    report = Conntrack.check(netns=tracked)
    assert report.item(item).state == OK and report.item("flow").state == OK


def test_one_family_is_tracked(netns):
    rule = "table ip6 user { chain c { type filter hook output priority 0; ct state new counter; }; }"
    subprocess.run(inside(netns, ["nft", rule]), check=True)
    report = Conntrack.check(netns=netns)
    assert report.item("tracking").state == LIMITED and "IPv4 flows are not tracked" in report.item("tracking").detail
    assert report.item("flow").state == OK  # of the other family


def test_track_tracks_for_the_check_only(netns):
    report = Conntrack.check(netns=netns, track=True)
    assert report.item("tracking").state == report.item("flow").state == OK
    assert rules(netns) == b""
    assert Conntrack.check(netns=netns).item("tracking").state == MISSING


def test_without_notes_a_socket_that_is_closed_at_once_has_no_owner(tracked):
    report = Conntrack.check(netns=tracked, attribution="diag")
    held, brief = report.flows
    assert held.right and held.match in ("socket", "wildcard")
    if not brief.right:  # the look-up may be faster than the sender
        assert brief.reason == "closed" and report.item("flow").state == LIMITED


def test_a_process_id_and_a_path(tracked):
    with Worker(lambda worker: worker.hear()) as worker:
        assert Conntrack.check(netns=worker.pid).netns == str(worker.pid)
    report = Conntrack.check(netns=f"/run/netns/{tracked}")
    assert report.item("flow").state == OK
    assert f"nsenter --net=/run/netns/{tracked} " in report.item("accounting").remedy


def test_arguments_that_are_wrong(netns):
    with pytest.raises(ValueError, match="one network namespace"):
        Conntrack.check(netns="all")
    with pytest.raises(FileNotFoundError):
        Conntrack.check(netns="nothing-of-that-name")


def test_an_unprivileged_user(tracked, within):
    def work(worker):
        as_user()
        return Conntrack.check()

    with within(), Worker(work) as worker:
        report = worker.result()
    assert report.state == MISSING and report.item("capabilities").state == MISSING
    assert report.item("capabilities").remedy.startswith("sudo")
    assert {report.item(name).state for name in ("modules", "tracking", "flow")} == {UNKNOWN}
    assert report.item("events").state == OK  # what everybody may read
    assert report.item("receive_buffer").state == LIMITED
    assert "CAP_BPF" in report.item("cgroup_programs").detail


@pytest.mark.root
def test_root_of_a_user_namespace():
    def work(worker):
        as_user()
        own_namespaces()
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return Conntrack.check(track=True)

    with Worker(work) as worker:
        report = worker.result()
    assert report.item("capabilities").state == OK
    assert report.item("namespaces").state == report.item("receive_buffer").state == LIMITED
    assert report.item("cgroup_programs").state == LIMITED
    assert report.item("tracking").state == OK
    # The interpreter may be out of a user's reach.
    assert report.item("flow").state in (OK, LIMITED, UNKNOWN), report.item("flow")


def without(tracked, command, *words):
    """Return the report of a process in the namespace, started by a shell in a mount namespace of its own."""
    check = f"{shlex.quote(sys.executable)} -c 'from nfct_fast import Conntrack; print(Conntrack.check().to_json())'"
    text = subprocess.run(
        inside(tracked, ["unshare", "-m", "sh", "-ec", command.format(check)]),
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [json.loads(line) for line in text.splitlines()]


def states(report):
    return {item["name"]: item["state"] for item in report["items"]}


def item(report, name):
    [found] = [item for item in report["items"] if item["name"] == name]
    return found


def dropped(*names):
    return f"setpriv --inh-caps=-all --bounding-set={','.join('-' + name for name in names)} "


def test_no_cgroup_v2_and_no_right_to_mount_it(tracked):
    check = dropped("sys_admin") + "{0}"
    before, after = without(
        tracked,
        f"umount -R /sys/fs/cgroup; mkdir -p /sys/fs/cgroup; {check}; mount -t cgroup2 none /sys/fs/cgroup; {check}",
    )
    assert states(before)["cgroup2"] == states(before)["cgroup_programs"] == "limited"
    assert item(before, "cgroup2")["remedy"] == "mount -t cgroup2 none /sys/fs/cgroup"  # as above
    assert states(after)["cgroup2"] == states(after)["cgroup_programs"] == "ok"


def test_cgroup_v2_is_mounted_privately(tracked):
    [report] = without(tracked, "umount -R /sys/fs/cgroup; {0}")
    assert states(report)["cgroup2"] == states(report)["cgroup_programs"] == states(report)["flow"] == "ok"


def test_processes_are_hidden(tracked):
    hidden = "mount -t proc -o hidepid=2 proc /proc; "
    before, after = without(
        tracked,
        f"{hidden} {dropped('sys_ptrace', 'sys_admin')} {{0}}; "
        f"mount -o remount,hidepid=0 /proc; {dropped('sys_ptrace', 'sys_admin')} {{0}}",
    )
    assert states(before)["procfs"] == "limited"
    assert item(before, "procfs")["remedy"] == "mount -o remount,hidepid=0 /proc"
    assert states(after)["procfs"] == "ok"
    [report] = without(tracked, hidden + "{0}")
    assert states(report)["procfs"] == "ok" and "hidepid" in item(report, "procfs")["detail"]


@pytest.mark.parametrize(
    ("names", "effect"),
    [
        (["bpf", "sys_admin"], "cgroup_programs"),
        (["perfmon", "sys_admin"], "cgroup_programs"),
        (["sys_ptrace"], "capabilities"),
        (["setuid"], "capabilities"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else value,
)
def test_a_capability_is_missing(tracked, names, effect):
    [report] = without(tracked, dropped(*names) + "{0}")
    assert states(report)["capabilities"] == "limited"
    assert f"CAP_{names[0].upper()}" in item(report, effect)["detail"]
    assert states(report)["flow"] == ("ok" if effect == "capabilities" else states(report)["flow"]) != "missing"


def test_root_without_net_admin(tracked):
    [report] = without(tracked, dropped("net_admin") + "{0}")
    assert report["state"] == states(report)["capabilities"] == "missing"
    assert item(report, "capabilities")["remedy"] is None and "--cap-add" in item(report, "capabilities")["detail"]


def test_another_pid_namespace(tracked):
    [report] = without(tracked, "unshare -pf --mount-proc {0}")
    assert states(report)["namespaces"] == states(report)["cgroup_programs"] == "limited"
    assert "pid namespace" in item(report, "cgroup_programs")["detail"]
    assert report["flows"][0]["right"]


def test_there_is_no_proc(tracked):
    [report] = without(tracked, "umount -l /proc; {0}")
    assert states(report)["procfs"] == "missing" and item(report, "procfs")["remedy"] == "mount -t proc proc /proc"
    assert report["state"] == "missing"


def test_bpf_is_refused_by_seccomp(tracked, within):
    """As in a container: bpf(2) fails with EPERM in spite of all capabilities."""

    def work(worker):
        class Filter(ctypes.Structure):
            _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]

        number = {"x86_64": 321, "aarch64": 280}.get(os.uname().machine)
        if number is None:
            return None
        code = b"".join(
            (operation.to_bytes(2, "little") + bytes([true, false]) + value.to_bytes(4, "little"))
            for operation, true, false, value in (
                (0x20, 0, 0, 0),  # load seccomp_data.nr
                (0x15, 0, 1, number),
                (0x06, 0, 0, 0x00050000 | 1),  # SECCOMP_RET_ERRNO, EPERM
                (0x06, 0, 0, 0x7FFF0000),
            )
        )
        buffer = ctypes.create_string_buffer(code, len(code))
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
        if libc.prctl(22, 2, ctypes.byref(Filter(4, ctypes.addressof(buffer))), 0, 0):  # PR_SET_SECCOMP
            raise OSError(ctypes.get_errno(), "seccomp")
        return Conntrack.check()

    with within(), Worker(work) as worker:
        report = worker.result() or pytest.skip("the number of bpf(2) on this machine is not known to the test")
    assert report.item("cgroup_programs").state == LIMITED and "seccomp" in report.item("cgroup_programs").detail
    assert report.item("flow").state in (OK, LIMITED) and report.flows[0].right


def test_the_rules_of_a_filled_table():
    assert judge_usage(79, 100).state == OK
    assert judge_usage(80, 100).state == LIMITED
    assert judge_usage(95, 100).state == MISSING
    assert judge_usage(5, 0).state == OK  # no limit
    assert judge_usage(100, 100).remedy == "sysctl net.netfilter.nf_conntrack_max=200"


def test_kernels():
    assert version("5.14.0-503.el9.x86_64") == (5, 14) and version("odd") == (0, 0)
    assert kernel("6.1.0-18-amd64", False).state == OK
    assert kernel("5.14.0-503.el9.x86_64", True).state == OK  # backports
    assert kernel("5.14.0-503.el9.x86_64", False).state == LIMITED
    assert "--track" in kernel("5.10.0", False).detail
    assert kernel("odd", True).state == LIMITED


def test_an_item_that_fails_is_unknown():
    def find(error):
        raise error

    for error in (OSError(13, "no way", "/some/file"), ValueError("bad"), KeyError(), MemoryError()):
        found = examine_one("x", find, error)
        assert found.state == UNKNOWN and found.detail
    assert "/some/file" in examine_one("x", find, OSError(13, "no way", "/some/file")).detail
    with pytest.raises(RuntimeError):  # a thread that is in the wrong namespace must not go on
        examine_one("x", find, RuntimeError("cannot leave"))


def tried(closed_at_once=False, milliseconds=1.0, pid=7, right=True, match="bpf", reason=None):
    return TriedFlow(closed_at_once, milliseconds, pid, right, match, reason)


def test_what_tried_flows_show():
    assert judge((tried(), tried(True)), "auto").state == OK
    assert judge((tried(), tried(True, milliseconds=None)), "auto").state == MISSING
    unnamed = dict(pid=None, right=False, match=None, reason="closed")
    assert judge((tried(), tried(True, **unnamed)), "auto").state == LIMITED
    assert judge((tried(**unnamed), tried(True, **unnamed)), "auto").state == MISSING
    assert judge((tried(**unnamed), tried(True, **unnamed)), "off").state == OK
    assert "which did not send it" in judge((tried(), tried(True, pid=8, right=False)), "auto").detail


def test_the_worst_item_is_the_state():
    def report(*found):
        return CheckReport(
            None, "", 0, None, tuple(CheckItem(str(i), one, "", None) for i, one in enumerate(found)), ()
        )

    assert report(OK, OK).state == OK
    assert report(OK, UNKNOWN).state == UNKNOWN
    assert report(LIMITED, UNKNOWN, OK).state == LIMITED
    assert report(MISSING, LIMITED, UNKNOWN).state == MISSING
