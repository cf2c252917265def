"""Flows of every kind on one host, held open for 0.1 s: each end has its process as owner, and no other."""

import os
import socket
import subprocess
import threading
import time

import pytest

from nfct_fast import find_holders
from support.flows import (
    ALL,
    BOTH,
    COUNT,
    DGRAM,
    INET,
    INET6,
    STREAM,
    Worker,
    assert_all_named,
    both_ends,
    collect,
    listening,
    made,
    server,
    udp,
)
from support.netns import inside

pytestmark = pytest.mark.root


@pytest.fixture
def netns():
    with inside() as name:
        yield name


def tcp(family, address, port):
    def work(worker):
        socks = [socket.socket(family, STREAM) for _ in range(COUNT)]
        for sock in socks:
            sock.connect((address, port))
        worker.hold()
        return [made(sock) for sock in socks]

    return work


@ALL
@pytest.mark.parametrize(
    "family, address, listen",
    [
        (INET, "127.0.0.1", (INET, "127.0.0.1")),
        (INET, "127.0.0.1", (INET, "0.0.0.0")),
        (INET6, "::1", (INET6, "::1")),
        (INET6, "::ffff:127.0.0.1", (INET, "127.0.0.1")),
        (INET6, "::ffff:127.0.0.1", (INET6, "::")),
    ],
)
@pytest.mark.parametrize("accept", [True, False])
def test_tcp(netns, mode, family, address, listen, accept):
    flows, listener = both_ends(mode, server(*listen, 5000, accept=accept), tcp(family, address, 5000), 5000)
    for flow in flows:
        assert flow.owner.match in ("bpf", "socket")
        if not accept:
            assert flow.peer.match == "listener" and flow.peer.inode == listener or flow.peer.match == "bpf"
        else:
            assert flow.peer.match in ("bpf", "listener", "socket")


@ALL
@pytest.mark.parametrize(
    "family, address, listen",
    [
        (INET, "127.0.0.1", (INET, "127.0.0.1")),
        (INET6, "::1", (INET6, "::")),
        (INET6, "::ffff:127.0.0.1", (INET, "0.0.0.0")),
        (INET, "127.0.0.1", (INET6, "::")),
    ],
)
@pytest.mark.parametrize("how", ["connected", "never bound", "bound to any", "bound"])
def test_udp(netns, mode, family, address, listen, how):
    bind = {"bound to any": "::" if family == INET6 else "0.0.0.0", "bound": address}.get(how)
    work = udp(family, address, 5001, connect=how == "connected", bind=bind)
    flows, there = both_ends(mode, server(*listen, 5001, DGRAM), work, 5001)
    for flow in flows:
        assert flow.peer.inode == there or flow.peer.match == "bpf"


@BOTH
def test_threads_are_their_process(netns, mode):
    def work(worker):
        told = []
        thread = threading.Thread(target=lambda: told.extend(udp(INET, "127.0.0.1", 5001)(worker)))
        thread.start()
        thread.join()
        return told

    both_ends(mode, server(INET, "127.0.0.1", 5001, DGRAM), work, 5001)


@BOTH
def test_other_user(netns, mode):
    def work(worker):
        os.setgroups([])
        os.setresgid(4321, 4321, 4321)
        os.setresuid(1234, 1234, 1234)
        return udp(INET, "127.0.0.1", 5001)(worker)

    flows, _ = both_ends(mode, server(INET, "127.0.0.1", 5001, DGRAM), work, 5001)
    assert {(flow.owner.uid, flow.owner.gid) for flow in flows} == {(1234, 4321)}


@BOTH
def test_setuid_program_has_its_users_id(netns, mode):
    def work(worker):
        os.setgroups([])
        os.setresuid(1234, 0, 0)  # as after execve of a set-user-ID root program
        return udp(INET, "127.0.0.1", 5001, connect=True)(worker)

    flows, _ = both_ends(mode, server(INET, "127.0.0.1", 5001, DGRAM), work, 5001)
    assert {flow.owner.uid for flow in flows} == {1234}


