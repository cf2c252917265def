"""All namespaces are monitored as they come and go: every flow is reported or counted, and no user shuts others out."""

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from nfct_fast import Conntrack
from nfct_fast.kernel.netns import Netns
from nfct_fast.namespaces.netns_census import NetnsCensus
from nfct_fast.namespaces.netns_finder import NamespaceFinder
from support.cli import SECONDS, Program, until
from support.flows import Worker
from support.leaks import descriptors, tasks
from support.netns import inside, made, use_conntrack
from support.users import CLONE_NEWNET, unshare_many, unshared

UDP = ("--netns", "all", "-p", "ipv4/udp", "--json")
SIOCGSKNS = 0x894C


def inode(name):
    return os.stat(f"/run/netns/{name}").st_ino


class Sender:
    """A socket in a namespace, by whose port its flows over loopback are told from those of others: the number of a
    namespace that is gone is given again at once."""

    def __init__(self, name):
        with Netns(f"/run/netns/{name}", name) as space, space.entered():
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.netns, self.sent = inode(name), []
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]

    def send(self, ports):
        """A flow to each port."""
        for port in ports:
            self.socket.sendto(b"x", ("127.0.0.1", port))
        self.sent += ports
        return self

    def told(self, program):
        return records(program, self.netns, self.port)

    def is_told(self, program):
        """Whether all is; AssertionError if it is more."""
        ports = sorted(record["original"]["dport"] for record in self.told(program))
        assert len(ports) <= len(self.sent)
        return ports == sorted(self.sent)


def records(program, number, port):
    """The flows of a namespace from that port. There may be a lot of others on this host: those are not parsed."""
    sign = f'"sport":{port},'
    return [
        record
        for record in map(json.loads, [line for line in list(program.lines) if sign in line])
        if record["type"] == "NEW" and record["netns"] == number and record["original"]["sport"] == port
    ]


def lost(program):
    """How many events the program says are missing."""
    return sum(json.loads(line)["lost"] for line in list(program.lines) if '"LOST"' in line)


@pytest.mark.parametrize("attribution", ["auto", "off"])
def test_one_that_comes_later_is_heard_from_its_first_flow_on(netns, attribution):
    with Program(netns, *UDP, "--attribution", attribution) as program:
        for number in range(5):
            with made() as name:
                use_conntrack(name)
                sender = Sender(name).send(range(1000, 1200)).send(range(2000, 2000 + number))
                until(lambda: sender.is_told(program), what=f"{len(sender.told(program))} {said(program)}")
                time.sleep(0.2)
                assert sender.is_told(program)
                if attribution == "auto":
                    assert {record["owner"]["pid"] for record in sender.told(program)} == {os.getpid()}
        assert program.end()[0] == 0 and said(program) == []


def said(program):
    """Of namespaces; what is lost in others of this host is no matter."""
    return [line for line in program.complaints if "namespaces are not" in line]


def test_nameless_ones_are_heard_too(netns):
    """Made by unshare(2) in a process that has been there for long, and in one that has just begun."""

    def work(worker):
        while worker.hear() == "go":
            assert ctypes.CDLL(None).unshare(CLONE_NEWNET) == 0
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            subprocess.run(
                ["nft", "table t { chain c { type filter hook output priority 0; ct state new counter; }; }"],
                check=True,
            )
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"x", ("127.0.0.1", 9))
                worker.say((os.stat("/proc/self/ns/net").st_ino, sender.getsockname()[1]))
        return "done"

    with Worker(work) as old, Program(netns, *UDP) as program:
        time.sleep(1)
        with Worker(work) as young:
            for worker in (old, young, old):
                worker.say("go")
                number, port = worker.hear()
                until(lambda: len(records(program, number, port)) == 1)
            young.say("end")
        old.say("end")


def test_what_one_that_ends_still_has_is_told_or_counted(netns):
    """More than its socket holds, while nobody reads: the rest is in its table, which lives as long as it is heard."""
    with Program(netns, *UDP, "--attribution", "off") as program:
        senders = []
        for how in ("alive", "flushed"):
            with made() as name:
                use_conntrack(name)
                sender = Sender(name).send([9])
                until(lambda: sender.is_told(program))
                os.kill(program.pid, signal.SIGSTOP)
                sender.send(range(1000, 7000)).socket.close()
                if how == "flushed":
                    subprocess.run(
                        ["nsenter", f"--net=/run/netns/{name}", "conntrack", "-F"], check=True, capture_output=True
                    )
            os.kill(program.pid, signal.SIGCONT)
            senders.append(sender)
        alive, flushed = senders
        until(lambda: alive.is_told(program))
        until(lambda: len(flushed.told(program)) + lost(program) == len(flushed.sent))
        assert 1_000 < len(flushed.told(program)) < len(flushed.sent)
        assert program.end()[0] == 0


