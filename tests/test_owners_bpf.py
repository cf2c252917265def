"""The kernel's record of owners against known truth: real sockets of real processes in namespaces of their own."""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

pytest.importorskip("nfct_fast.owners_bpf")
from nfct_fast.owners_bpf import OwnersBpf, cgroup_root
from support_owners_bpf import TESTS, compiled, namespace, tuples, unusable

REASON = unusable()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"owner tracking cannot run here: {REASON}")
MODES = ["tcp", "udp", "cudp", "udp6", "mapped", "tcp6", "cudp6"]


@pytest.fixture(scope="module")
def owners():
    with OwnersBpf() as owners:
        yield owners


@pytest.fixture
def netns():
    with namespace() as space:
        yield space


@pytest.fixture(scope="module")
def senders(tmp_path_factory):
    return compiled(TESTS / "bench/senders.c", tmp_path_factory.mktemp("senders"))


def answers(owners, wanted, pid, cookie):
    """How many tuples are not found, and how many have another owner."""
    found = [owners.find(*each, cookie) for each in wanted]
    return found.count(None), sum(1 for each in found if each and (each["pid"] != pid or each["match"] == "bound"))


@pytest.mark.parametrize("mode", MODES)
def test_every_socket_of_a_fast_sender_is_named_after_its_end(owners, netns, senders, mode):
    process = netns.start(senders, "ports", mode, 2000)
    wanted = tuples(mode, process.communicate(timeout=60)[0])
    assert len(wanted) > 1500
    assert answers(owners, wanted, process.pid, netns.cookie) == (0, 0)
    owner = owners.find(*next(iter(wanted)), netns.cookie)
    assert (owner["uid"], owner["gid"], owner["comm"]) == (os.getuid(), os.getgid(), "senders")
    assert owner["netns_cookie"] == netns.cookie and owner["hook"] == ("send" if mode in ("udp", "udp6", "mapped") else "connect")
    assert 0 <= time.clock_gettime_ns(time.CLOCK_BOOTTIME) - owner["time"] < 60e9


def test_four_senders_at_once_on_busy_cores(owners, netns, senders):
    busy = [subprocess.Popen([sys.executable, "-c", "import time\nend = time.time() + 60\nwhile time.time() < end: pass"])
            for _ in range(os.cpu_count())]
    try:
        for mode in ("tcp", "udp", "cudp", "udp6", "mapped"):
            processes = [netns.start(senders, "ports", mode, 2000) for _ in range(4)]
            for process in processes:
                wanted = tuples(mode, process.communicate(timeout=120)[0])
                assert answers(owners, wanted, process.pid, netns.cookie) == (0, 0), mode
    finally:
        for process in busy:
            process.kill()
            process.wait()


RAW = """
import socket, struct, sys
echo = struct.pack("!BBHHH", 8, 0, 0xf7ff - int(sys.argv[1]), int(sys.argv[1]), 0)
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP); s.sendto(echo, ("127.0.0.1", 0))
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 253); s.sendto(b"raw", ("127.0.0.1", 0))
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 253); s.sendto(b"raw", ("::1", 0))
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP); s.sendto(struct.pack("!4H", 7, 9, 8, 0), ("127.0.0.1", 0))
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP); s.sendto(struct.pack("!HHIIHHHH", 7, 9, 0, 0, 0x5002, 0, 0, 0), ("127.0.0.1", 0))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP); s.sendto(echo, ("127.0.0.1", 0)); print(s.getsockname()[1])
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_ICMPV6); s.sendto(b"\\x80" + bytes(7), ("::1", 0)); print(s.getsockname()[1])
"""


