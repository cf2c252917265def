"""A flow without an owner says why, and reports what is known all the same. No wrong name is ever printed."""

import os
import socket
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from nfct_fast.attribution.resolver import Resolver
from nfct_fast.processes.cgroup_filesystem import find_mount
from support.flows import Worker, alone, both_ends, collect_count, inode, listening, made, server, udp
from support.hooks import find_flow
from support.netns import inside, ip
from support.netns import made as made_netns

pytestmark = pytest.mark.root
BOTH = pytest.mark.parametrize("mode", ["diag", "proc"])
TCP, UDP, INET, STREAM, DGRAM = (
    socket.IPPROTO_TCP,
    socket.IPPROTO_UDP,
    socket.AF_INET,
    socket.SOCK_STREAM,
    socket.SOCK_DGRAM,
)
V2 = find_mount()


@pytest.fixture
def netns():
    with inside() as name:
        yield name


@contextmanager
def cgroup(path):
    """A cgroup of the v2 tree, which the block may put processes into; removed with its parents after it."""
    made_here = []
    at = Path(os.fsdecode(V2))
    for part in path.split("/"):
        at = at / part
        if not at.exists():
            at.mkdir()
            made_here.append(at)
    try:
        yield at
    finally:
        for _ in range(50):
            if not (at / "cgroup.procs").read_text():
                break
            time.sleep(0.02)
        for folder in reversed(made_here):
            folder.rmdir()


def enter(cgroup):
    """Move this process there, and in systemd's own hierarchy, where there is one too, to the root:
    its path comes first."""
    (cgroup / "cgroup.procs").write_text(str(os.getpid()))
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup ") and "name=systemd" in after:
            (Path(before.split()[4]) / "cgroup.procs").write_text(str(os.getpid()))


def owner(attribution, proto, src, dst, **more):
    return find_flow(attribution, proto, *src, *dst, **more).owner