@pytest.mark.parametrize("attribution", ["auto", "off"])
def test_all_that_they_took_is_given_back(netns, within, attribution):
    with within():
        before = tasks(), descriptors()
        with Conntrack(netns="all", protocol="udp", probe=False, attribution=attribution, rcvbuf=1 << 20) as conntrack:
            threads = tasks()
            for _ in range(2):
                with ExitStack() as stack:
                    names = [stack.enter_context(made()) for _ in range(20)]
                    for name in names:
                        use_conntrack(name)
                    senders = [Sender(name).send(range(1000, 1010)) for name in names]
                    cookies, flows = {cookie(sender.socket) for sender in senders}, []
                    until(
                        lambda: (
                            flows.extend(conntrack.read(timeout=0.05))
                            or all(
                                [
                                    sum((flow.netns, flow.sport) == (sender.netns, sender.port) for flow in flows) == 10
                                    for sender in senders
                                ]
                            )
                        )
                    )
                    for sender in senders:
                        sender.socket.close()
                    assert tasks() == threads and cookies <= open_namespaces()
                try:
                    until(
                        lambda: conntrack.read(timeout=0) is not None and not cookies & open_namespaces(), 2 * SECONDS
                    )
                except AssertionError:
                    print(len(cookies & open_namespaces()), conntrack.stats(), descriptors())
                    raise
            assert conntrack.stats().namespaces_removed >= 40 and conntrack.stats().namespaces_added >= 40
        until(lambda: tasks() == before[0])
        assert descriptors() == before[1]


def cookie(sock):
    return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, 71, 8), sys.byteorder)  # SO_NETNS_COOKIE


def open_namespaces():
    """Cookies of those that this process has sockets of."""
    found = set()
    for number in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                with socket.socket(fileno=os.dup(number)) as sock:
                    found.add(cookie(sock))
    return found


def test_unshare_in_a_loop_shuts_nobody_out(netns):
    """With few places: a user has a fourth of these, however many he makes; and another's, and root's, are heard
    at once."""
    with (
        Worker(unshare_many(300)) as attacker,
        Program(netns, *UDP, prefix=("prlimit", "--nofile=1024:1024")) as program,
    ):
        for _ in range(300):
            attacker.hear()
            attacker.say("on")
        assert attacker.hear() == "made"
        for _ in range(3):
            with ExitStack() as stack:
                names = [stack.enter_context(made()) for _ in range(10)]
                for name in names:
                    use_conntrack(name)
                    assert told(program, Sender(name).send([9])) == [(os.getpid(), os.getuid())]
        with unshared(speak, 65533) as (other, number):
            port = other.hear()
            until(lambda: records(program, number, port))
            found = records(program, number, port)
            assert [record["owner"].get("uid") for record in found] == [65533], found
            other.say("end")
        attacker.say("end")
        assert program.end()[0] == 0
    assert (
        len(said(program)) == 1 and "some network namespaces are not monitored: there are too many" in said(program)[0]
    )


def told(program, sender):
    """Whom its flows are said to be of."""
    until(lambda: sender.is_told(program), what=f"{sender.netns} ({program.complaints})")
    return [(record["owner"]["pid"], record["owner"]["uid"]) for record in sender.told(program)]


def test_who_reads_looks_for_no_namespaces(netns, tmp_path):
    """The thread that receives lists no folder and enters nothing while 100 namespaces come and go: of a process that
    it is told of, it reads a few files once."""
    calls = "recvmmsg,getdents64,setns,openat,open,socket"
    with Program(netns, *UDP) as program:
        tracer = subprocess.Popen(
            ["strace", "-f", "-q", "-e", f"trace={calls}", "-o", tmp_path / "calls", "-p", str(program.pid)],
            stderr=subprocess.DEVNULL,
        )
        until(
            lambda: (
                tracer.poll() is None
                and all(
                    "TracerPid:\t0\n" not in path.read_text()
                    for path in Path(f"/proc/{program.pid}/task").glob("*/status")
                )
            )
        )
        for _ in range(20):
            with ExitStack() as stack:
                names = [stack.enter_context(made()) for _ in range(5)]
                use_conntrack(names[0])
                sender = Sender(names[0]).send(range(1000, 1010))
                until(lambda: sender.is_told(program), 3 * SECONDS)
        tracer.terminate()
        tracer.wait()
        assert program.end()[0] == 0
    made_by = {}
    for line in (tmp_path / "calls").read_text().splitlines():
        thread, call = line.split(maxsplit=1)
        if "(" in call and not call.startswith("<"):
            made_by.setdefault(thread, []).append(call)
    readers = {
        thread
        for thread, made in made_by.items()
        if any(call.startswith("recvmmsg") and ", 512, " in call for call in made)
    }
    assert len(readers) == 1
    reader = made_by[readers.pop()]
    assert {call.split("(")[0] for call in reader} <= {"recvmmsg", "openat"}
    assert sum(call.startswith("openat") for call in reader) < 100 and not any("ns/net" in call for call in reader)
    assert any(call.startswith("getdents64") for made in made_by.values() for call in made)