def test_ping_and_raw_sockets(owners, netns):
    netns.run("sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647")
    process = netns.script(RAW, 4711)
    ping, ping6 = map(int, process.communicate(timeout=60)[0].split())
    wanted = {
        (1, "127.0.0.1", 4711, "127.0.0.1", 8 << 8), (253, "127.0.0.1", 0, "127.0.0.1", 0), (253, "::1", 0, "::1", 0),
        (17, "127.0.0.1", 7, "127.0.0.1", 9), (6, "127.0.0.1", 7, "127.0.0.1", 9),
        (1, "127.0.0.1", ping, "127.0.0.1", 8 << 8), (58, "::1", ping6, "::1", 128 << 8),
    }
    for each in wanted:
        owner = owners.find(*each, netns.cookie)
        assert owner and owner["pid"] == process.pid and owner["hook"] == "create", (each, owner)
    # A generic protocol has no ports in conntrack, whatever a caller's tuple holds there.
    assert owners.find(253, "127.0.0.1", 5, "127.0.0.1", 6, netns.cookie)["pid"] == process.pid


def test_mptcp(owners, netns):
    process = netns.script("""
import socket
try: s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
except OSError: raise SystemExit("none")
l = socket.create_server(("127.0.0.1", 0)); s.connect(l.getsockname()); print(s.getsockname()[1], l.getsockname()[1])
""")
    out = process.communicate(timeout=60)[0].split()
    if not out:
        pytest.skip("this kernel has no MPTCP")
    assert owners.find(6, "127.0.0.1", int(out[0]), "127.0.0.1", int(out[1]), netns.cookie)["pid"] == process.pid


def test_sockets_only_io_uring_holds(owners, netns, tmp_path):
    program = compiled(TESTS / "support_io_uring.c", tmp_path)
    process = netns.start(program)
    out = process.communicate(timeout=60)[0].split()
    if process.returncode == 77:
        pytest.skip("io_uring cannot make sockets here: " + " ".join(out))
    assert process.returncode == 0
    udp, tcp, port = map(int, out)
    assert owners.find(17, "127.0.0.1", udp, "127.0.0.1", 9, netns.cookie)["pid"] == process.pid
    assert owners.find(6, "127.0.0.1", tcp, "127.0.0.1", port, netns.cookie)["pid"] == process.pid


SERVER = """
import socket, sys
l = socket.create_server((sys.argv[1], 0), family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET,
                         dualstack_ipv6=sys.argv[1] == "::")
u = socket.socket(l.family, socket.SOCK_DGRAM); u.bind((sys.argv[1], 0))
print(l.getsockname()[1], u.getsockname()[1])
c = l.accept()[0]
print(int.from_bytes(c.getsockopt(1, 57, 8), "little"))
input()
"""


@pytest.mark.parametrize("address, local", [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "127.0.0.1"), ("::", "::1")])
def test_servers_and_what_they_accept(owners, netns, address, local):
    server = netns.script(SERVER, address)
    port, udp = map(int, server.stdout.readline().split())
    client = netns.script("import socket, sys; s = socket.create_connection((sys.argv[1], sys.argv[2])); print(s.getsockname()[1]); input()",
                          local, port)
    source = int(client.stdout.readline())
    cookie = int(server.stdout.readline())
    try:
        accepted = owners.find(6, local, port, local, source, netns.cookie)
        assert (accepted["pid"], accepted["hook"], accepted["match"]) == (server.pid, "accept", "exact")
        assert accepted["cookie"] == cookie and owners.find_cookie(cookie)["pid"] == server.pid
        assert owners.find(6, local, source, local, port, netns.cookie)["pid"] == client.pid
        for proto, where in ((6, port), (17, udp)): # from a peer it has not met yet
            bound = owners.find(proto, local, where, local, 1, netns.cookie)
            assert (bound["pid"], bound["hook"], bound["match"]) == (server.pid, "bind", "bound")
            assert owners.find(proto, local, where, local, 1) is None # a port says nothing across namespaces
    finally:
        for process in (client, server):
            process.communicate("\n", timeout=60)


SEND = "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((sys.argv[1], 5555)); s.sendto(b'', ('127.0.0.1', 9))"