@BOTH
def test_closed(netns, mode):
    with socket.socket(INET, DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        name = sock.getsockname()
    found = owner(Resolver(mode), UDP, name, ("127.0.0.1", 9))
    assert (found.pid, found.uid, found.match, found.reason) == (None, None, None, "closed")


@BOTH
def test_a_process_younger_than_the_flow_did_not_begin_it(netns, mode):
    def work(worker):
        sock = socket.socket(INET, DGRAM)
        sock.bind(("127.0.0.1", 5500))
        worker.say("bound")
        worker.hear()

    attribution = Resolver(mode)
    with Worker(work) as asking:
        asking.hear()
        time.sleep(0.05)
        assert owner(attribution, UDP, ("127.0.0.1", 5500), ("127.0.0.1", 9)).pid == asking.pid
        late = owner(attribution, UDP, ("127.0.0.1", 5500), ("127.0.0.1", 9), age=5.0)
        assert (late.pid, late.reason) == (None, "closed")
        # What it answers to may well have come before.
        flow = find_flow(attribution, UDP, "127.0.0.1", 40000, "127.0.0.1", 5500, age=5.0)
        assert flow.peer.pid == asking.pid


def stuffed(worker):
    """A connection closed by its process while most of what it sent still waits to be taken."""
    server = socket.socket(INET, STREAM)
    server.listen()
    sock = socket.socket(INET, STREAM)
    sock.connect(("127.0.0.1", server.getsockname()[1]))
    sock.setblocking(False)
    try:
        while True:
            sock.send(b"x" * 65536)
    except BlockingIOError:
        pass
    worker.say((sock.getsockname(), sock.getpeername()))
    worker.hear()
    sock.close()
    worker.say("closed")
    worker.hear()


@BOTH
def test_a_socket_without_a_process_gives_orphaned(netns, mode):
    attribution = Resolver(mode)

    def work(worker):
        os.setgroups([])
        os.setresuid(1234, 1234, 1234)
        stuffed(worker)

    with (
        cgroup("nfshapes.slice/nfshapes-orphan.service") as folder,
        Worker(lambda worker: (folder / "cgroup.procs").write_text(str(os.getpid())) and work(worker)) as asking,
    ):
        name, there = asking.hear()
        assert owner(attribution, TCP, name, there).pid == asking.pid
        asking.say("close")
        asking.hear()
        time.sleep(0.05)  # a table is believed for 20 ms
        found = owner(attribution, TCP, name, there)
        assert (found.pid, found.inode, found.match, found.reason) == (None, None, "socket", "orphaned")
        assert found.uid in (1234, None)  # the kernel keeps it since 6.17
        if mode == "diag":
            assert found.uid == 1234 or os.uname().release < "6.17"
            assert found.cgroup == "/nfshapes.slice/nfshapes-orphan.service"
        asking.say("done")


@BOTH
def test_time_wait_is_not_roots(netns, mode):
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
    accepted, _ = server.accept()
    name, there = client.getsockname(), server.getsockname()
    client.close()
    accepted.close()
    time.sleep(0.05)
    found = owner(Resolver(mode), TCP, name, there)
    assert (found.pid, found.uid, found.gid, found.reason) == (None, None, None, "orphaned")


@BOTH
def test_originator_is_never_the_listener_of_its_port(netns, mode):
    with socket.create_server(("127.0.0.1", 5501)):
        found = owner(Resolver(mode), TCP, ("127.0.0.1", 5501), ("127.0.0.1", 9))
        assert (found.pid, found.reason) == (None, "closed")


@BOTH
@alone
def test_socket_on_its_way_is_no_processes(netns, mode):
    here, there = socket.socketpair(socket.AF_UNIX, STREAM)
    with socket.socket(INET, DGRAM) as sock, here, there:
        sock.bind(("127.0.0.1", 5502))
        socket.send_fds(here, [b"x"], [sock.fileno()])
        sock.close()
        found = owner(Resolver(mode, budget=10), UDP, ("127.0.0.1", 5502), ("127.0.0.1", 9))
        assert (found.pid, found.reason, found.uid) == (None, "kernel", 0)


@BOTH
@alone
def test_vxlan_is_the_kernels(netns, mode):
    ip(
        "link",
        "add",
        "vx",
        "type",
        "vxlan",
        "id",
        "7",
        "local",
        "127.0.0.1",
        "remote",
        "127.0.0.1",
        "dstport",
        "4789",
        "dev",
        "lo",
        netns=netns,
    )
    ip("link", "set", "vx", "up", netns=netns)
    flow = find_flow(Resolver(mode, budget=10), UDP, "127.0.0.1", 40000, "127.0.0.1", 4789)
    assert (flow.peer.pid, flow.peer.reason) == (None, "kernel")


@BOTH
def test_a_forwarded_flow_has_no_owner_here(netns, mode):
    flow = find_flow(Resolver(mode), UDP, "192.0.2.1", 1, "198.51.100.1", 2)
    assert (flow.direction, flow.owner.pid, flow.owner.reason, flow.peer) == ("forward", None, "forwarded", None)


@BOTH
def test_remote_end_of_a_flow_from_here(netns, mode):
    with socket.socket(INET, DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        flow = find_flow(Resolver(mode), UDP, *sock.getsockname(), "192.0.2.1", 53)
        assert (flow.direction, flow.owner.pid, flow.peer) == ("out", os.getpid(), None)


def test_a_lookup_that_runs_out_of_time_says_so(netns):
    with socket.socket(INET, DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        found = owner(Resolver("diag", budget=0), UDP, sock.getsockname(), ("127.0.0.1", 9))
        assert (found.pid, found.uid, found.inode, found.reason) == (None, 0, inode(sock), "budget")


def test_with_attribution_off_no_owner_is_looked_for():
    flow = find_flow(Resolver("off"), UDP, "127.0.0.1", 1, "127.0.0.1", 2)
    assert (flow.direction, flow.owner.reason, flow.peer) == (None, "off", None)


@BOTH
def test_a_protocol_without_sockets_gives_unsupported(netns, mode):
    found = owner(Resolver(mode), 132, ("127.0.0.1", 1), ("127.0.0.1", 2))
    assert (found.pid, found.reason) == (None, "unsupported")


def unprivileged(work):
    def moved(worker):
        os.setgroups([])
        os.setresgid(1234, 1234, 1234)
        os.setresuid(1234, 1234, 1234)
        return work(worker)

    return Worker(moved)


@BOTH
def test_a_process_that_may_not_be_looked_into_gives_permission(netns, mode):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def work(worker):
            name = listener.getsockname()
            listener.close()  # this process would be a holder too
            flow = find_flow(Resolver(mode, budget=10), TCP, "127.0.0.1", 1, *name)
            return flow.peer.pid, flow.peer.uid, flow.peer.reason

        with unprivileged(work) as asking:
            assert asking.result() == (None, 0, "permission")


def test_namespaces_that_may_not_be_entered(netns):
    def work(worker):
        flow = find_flow(Resolver(), UDP, "192.0.2.1", 1, "198.51.100.1", 2)
        return flow.owner.reason, find_flow(Resolver(), UDP, "127.0.0.1", 1, "198.51.100.1", 2).owner.reason

    with made_netns(), unprivileged(work) as asking:
        assert asking.result() == ("netns", "closed")


@pytest.mark.skipif(V2 is None, reason="needs a cgroup2 mount")
@pytest.mark.parametrize(
    "path, unit, slice_, container",
    [
        ("nfshapes.slice/nfshapes-one.service", "nfshapes-one.service", "nfshapes.slice", None),
        (
            "nfshapes.slice/docker-" + "ab" * 32 + ".scope",
            "docker-" + "ab" * 32 + ".scope",
            "nfshapes.slice",
            "ab" * 32,
        ),
        (
            "nfshapes.slice/user@1234.service/app.slice/nfshapes-app.service",
            "user@1234.service",
            "nfshapes.slice",
            None,
        ),
    ],
)
def test_cgroup_of_a_named_flow(netns, path, unit, slice_, container):
    with cgroup(path) as folder:

        def work(worker):
            enter(folder)
            sock = socket.socket(INET, DGRAM)
            sock.sendto(b"x", ("127.0.0.1", 5503))
            worker.hold()
            return made(sock)

        with listening("diag") as conntrack, Worker(work) as asking:
            [flow] = collect_count(conntrack, lambda flow: flow.dport == 5503, 1)
            truth = asking.result()
        process = flow.owner.process
        assert (flow.owner.pid, flow.owner.inode) == (truth.pid, truth.inode)
        assert flow.owner.cgroup_id == os.stat(folder).st_ino
        assert (process.cgroup, process.unit, process.slice, process.container) == ("/" + path, unit, slice_, container)


@BOTH
@pytest.mark.parametrize("loaded", [False, True])
@alone
def test_fire_and_forget_is_named_right_or_not_at_all(netns, mode, loaded):
    # Many short processes, whose ports are taken again by others at once: no name may be another's.
    def work(worker):
        truth = {}
        for number in range(200):
            pid = os.fork()
            if pid == 0:
                sock = socket.socket(INET, DGRAM)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.sendto(b"x", (f"127.0.1.{number + 1}", 5504))
                os._exit(0)
            truth[f"127.0.1.{number + 1}"] = pid
            os.waitpid(pid, 0)
        return truth

    def burn(worker):
        while True:
            pass

    with ExitStack() as stack:
        for _ in range(2 if loaded else 0):
            stack.enter_context(Worker(burn))
        conntrack = stack.enter_context(listening(mode))
        asking = stack.enter_context(Worker(work))
        flows = collect_count(conntrack, lambda flow: flow.dport == 5504, 200, 120)
        truth = asking.result()
    assert len(flows) == 200
    for flow in flows:
        assert flow.owner.pid in (truth[flow.dst], None)
        assert flow.owner.pid or flow.owner.reason in ("closed", "exited", "orphaned", "budget")


@BOTH
def test_held_open_with_both_cores_busy(netns, mode):
    def burn(worker):
        while True:
            pass

    with Worker(burn), Worker(burn):
        both_ends(mode, server(INET, "127.0.0.1", 5001, DGRAM), udp(INET, "127.0.0.1", 5001), 5001)