def speak(worker):
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(
        ["nft", "table t { chain c { type filter hook output priority 0; ct state new counter; }; }"], check=True
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", ("127.0.0.1", 9))
        worker.say(sender.getsockname()[1])
        worker.hear()


def receive_buffers(pid):
    """SO_RCVBUF of the netfilter sockets of a process that are in some group, by namespace: as the kernel has them."""
    libc, found = ctypes.CDLL(None, use_errno=True), {}
    process = os.pidfd_open(pid)
    try:
        for number in os.listdir(f"/proc/{pid}/fd"):
            fd = libc.syscall(438, process, int(number), 0)  # pidfd_getfd
            if fd < 0:
                continue
            try:
                sock = socket.socket(fileno=fd)
            except OSError:
                os.close(fd)
                continue
            with sock:
                if (sock.family, sock.proto) == (socket.AF_NETLINK, 12):
                    if any(sock.getsockopt(270, 9, 4)):  # SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS
                        with os.fdopen(fcntl.ioctl(fd, SIOCGSKNS)) as space:
                            number = os.fstat(space.fileno()).st_ino
                        found[number] = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    finally:
        os.close(process)
    return found


def test_one_bound_on_receive_memory_for_all(netns):
    """The kernel may take twice what is asked for, and not more, whatever is queued where."""
    with ExitStack() as stack:
        names = [stack.enter_context(made()) for _ in range(20)]
        for name in names:
            use_conntrack(name)
        program = stack.enter_context(
            Program(netns, *UDP, "--attribution", "off", "--rcvbuf", "1M", "--rcvbuf-max", "8M")
        )
        first = receive_buffers(program.pid)
        numbers = [inode(name) for name in names]
        assert first.keys() >= {*numbers, inode(netns)} and max(first.values()) == first[inode(netns)] == 2 << 20
        assert sum(first.values()) <= 16 << 20
        os.kill(program.pid, signal.SIGSTOP)
        senders = [Sender(name).send(range(1000, 5000)) for name in names[:8]]
        os.kill(program.pid, signal.SIGCONT)
        for sender in senders:
            until(lambda: sender.is_told(program))
        grown = receive_buffers(program.pid)
        assert sum(grown.values()) <= 16 << 20 and any(grown[number] > first[number] for number in numbers)
        assert program.end()[0] == 0


def test_a_child_leaves_it_to_its_parent(netns, within):
    with within(), Conntrack(netns="all", protocol="udp", probe=False) as conntrack:
        child = os.fork()
        if child == 0:
            conntrack.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        with made() as name:
            use_conntrack(name)
            sender, flows = Sender(name).send([9]), []
            until(
                lambda: flows.extend(conntrack.read(timeout=0.05)) or any(flow.sport == sender.port for flow in flows)
            )


def test_it_ends_at_once_amid_their_coming(netns):
    with Worker(unshare_many(300)) as attacker, Program(netns, *UDP) as program:
        for number in range(300):
            attacker.hear()
            attacker.say("on")
            if number == 100:
                status, seconds = program.end()
                assert status == 0 and seconds < 2
        assert attacker.hear() == "made"
        attacker.say("end")


@pytest.mark.root
def test_processes_are_met_when_they_begin_and_when_all_are_looked_at():
    census = NetnsCensus()
    known = census.all()
    assert known[os.stat("/proc/self/ns/net").st_ino] > 0
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        ctypes.CDLL(None).unshare(CLONE_NEWNET)
        os.write(tell, b"%d" % os.stat("/proc/self/ns/net").st_ino)
        signal.pause()
        os._exit(0)
    try:
        number = int(os.read(told, 100))
        assert known.get(number) != child  # a namespace that has just ended may have had this number
        assert until(lambda: census.recent().get(number)) == child
        assert NetnsCensus().all()[number] == child
        until(lambda: number not in census.recent() and not time.sleep(0.5) and number not in census.recent())
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert number not in census.all()
    census.stop()
    assert census.all() is None


@pytest.mark.root
def test_a_name_is_found_at_once_however_many_processes_there_are():
    lookout = NamespaceFinder()
    lookout.recent()
    with inside() as name:
        assert lookout.recent()[inode(name)][0] == name
    lookout.stop()
    assert lookout.all() == {}
    lookout.close()