@pytest.mark.parametrize("bind", ["0.0.0.0", "127.0.0.1"])
def test_equal_tuples_in_two_namespaces(owners, netns, bind):
    wanted = (17, "127.0.0.1", 5555, "127.0.0.1", 9)
    with namespace() as other:
        pids = {}
        for space in (netns, other):
            process = space.script(SEND, bind)
            process.communicate(timeout=60)
            pids[space.cookie] = process.pid
        for cookie, pid in pids.items():
            owner = owners.find(*wanted, cookie)
            assert (owner["pid"], owner["match"]) == (pid, "exact")
        with pytest.raises(LookupError):
            owners.find(*wanted)
        assert owners.find(17, "127.0.0.9", 5555, "127.0.0.1", 9) is None # by address alone the source must be right


def test_any_namespace_finds_the_only_one(owners, netns, senders):
    process = netns.start(senders, "ports", "cudp", 50)
    for each in tuples("cudp", process.communicate(timeout=60)[0]):
        try:
            assert owners.find(*each)["pid"] == process.pid
        except LookupError:
            pass # another namespace of these tests had the same ports


PASSED = """
import array, os, socket, sys
kind, port = sys.argv[1], int(sys.argv[2])
a, b = socket.socketpair()
if os.fork() == 0:
    fd = array.array("i", b.recvmsg(1, socket.CMSG_SPACE(4))[1][0][2])[0]
    s = socket.socket(fileno=fd)
    if kind == "sendto": s.sendto(b"", ("127.0.0.1", port))
    else:
        s.connect(("127.0.0.1", port))
        if kind == "connect-udp": s.send(b"")
    print(s.getsockname()[1], os.getpid()); sys.stdout.flush(); os._exit(0)
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "connect-tcp" else socket.SOCK_DGRAM)
s.bind(("127.0.0.1", 0))
a.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [s.fileno()]))])
os.wait()
"""


@pytest.mark.parametrize("kind, proto", [("connect-tcp", 6), ("connect-udp", 17), ("sendto", 17)])
def test_who_connects_or_sends_wins_over_who_made_and_bound(owners, netns, kind, proto):
    server = netns.script(SERVER, "127.0.0.1")
    ports = dict(zip((6, 17), map(int, server.stdout.readline().split())))
    maker = netns.script(PASSED, kind, ports[proto])
    source, pid = map(int, maker.communicate(timeout=60)[0].split())
    owner = owners.find(proto, "127.0.0.1", source, "127.0.0.1", ports[proto], netns.cookie)
    server.kill()
    server.communicate()
    assert owner["pid"] == pid != maker.pid


def test_the_newest_owner_of_a_reused_tuple_and_that_there_was_another(owners, netns):
    pids = []
    for _ in range(2):
        process = netns.script(SEND, "127.0.0.1")
        process.communicate(timeout=60)
        pids.append(process.pid)
    owner = owners.find(17, "127.0.0.1", 5555, "127.0.0.1", 9, netns.cookie)
    assert owner["pid"] == pids[1] and 0 < owner["other_time"] < owner["time"]


def test_destination_any_is_this_host(owners, netns):
    process = netns.script("""
import socket
for to in ("0.0.0.0", 9), ("::", 9):
    s = socket.socket(socket.AF_INET6 if ":" in to[0] else socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b"", to); print(s.getsockname()[1])
""")
    four, six = map(int, process.communicate(timeout=60)[0].split())
    assert owners.find(17, "127.0.0.1", four, "127.0.0.1", 9, netns.cookie)["pid"] == process.pid
    assert owners.find(17, "::1", six, "::1", 9, netns.cookie)["pid"] == process.pid


