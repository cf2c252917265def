"""The program's main job: one line for each new flow, with the process that made it."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nfct_fast import __version__
from nfct_fast.__main__ import main
from support.cli import Program, inside, run, until


def process_line(pid="self"):
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read().rstrip(b"\0").replace(b"\0", b" ").decode()


HOLDER = """if 1:
    import socket, time
    socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(20)]
    for sock in socks:
        sock.connect(("127.0.0.1", 9999))
        sock.send(b"x")
    print(*(sock.getsockname()[1] for sock in socks), flush=True)
    time.sleep(0.1)
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
"""


def test_twenty_connected_udp_flows_held_a_tenth_of_a_second(tracked):
    with Program(tracked, "-p", "udp") as program:
        sender = subprocess.run(
            inside(tracked, [sys.executable, "-c", HOLDER]), capture_output=True, text=True, check=True
        )
        program.await_lines(20)
        time.sleep(0.2)
        program.end()
        flows = program.flows()
    ports = {int(port) for port in sender.stdout.split()}
    assert set(flows) == {("ipv4/udp", port, 9999) for port in ports}  # and no TCP
    for line in flows.values():
        assert (line["src"], line["dst"], line["uid"], line["gid"]) == ("127.0.0.1", "127.0.0.1", "0", "0")
        # conntrack-logger's way, and ours: arguments with a space between, control characters as \n
        assert line["cmdline"] == f"{sys.executable} -c {HOLDER}".replace("\n", "\\n")
    [pid] = {line["pid"] for line in flows.values()}
    assert int(pid) not in (os.getpid(), program.pid)


def test_service_is_the_cgroup(tracked, within):
    with Program(tracked, "-p", "udp", "-f", "{info.pid} {info.service} {info.exe} {info.ppid}") as program:
        with within(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.connect(("127.0.0.1", 9))
            sender.send(b"x")
            program.await_lines(1)
        program.end()
    pid, service, exe, ppid = program.lines[0].split(" ")
    paths = {line.rstrip("\n").split(":", 2)[2] for line in open("/proc/self/cgroup")}
    assert service in paths
    assert (int(pid), exe, int(ppid)) == (os.getpid(), os.path.realpath("/proc/self/exe"), os.getppid())


def test_every_protocol_is_shown(tracked, within):
    with Program(tracked) as program:
        with within():
            for proto in (2, 47, 132, 253):
                with socket.socket(socket.AF_INET, socket.SOCK_RAW, proto) as sender:
                    sender.sendto(b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", ("127.0.0.1", 0))
            with (
                socket.create_server(("::1", 0), family=socket.AF_INET6) as server,
                socket.create_connection(server.getsockname()[:2]) as client,
            ):
                tcp = client.getsockname()[1], server.getsockname()[1]
            with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as ping:
                ping.sendto(b"\x08\x00\xf7\xfd\x00\x01\x00\x01", ("127.0.0.1", 0))
            until(
                lambda: {proto for proto, _, _ in program.flows()} >= {"ipv4/igmp", "ipv4/253", "ipv4/icmp", "ipv6/tcp"}
            )
        program.end()
    flows = program.flows()
    assert ("ipv4/igmp", 0, 0) in flows and ("ipv4/253", 0, 0) in flows and ("ipv4/icmp", 0, 0) in flows
    assert ("ipv6/tcp", *tcp) in flows
    assert flows["ipv6/tcp", *tcp]["src"] == "::1"


def test_who_is_not_known_is_a_question_mark(tracked, within):
    # Sent to an address of this host from outside: the sender is another's, and no process listens.
    form = (
        "{info.pid} {info.uid} {info.gid} {info.service} {info.comm} {info.exe} {info.ppid} {info.unit} {info.cmdline} "
        "{ev.dport}"
    )
    with Program(tracked, "-p", "udp", "--attribution", "off", "-f", form) as program:
        with within(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", ("127.0.0.1", 9))
            program.await_lines(1)
        program.end()
    assert program.lines == ["? - - - - - - - - 9"]


def test_fields_of_the_event(tracked, within):
    form = "{ev.type} {ev.proto} {ev.src} {ev.sport} {ev.dst} {ev.dport} {ev.mark} {ev.zone} {ev.status} {ev.id}"
    marking = "add rule inet user seen udp dport 77 ct mark set 42"
    subprocess.run(inside(tracked, ["nft", marking]), check=True)
    zoning = "table inet z { chain c { type filter hook output priority -300; udp dport 78 ct zone set 5; }; }"
    subprocess.run(inside(tracked, ["nft", zoning]), check=True)
    with Program(tracked, "-p", "udp", "-f", form) as program:
        with within(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind(("127.0.0.1", 0))
            sender.sendto(b"x", ("127.0.0.1", 77))
            sender.sendto(b"x", ("127.0.0.1", 78))
            port = sender.getsockname()[1]
            program.await_lines(2)
        program.end()
    marked, zoned = sorted(line.rsplit(" ", 1)[0] for line in program.lines)
    assert marked == f"NEW ipv4/udp 127.0.0.1 {port} 127.0.0.1 77 42 0 CONFIRMED"
    assert zoned == f"NEW ipv4/udp 127.0.0.1 {port} 127.0.0.1 78 0 5 CONFIRMED"
    assert all(line.rsplit(" ", 1)[1].isdecimal() for line in program.lines)


@pytest.mark.parametrize("events, types", [("New, destroy", ["NEW", "DESTROY"]), ("DESTROY", ["DESTROY"])])
def test_events_are_those_asked_for(tracked, within, events, types):
    with Program(tracked, "-p", "udp", "-e", events, "-f", "{ev.type} {ev.dport} {info.pid}") as program:
        with within(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", ("127.0.0.1", 77))
            if "NEW" in types:
                program.await_lines(1)
            subprocess.run(["conntrack", "-D", "-p", "udp", "--dport", "77"], check=True, capture_output=True)
            program.await_lines(len(types))
        program.end()
    assert program.lines == [f"{kind} 77 {os.getpid()}" for kind in types]


@pytest.mark.parametrize("events", ["", "old", "new,,destroy", "all,new"])
def test_events_there_are_none_of(netns, events):
    ended = run(netns, "-e", events)
    assert ended.returncode == 2 and ended.stdout == b""
    [line] = ended.stderr.decode().splitlines()
    assert repr(events) in line and "new, update and destroy" in line


def test_time_is_when_it_happened(tracked, within):
    with Program(tracked, "-p", "udp", "-t", "%s.%f", "-f", "{ts}") as program:
        with within(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            began = time.time()
            sender.sendto(b"x", ("127.0.0.1", 9))
            program.await_lines(1)
            ended = time.time()
        program.end()
    assert began - 0.001 <= float(program.lines[0]) <= ended


@pytest.mark.parametrize("how", ["one", "fresh"])
def test_200000_flows_at_40000_a_second(tracked, flood, tmp_path, how):
    with open(tmp_path / "log", "wb") as log, Program(tracked, "-p", "udp", "--debug", stdout=log) as program:
        made = flood(200_000, 40_000, how)
        program.await_all_read(60)
        status, _ = program.end()
    assert status == 0
    printed = (tmp_path / "log").read_bytes().count(b" > 10.99.")
    lost = sum(int(line.split()[1]) for line in program.complaints if "events lost" in line)
    assert made > 190_000
    assert printed + lost == made


# Arguments that cannot be used are refused at the start.


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["-p", "("], "unterminated subpattern"),
        (["-p", "x" * 3], "matches no protocol"),
        (["-f", "{"], "'{'"),
        (["-f", "{ev.nothing}"], "unknown field {ev.nothing}"),
        (["-f", "{ev.sport:d}"], "not for text"),
        (["-f", "{info.pid!r}"], "not for text"),
        (["-t", "%Q"], "'%Q'"),
        (["-t", ""], "gives nothing"),
        (["--rcvbuf", "1"], "not a size"),
        (["--attribution", "magic"], "invalid choice"),
        (["--nonsense"], "--nonsense"),
        (["-p"], "expected one argument"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(netns, arguments, reason):
    result = run(netns, *arguments, text=True)
    assert result.returncode == 2 and result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith("nfct-fast: ") and reason in line


def test_version_names_libraries_and_licence(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    output = capsys.readouterr().out
    assert f"nfct-fast {__version__}" in output and "GPL-2.0-or-later" in output
    for library in ("libnetfilter_conntrack", "libnfnetlink", "libmnl"):
        assert f"{library} " in output


def test_help_has_options_and_examples(netns):
    result = run(netns, "-h", text=True)
    assert result.returncode == 0
    for word in ("--protocol", "--format-ts", "--format", "--track", "--rcvbuf", "--debug", "--version", "examples:"):
        assert word in result.stdout


def test_console_script(netns):
    script = Path(sys.executable).with_name("nfct-fast")
    if not script.exists():
        pytest.skip("the package is not installed in this environment")
    result = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=10)
    assert result.returncode == 0 and __version__ in result.stdout


def test_the_example_templates_work(tracked, within):
    with Program(
        tracked,
        "-p",
        "^ipv4/(tcp|udp)$",
        "-t",
        "%F %T.%f",
        "-f",
        "{ts} {ev.dst}:{ev.dport} {info.pid} {info.unit} {info.cmdline}",
    ) as program:
        with within(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.connect(("127.0.0.1", 9))
            sender.send(b"x")
            program.await_lines(1)
        program.end()
    [line] = program.lines
    day, clock, destination, pid, _, cmdline = line.split(" ", 5)
    assert day == time.strftime("%F") and len(clock) == 15
    assert (destination, pid) == ("127.0.0.1:9", str(os.getpid()))
    assert cmdline == process_line()
