"""With BPF, every flow that a local process begins is attributed to it, however briefly its socket lived."""

import contextlib
import os
import socket
import subprocess
import threading
import time

import pytest

from support.cli import SECONDS
from support.flows import Worker, listening
from support.netns import inside
from support.paths import SUPPORT, TESTS
from support.socket_notes import compiled, unusable

REASON = unusable()
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(REASON is not None, reason=f"owner tracking cannot run here: {REASON}"),
]
SOCKETS = 2000


@pytest.fixture(scope="module")
def senders(tmp_path_factory):
    return compiled(TESTS / "bench/senders.c", tmp_path_factory.mktemp("senders"))


@contextlib.contextmanager
def both_cores_busy():
    loops = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(os.cpu_count())]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def fire(conntrack, program, modes):
    """{(proto, source, sport, dport): pids} of what one process for each mode sent from SOCKETS sockets,
    and the flows."""
    processes = [
        (mode, subprocess.Popen([program, "ports", mode, str(SOCKETS)], stdout=subprocess.PIPE, text=True))
        for mode in modes
    ]
    made = {}
    for mode, process in processes:
        peer, *ports = map(int, process.communicate(timeout=60)[0].split())
        family = "ipv6" if "6" in mode else "ipv4"
        for port in ports:
            key = f"{family}/{'tcp' if 'tcp' in mode else 'udp'}", "::1" if "6" in mode else "127.0.0.1", port, peer
            made.setdefault(key, set()).add(process.pid)
    flows, heard = [], set()
    end = time.monotonic() + 10
    while heard < made.keys() and time.monotonic() < end:
        new = [flow for flow in conntrack.read(timeout=0.2) if (flow.proto, flow.src, flow.sport, flow.dport) in made]
        heard.update((flow.proto, flow.src, flow.sport, flow.dport) for flow in new)
        flows += new
    return made, heard, flows


def assert_exact(made, heard, flows):
    assert heard == made.keys()
    unnamed = [flow for flow in flows if flow.owner.pid is None]
    wrong = [
        flow
        for flow in flows
        if flow.owner.pid is not None and flow.owner.pid not in made[flow.proto, flow.src, flow.sport, flow.dport]
    ]
    assert (len(unnamed), len(wrong)) == (0, 0), (unnamed[:3], wrong[:3])


@pytest.mark.parametrize("mode", ["tcp", "udp", "cudp", "udp6", "mapped", "tcp6", "cudp6"])
@pytest.mark.parametrize("load", [contextlib.nullcontext, both_cores_busy])
def test_fire_and_forget_at_full_speed(senders, mode, load):
    with inside(), listening() as conntrack, load():
        made, heard, flows = fire(conntrack, senders, [mode])
        assert_exact(made, heard, flows)
        assert len(made) > SOCKETS * 0.9 and conntrack.stats().dropped == 0


@pytest.mark.parametrize("modes", [["udp"] * 4, ["tcp"] * 4, ["tcp", "udp", "cudp6", "mapped"]])
def test_four_senders_at_once(senders, modes):
    with inside(), listening() as conntrack:
        assert_exact(*fire(conntrack, senders, modes))


def ends(conntrack, *ports):
    """Return {dport: flow} once a flow to each of the ports has been received."""
    found = {}
    end = time.monotonic() + SECONDS
    while len(found) < len(ports) and time.monotonic() < end:
        found.update((flow.dport, flow) for flow in conntrack.read(timeout=0.2) if flow.dport in ports)
    assert sorted(found) == sorted(ports)
    return found


def test_sockets_opened_before_the_start():
    def work(worker):
        unconnected, later, before = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3))
        stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        before.connect(("127.0.0.1", 703))
        server = socket.create_server(("127.0.0.1", 704))
        worker.say("ready")
        worker.hear()
        unconnected.sendto(b"x", ("127.0.0.1", 701))
        later.connect(("127.0.0.1", 702))
        later.send(b"x")
        stream.connect(server.getsockname())
        unconnected.close()
        later.close()
        stream.close()
        before.send(b"x")
        worker.hear()

    with inside(), Worker(work) as worker:
        worker.hear()
        with listening() as conntrack:
            worker.say("go")
            flows = ends(conntrack, 701, 702, 703, 704)
        assert {port: flow.owner.pid for port, flow in flows.items()} == dict.fromkeys((701, 702, 703, 704), worker.pid)
        # What was connected before is not in the notes; /proc has it as long as it lives.
        assert [flows[port].owner.match for port in (701, 702, 704)] == ["bpf"] * 3
        assert flows[703].owner.match != "bpf"


def test_who_connects_or_sends_wins_over_who_made_the_socket():
    with inside(), listening() as conntrack:
        datagram, connected = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        server = socket.create_server(("127.0.0.1", 712))

        def work(worker):
            datagram.sendto(b"x", ("127.0.0.1", 711))
            stream.connect(server.getsockname())
            connected.connect(("127.0.0.1", 713))
            connected.send(b"x")

        with datagram, connected, stream, server, Worker(work) as worker:
            worker.result()
            flows = ends(conntrack, 711, 712, 713)
        assert {flow.owner.pid for flow in flows.values()} == {worker.pid}


def test_a_thread_is_named_after_its_process():
    def work(worker):
        def send():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(b"x", ("127.0.0.1", 721))

        thread = threading.Thread(target=send)
        thread.start()
        thread.join()

    with inside(), listening() as conntrack, Worker(work) as worker:
        worker.result()
        assert ends(conntrack, 721)[721].owner.pid == worker.pid


def test_two_processes_take_the_same_port_in_turn():
    """One tuple changes hands within a millisecond, its entry deleted between: nobody is named who did not send."""
    turns = 200

    def work(worker):
        while (turn := worker.hear()) is not None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(("127.0.0.1", 7300))
                sock.sendto(b"x", ("127.0.0.1", 731 + turn // 2))
            worker.say("sent")

    with inside(), listening() as conntrack, Worker(work) as one, Worker(work) as two:
        for turn in range(turns):
            # Both send from the same port to the same one: only the first of them begins a flow.
            worker = (one, two)[(turn // 2 + turn) % 2]
            worker.say(turn)
            worker.hear()
        flows = ends(conntrack, *range(731, 731 + turns // 2))
        for worker in (one, two):
            worker.say(None)
        first = {731 + i: ((one, two)[i % 2]).pid for i in range(turns // 2)}
        wrong = [flow for port, flow in flows.items() if flow.owner.pid not in (None, first[port])]
        assert not wrong, (wrong[0], first[wrong[0].dport])


def test_sockets_only_io_uring_holds(tmp_path):
    program = compiled(SUPPORT / "io_uring.c", tmp_path)
    with inside(), listening() as conntrack:
        process = subprocess.Popen([program], stdout=subprocess.PIPE, text=True)
        out = process.communicate(timeout=20)[0].split()
        if process.returncode == 77:
            pytest.skip("io_uring cannot make sockets here: " + " ".join(out))
        port = int(out[2])
        flows = ends(conntrack, 9, port)
    assert {flow.owner.pid for flow in flows.values()} == {process.pid}