@BOTH
def test_inherited_by_fork_all_holders_are_there(netns, mode):
    def work(worker):
        socks = [socket.socket(INET, DGRAM) for _ in range(COUNT)]
        child = os.fork()
        if child == 0:
            time.sleep(30)
            os._exit(0)
        for sock in socks:
            sock.sendto(b"x", ("127.0.0.1", 5001))
        worker.hold()
        told = [made(sock)._replace(src="127.0.0.1") for sock in socks]
        os.kill(child, 9)
        os.waitpid(child, 0)
        return child, told

    with listening(mode) as conntrack, Worker(work) as asking:
        flows = collect(conntrack, lambda flow: flow.dport == 5001)
        child, told = asking.result()
        assert_all_named(flows, told)
        for flow in flows:
            assert [process.pid for process in flow.owner.processes] == [asking.pid, child]


@BOTH
def test_inherited_by_execve_and_let_go_by_the_parent(netns, mode):
    def work(worker):
        told = []
        children = []
        for _ in range(COUNT):
            sock = socket.socket(INET, DGRAM)
            sock.bind(("127.0.0.1", 0))
            sock.set_inheritable(True)
            children.append(subprocess.Popen(["sleep", "5"], close_fds=False))
            told.append(made(sock, pid=children[-1].pid))
            sock.connect(("127.0.0.1", 5001))
            os.set_inheritable(sock.fileno(), False)
            other = os.dup(sock.fileno())
            os.set_inheritable(other, False)
            sock.close()
            os.write(other, b"x")
            os.close(other)
        worker.hold()
        for child in children:
            child.kill()
            child.wait()
        return told

    with listening(mode) as conntrack, Worker(work) as asking:
        flows = collect(conntrack, lambda flow: flow.dport == 5001)
        truth = {one.sport: one for one in asking.result()}
    assert len(flows) == COUNT
    for flow in flows:
        # For the moment in which it still had the socket too, the parent is the one that used it.
        assert flow.owner.pid in (truth[flow.sport].pid, asking.pid)
        assert flow.owner.inode == truth[flow.sport].inode


def passed(mode, keep):
    def work(worker):
        here, there = socket.socketpair(socket.AF_UNIX, STREAM)
        child = os.fork()
        if child == 0:
            _, fds, _, _ = socket.recv_fds(there, 1, COUNT)
            there.send(b"x")
            there.recv(1)
            socks = [socket.socket(fileno=fd) for fd in fds]
            for sock in socks:
                sock.sendto(b"x", ("127.0.0.1", 5001))
            time.sleep(30)
            os._exit(0)
        there.close()
        socks = [socket.socket(INET, DGRAM) for _ in range(COUNT)]
        for sock in socks:
            sock.bind(("127.0.0.1", 0))
        told = [made(sock, pid=child) for sock in socks]
        socket.send_fds(here, [b"x"], [sock.fileno() for sock in socks])
        here.recv(1)
        if not keep:
            for sock in socks:
                sock.close()
        here.send(b"x")
        worker.say(told)
        worker.hear()
        os.kill(child, 9)
        os.waitpid(child, 0)

    with listening(mode) as conntrack, Worker(work) as asking:
        flows = collect(conntrack, lambda flow: flow.dport == 5001)
        truth = asking.hear()
        if keep:
            both = {asking.pid, truth[0].pid}
            assert len(flows) == COUNT
            for flow in flows:
                assert flow.owner.pid in both
                assert {process.pid for process in find_holders(flow.owner.inode)} == both
        else:
            assert_all_named(flows, truth)
        asking.say("done")


@BOTH
def test_passed_over_a_unix_socket(netns, mode):
    passed(mode, keep=False)


@BOTH
def test_passed_and_kept(netns, mode):
    passed(mode, keep=True)


REUSEPORT = (socket.SOL_SOCKET, socket.SO_REUSEPORT)


@BOTH
@pytest.mark.parametrize("kind", [STREAM, DGRAM])
def test_reuseport_group_of_one_process(netns, mode, kind):
    def serve(worker):
        socks = [socket.socket(INET, kind) for _ in range(4)]
        for sock in socks:
            sock.setsockopt(*REUSEPORT, 1)
            sock.bind(("127.0.0.1", 5002))
            if kind == STREAM:
                sock.listen(64)
        worker.say((5002, 0))
        time.sleep(60)

    both_ends(
        mode, Worker(serve), tcp(INET, "127.0.0.1", 5002) if kind == STREAM else udp(INET, "127.0.0.1", 5002), 5002
    )