def test_a_connected_socket_that_also_sends_elsewhere(owners, netns):
    process = netns.script("""
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(("127.0.0.1", 9)); s.sendto(b"", ("127.0.0.1", 10))
try: s.send(b"")
except ConnectionRefusedError: s.send(b"")
print(s.getsockname()[1])
""")
    port = int(process.communicate(timeout=60)[0])
    for peer in (9, 10):
        assert owners.find(17, "127.0.0.1", port, "127.0.0.1", peer, netns.cookie)["pid"] == process.pid


def test_a_full_ring_forgets_the_oldest_and_names_nobody_else(netns, senders):
    with OwnersBpf(flows=1024) as small:
        process = netns.start(senders, "ports", "udp", 4000)
        out = process.communicate(timeout=60)[0]
        peer, *ports = map(int, out.split())
        assert answers(small, tuples("udp", " ".join(map(str, [peer, *ports[-300:]]))), process.pid, netns.cookie) == (0, 0)
        lost, wrong = answers(small, tuples("udp", out), process.pid, netns.cookie)
        assert lost > 2500 and wrong == 0
        assert small.counters()["replaced"] >= 2900


def test_a_reader_never_sees_a_torn_record(netns, senders):
    """Two processes overwrite a small ring as fast as they can; whatever is found is of the one that sent there."""
    with OwnersBpf(flows=1) as small:
        processes = {port: netns.start(senders, "ports", "udp", 30_000, port) for port in (901, 902)}
        seen = wrong = 0
        while any(process.poll() is None for process in processes.values()) and seen < 100_000:
            for source in range(32768, 61000):
                for peer, process in processes.items():
                    owner = small.find(17, "127.0.0.1", source, "127.0.0.1", peer, netns.cookie)
                    if owner:
                        seen += 1
                        wrong += owner["pid"] != process.pid or owner["netns_cookie"] != netns.cookie
        for process in processes.values():
            process.communicate(timeout=120)
        assert seen > 1000 and wrong == 0


def test_two_instances_do_not_disturb_each_other(owners, netns, senders):
    with OwnersBpf(flows=4000) as second:
        process = netns.start(senders, "ports", "tcp", 300)
        wanted = tuples("tcp", process.communicate(timeout=60)[0])
        for each in (owners, second):
            assert answers(each, wanted, process.pid, netns.cookie) == (0, 0)


def test_only_the_cgroup_asked_for(netns):
    path = f"{cgroup_root()}/nfbpf-test-{os.getpid()}"
    os.mkdir(path)
    try:
        with OwnersBpf(flows=1000, cgroup=path) as part:
            assert part.cgroup == path and not part.whole
            outside = netns.script(SEND, "127.0.0.1")
            outside.communicate(timeout=60)
            assert owner_of(part, netns) is None
            inside = netns.script(SEND, "127.0.0.1", cgroup=path)
            inside.communicate(timeout=60)
            owner = owner_of(part, netns)
            assert owner["pid"] == inside.pid and owner["cgroup_id"] == os.stat(path).st_ino
    finally:
        os.rmdir(path)


def owner_of(owners, netns):
    return owners.find(17, "127.0.0.1", 5555, "127.0.0.1", 9, netns.cookie)


TRAFFIC = """
import hashlib, os, socket, threading
for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    l = socket.create_server((address, 0), family=family); data = os.urandom(1 << 20); got = []
    def read():
        c = l.accept()[0]; h = hashlib.sha256()
        while chunk := c.recv(65536): h.update(chunk)
        got.append(h.digest())
    t = threading.Thread(target=read); t.start()
    c = socket.create_connection(l.getsockname()[:2]); c.sendall(data); c.close(); t.join()
    assert got == [hashlib.sha256(data).digest()]
    a, b = socket.socket(family, socket.SOCK_DGRAM), socket.socket(family, socket.SOCK_DGRAM)
    a.bind((address, 0)); b.bind((address, 0))
    for size in (0, 1, 1400, 9000, 60000):
        b.sendto(data[:size], a.getsockname()); got, peer = a.recvfrom(65536); assert got == data[:size] and peer[:2] == b.getsockname()[:2]
    b.connect(a.getsockname()); b.send(b"x"); assert a.recv(9) == b"x"
    s = socket.socket(family, socket.SOCK_STREAM)
    try: s.connect((address, 9)); raise SystemExit("connected")
    except ConnectionRefusedError: pass
print("same")
"""


