"""Processes that exit at once are printed with their own command line, by the program itself."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from nfct_fast.attribution.resolver import Resolver
from nfct_fast.conntrack import Conntrack
from nfct_fast.processes.cgroup_filesystem import find_mount
from support.cli import COMMAND, Program, inside, until
from support.containers import wire_through
from support.flows import nft
from support.netns import inside as entered
from support.netns import made
from support.socket_notes import unusable

REASON = unusable()
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(REASON is not None, reason=f"owner tracking cannot run here: {REASON}"),
    pytest.mark.skipif(not shutil.which("bash"), reason="no bash"),
]
PROCESSES = 300
FORMAT = "{ev.dport} {info.pid} {info.uid} {info.comm} :: {info.cmdline}"


def script(port, address="127.0.0.1"):
    return f"echo x >/dev/udp/{address}/{port}"


def shown(program, ports):
    """{port: (pid, uid, command line)} once every port was printed."""

    def lines():
        found = {}
        for line in list(program.lines):
            left, _, cmdline = line.partition(" :: ")
            port, pid, uid, _ = left.split(" ", 3)
            if int(port) in ports:
                found[int(port)] = pid, uid, cmdline
        return found if len(found) == len(ports) else None

    return until(lines, what=f"{len(ports)} lines")


def unknown(program, pids, command, uid="0"):
    """Those without a command line; every process is named, and every command line that is there is right."""
    flows = shown(program, pids)
    assert [(port, flow) for port, flow in flows.items() if flow[:2] != (str(pids[port]), uid)] == []
    known = {port: flow[2] for port, flow in flows.items() if flow[2] not in ("-", "[bash]")}
    assert known == {port: command(port) for port in known}
    return sorted(set(pids) - set(known))


def send(netns, prefix=(), address="127.0.0.1"):
    """{port: pid} of processes that each send one datagram and exit, each of which keeps its pid through execve."""
    pids = {}
    for port in range(20000, 20000 + PROCESSES):
        process = subprocess.Popen(inside(netns, [*prefix, "bash", "-c", script(port, address)]))
        pids[port] = process.pid
        process.wait()
    return pids


@pytest.mark.parametrize(
    ("prefix", "uid"),
    [
        ([], "0"),
        (["setsid"], "0"),
        (["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"], "65534"),
    ],
)
def test_300_processes_that_send_and_exit(prefix, uid):
    if prefix and not shutil.which(prefix[0]):
        pytest.skip(f"no {prefix[0]}")
    with made() as netns, Program(netns, "--track", "-p", "ipv4/udp", "-f", FORMAT) as program:
        assert unknown(program, send(netns, prefix), lambda port: f"bash -c {script(port)}", uid) == []


@contextlib.contextmanager
def masqueraded():
    """A namespace and one behind it, whose flows leave through it with another address."""
    with made() as host, made() as guest:
        wire_through(host, guest)
        nft('table ip nat { chain c { type nat hook postrouting priority 100; oifname "out" masquerade; }; }', host)
        yield host, guest


def test_300_processes_in_another_namespace_behind_masquerade():
    with masqueraded() as (host, guest), Program(host, "-p", "ipv4/udp", "-f", FORMAT) as program:
        assert (
            unknown(program, send(guest, address="10.91.0.2"), lambda port: f"bash -c {script(port, '10.91.0.2')}")
            == []
        )


def test_each_program_of_one_process_has_its_own_command_line():
    """One pid, four programs in a row, each sends: a flow bears the command line of the program that sent it,
    or none."""
    with made() as netns, Program(netns, "--track", "-p", "ipv4/udp", "-f", FORMAT) as program:
        known = 0
        for base in range(30000, 30200, 4):
            text = script(base + 3)
            commands = {base + 3: text}
            for port in (base + 2, base + 1, base):
                text = f'{script(port)}; exec bash -c "$T{port + 1}"'
                commands[port] = text
            environment = {**os.environ, **{f"T{port}": command for port, command in commands.items()}}
            process = subprocess.Popen(inside(netns, ["bash", "-c", commands[base]]), env=environment)
            process.wait()
            for port, (pid, _, cmdline) in shown(program, range(base, base + 4)).items():
                assert pid == str(process.pid)
                assert cmdline in ("-", "[bash]", f"bash -c {commands[port]}"), (port, cmdline)
                known += cmdline.startswith("bash")
        program.end()
    assert known > 0.5 * 200


def test_a_container_has_the_pids_of_the_host():
    with made() as netns, Program(netns, "--track", "-p", "ipv4/udp", "-f", FORMAT) as program:
        container = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", f"{script(901)}; read"]
        process = subprocess.Popen(inside(netns, container), stdin=subprocess.PIPE)
        pid, _, cmdline = shown(program, {901})[901]
        with open(f"/proc/{pid}/status") as status:
            numbers = next(line.split()[1:] for line in status if line.startswith("NSpid:"))
        process.communicate(b"\n")
        program.end()
    assert numbers == [pid, "1"] and cmdline == f"bash -c {script(901)}; read"


def keeping(*names):
    keep = ",".join("+" + name for name in names)
    return ["setpriv", "--inh-caps=-all", f"--bounding-set=-all,{keep}"]


def test_without_the_right_to_enter_namespaces_programs_are_known():
    # The proc connector would need CAP_SYS_ADMIN here; the kernel's tracepoints know no namespaces.
    prefix = keeping("bpf", "perfmon", "net_admin", "sys_ptrace", "dac_read_search", "dac_override", "sys_resource")
    with made() as netns, Program(netns, "--track", "-p", "ipv4/udp", "-f", FORMAT, prefix=prefix) as program:
        assert unknown(program, send(netns), lambda port: f"bash -c {script(port)}") == []
        program.end()
    assert [line for line in program.complaints if "command line" in line] == []


def test_without_the_notes_auto_goes_on_and_bpf_refuses():
    prefix = keeping("net_admin", "sys_ptrace", "dac_read_search", "dac_override", "sys_resource")
    with made() as netns:
        with Program(netns, "--track", "-p", "ipv4/udp", "-f", FORMAT, prefix=prefix) as program:
            process = subprocess.Popen(
                inside(netns, ["bash", "-c", "exec 3>/dev/udp/127.0.0.1/902; echo x >&3; read"]), stdin=subprocess.PIPE
            )
            assert shown(program, {902})[902][0] == str(process.pid)
            process.communicate(b"\n")
            program.end()
        [line] = [line for line in program.complaints if "CAP_BPF" in line]
        refused = subprocess.run(
            inside(netns, [*prefix, *COMMAND, "--attribution", "bpf"]), capture_output=True, text=True, timeout=20
        )
    assert refused.returncode == 1 and refused.stdout == ""
    assert len(refused.stderr.splitlines()) == 1 and "CAP_BPF" in refused.stderr


def test_a_small_memory_of_flows_names_nobody_else():
    with pytest.raises(ValueError):
        Resolver("bpf", notes=0)
    prefix = [
        sys.executable,
        "-c",
        """if 1:
        import socket, sys, os
        print(os.getpid())
        for i in range(6000):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s: s.sendto(b"x", ("127.0.0.1", 1000 + i))
    """,
    ]
    with entered(), Conntrack(track=True, probe=False, notes=1024) as conntrack:
        pids = {
            int(out)
            for out in (subprocess.run(prefix, check=True, capture_output=True, text=True).stdout for _ in range(2))
        }
        flows, end = [], time.monotonic() + 1
        while time.monotonic() < end:
            flows += [flow for flow in conntrack.read(timeout=0.2) if flow.dport >= 1000]
    assert len(flows) >= 6000
    assert {flow.owner.pid for flow in flows} - {None} <= pids


def left(kind, ids):
    shown = subprocess.run(["bpftool", "-j", kind, "show"], check=True, capture_output=True, text=True).stdout
    return {each["id"] for each in json.loads(shown)} & ids


@pytest.mark.skipif(not shutil.which("bpftool"), reason="no bpftool to look with")
def test_killed_in_mid_run_it_leaves_nothing():
    with made() as netns, Program(netns, "--track", "-p", "ipv4/udp", "-f", FORMAT) as program:
        sender = subprocess.Popen(
            inside(netns, ["timeout", "60", "bash", "-c", "while :; do echo x >/dev/udp/127.0.0.1/9; done"])
        )
        program.await_lines(10)
        ids = {"prog": set(), "map": set(), "link": set()}
        for fd in os.listdir(f"/proc/{program.pid}/fdinfo"):
            with contextlib.suppress(FileNotFoundError), open(f"/proc/{program.pid}/fdinfo/{fd}") as lines:
                for name, _, value in (line.partition(":") for line in lines):
                    if name in ("prog_id", "map_id", "link_id"):
                        ids[name[:-3]].add(int(value))
        tree = ["bpftool", "-j", "cgroup", "tree", os.fsdecode(find_mount())]
        attached = subprocess.run(tree, capture_output=True, text=True).stdout
        assert all(ids.values()) and all(left(kind, ids[kind]) == ids[kind] for kind in ids)
        shown = json.loads(
            subprocess.run(["bpftool", "-j", "prog", "show"], check=True, capture_output=True, text=True).stdout
        )
        traced = {each["id"] for each in shown if each["type"] == "tracing"} & ids["prog"]
        assert len(traced) == 3 and all(f'"id":{number},' in attached for number in ids["prog"] - traced)
        program.end(signal.SIGKILL)
        until(lambda: not any(left(kind, ids[kind]) for kind in ids), what="the kernel's letting go")
        attached = subprocess.run(tree, capture_output=True, text=True).stdout
        assert not any(f'"id":{number},' in attached for number in ids["prog"])
        sender.terminate()  # timeout(1) passes that on, which it cannot with SIGKILL
        sender.wait()