@BOTH
@pytest.mark.parametrize("kind", [STREAM, DGRAM])
def test_reuseport_group_of_two_processes_is_ambiguous(netns, mode, kind):
    with (
        listening(mode) as conntrack,
        server(INET, "127.0.0.1", 5002, kind, False, [REUSEPORT]) as one,
        server(INET, "127.0.0.1", 5002, kind, False, [REUSEPORT]) as other,
    ):
        one.hear()
        other.hear()
        with Worker(tcp(INET, "127.0.0.1", 5002) if kind == STREAM else udp(INET, "127.0.0.1", 5002)) as asking:
            flows = collect(conntrack, lambda flow: flow.dport == 5002)
            assert_all_named(flows, asking.result())
        for flow in flows:
            assert (flow.peer.pid, flow.peer.reason, flow.peer.inode) == (None, "ambiguous", None)


@BOTH
def test_two_processes_that_send_from_one_port_are_ambiguous(netns, mode):
    def work(worker):
        sock = socket.socket(INET, DGRAM)
        sock.setsockopt(*REUSEPORT, 1)
        sock.bind(("127.0.0.1", 5003))
        worker.say("bound")
        worker.hear()
        for port in range(COUNT):
            sock.sendto(b"x", ("127.0.0.1", 6000 + port))
        worker.hear()

    with listening(mode) as conntrack, Worker(work) as one, Worker(work) as other:
        one.hear()
        other.hear()
        one.say("go")
        flows = collect(conntrack, lambda flow: flow.sport == 5003)
        assert len(flows) == COUNT
        for flow in flows:
            assert (flow.owner.pid, flow.owner.reason) == (None, "ambiguous")
            assert flow.owner.uid == 0


@BOTH
def test_rival_that_is_connected_elsewhere(netns, mode):
    # A connected socket may also send to other peers.
    with listening(mode) as conntrack, socket.socket(INET, DGRAM) as rival:
        rival.setsockopt(*REUSEPORT, 1)
        rival.bind(("127.0.0.1", 5003))
        rival.connect(("127.0.0.1", 7))

        def work(worker):
            rival.close()
            sock = socket.socket(INET, DGRAM)
            sock.setsockopt(*REUSEPORT, 1)
            sock.bind(("127.0.0.1", 5003))
            sock.sendto(b"x", ("127.0.0.1", 6000))
            worker.hear()

        with Worker(work):
            [flow] = [flow for flow in conntrack.read(timeout=2) if flow.dport == 6000]
            assert (flow.owner.pid, flow.owner.reason) == (None, "ambiguous")


def test_accepted_by_a_forked_child(netns):
    # The classic server: the parent accepts, the child serves, the parent closes its copy.
    def serve(worker):
        sock = socket.create_server(("127.0.0.1", 5004), backlog=64)
        worker.say("ready")
        children = {}
        for _ in range(COUNT):
            accepted, (_, port) = sock.accept()
            child = os.fork()
            if child == 0:
                accepted.send(b"x")
                time.sleep(30)
                os._exit(0)
            children[port] = child
            accepted.close()
        worker.say(children)
        worker.hear()
        for child in children.values():
            os.kill(child, 9)

    def work(worker):
        socks = [socket.create_connection(("127.0.0.1", 5004)) for _ in range(COUNT)]
        for sock in socks:
            sock.recv(1)
        worker.hold()
        return [made(sock) for sock in socks]

    with listening() as conntrack, Worker(serve) as answering:
        answering.hear()
        with Worker(work) as asking:
            flows = collect(conntrack, lambda flow: flow.dport == 5004)
            truth = asking.result()
            children = answering.hear()
            assert_all_named(flows, truth)
            for flow in flows:
                assert flow.peer.pid in (children[flow.sport], answering.pid)
        answering.say("done")