def test_traffic_is_what_it_is_without(owners, netns):
    assert netns.python(TRAFFIC).strip() == "same"


HOLDER = """
from nfct_fast.owners_bpf import OwnersBpf
owners = OwnersBpf()
print("ready")
input()
"""


@pytest.mark.skipif(not shutil.which("bpftool"), reason="no bpftool to look with")
def test_nothing_is_left_after_kill_9(netns):
    process = subprocess.Popen([sys.executable, "-u", "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                               env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert process.stdout.readline() == "ready\n"
    ids = {"prog": set(), "map": set(), "link": set()}
    for fd in os.listdir(f"/proc/{process.pid}/fdinfo"):
        with open(f"/proc/{process.pid}/fdinfo/{fd}") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name in ("prog_id", "map_id", "link_id"):
                    ids[name[:-3]].add(int(value))
    assert [len(ids[kind]) for kind in ("prog", "link", "map")] == [9, 9, 6]

    def left(kind):
        shown = subprocess.run(["bpftool", "-j", kind, "show"], check=True, capture_output=True, text=True).stdout
        return {each["id"] for each in json.loads(shown)} & ids[kind]

    def attached():
        tree = subprocess.run(["bpftool", "-j", "cgroup", "show", cgroup_root()], capture_output=True, text=True).stdout
        return {each["id"] for each in json.loads(tree or "[]")} & ids["prog"]

    assert all(left(kind) == ids[kind] for kind in ids) and attached() == ids["prog"]
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    end = time.monotonic() + 10  # the kernel frees after a grace period
    while time.monotonic() < end and any(left(kind) for kind in ids):
        time.sleep(0.05)
    assert not any(left(kind) for kind in ids) and not attached()


@pytest.mark.parametrize("kept, refused", [
    ("cap_bpf,cap_net_admin,cap_perfmon", None), ("cap_sys_admin,cap_net_admin", None),
    ("cap_net_admin,cap_perfmon", "CAP_BPF"), ("cap_bpf,cap_perfmon", "CAP_NET_ADMIN"), ("cap_bpf,cap_net_admin", "CAP_PERFMON"),
])
def test_the_least_capabilities(kept, refused):
    text = """
from nfct_fast.owners_bpf import OwnersBpf
try: OwnersBpf(flows=1)
except PermissionError as error: print(error)
else: print("loaded")
"""
    if not shutil.which("setpriv"):
        pytest.skip("no setpriv")
    keep = ",".join("+" + name[4:] for name in kept.split(","))
    out = subprocess.run(["setpriv", "--inh-caps=-all", f"--bounding-set=-all,{keep}", sys.executable, "-c", text], check=True,
                         capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}).stdout
    assert out == "loaded\n" if refused is None else f"{refused} missing" in out, out


def test_wrong_arguments_and_use_after_close(tmp_path):
    for flows in (0, 1 << 25):
        with pytest.raises(ValueError):
            OwnersBpf(flows=flows)
    with pytest.raises(FileNotFoundError):
        OwnersBpf(cgroup=str(tmp_path / "none"))
    with pytest.raises(OSError):
        OwnersBpf(flows=1, cgroup=str(tmp_path)) # a directory, but of no cgroup
    owners = OwnersBpf(flows=1)
    owners.close()
    owners.close()
    assert owners.find(17, "127.0.0.1", 1, "127.0.0.1", 2) is None and owners.find_cookie(1) is None
    with pytest.raises(ValueError):
        owners.counters()


def test_default_memory(owners):
    assert owners.memory == 76 << 20 and owners.flows == 1 << 19
