"""The processes that hold a socket are found in /proc/PID/fd, within a budget of time."""

import array
import os
import resource
import shutil
import socket
import subprocess
import sys
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nfct_fast.sockets.fd_scanner import FdScanner
from support.child import Child
from support.cli import until
from support.fake_proc import child, fake_process

FREE = float("inf")


def inode(sock):
    return os.fstat(sock.fileno()).st_ino


def hidden_processes():
    """Whether some process hides from us, as pid 1 may in a container."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            for fd in os.listdir(f"/proc/{pid}/fd")[:1]:
                os.readlink(f"/proc/{pid}/fd/{fd}")
        except PermissionError:
            return True
        except OSError:
            pass
    return False


@pytest.mark.parametrize(
    "make",
    [
        lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
        lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM),
        lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
        lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    ],
)
@pytest.mark.parametrize(
    "hints", [{}, {"uid": os.geteuid()}, {"likely_pids": [os.getpid()]}, {"likely_pids": [1, 2**22 + 1]}]
)
def test_finds_itself_whatever_it_is_told(make, hints):
    with make() as sock:
        assert FdScanner(budget=FREE).holders(inode(sock), **hints) == [(os.getpid(), sock.fileno())]


def test_candidate_is_all_that_is_looked_into():
    scanner = FdScanner()
    with socket.socket() as sock:
        assert scanner.holders(inode(sock), likely_pids=[os.getpid()]) == [(os.getpid(), sock.fileno())]
        assert scanner.scanned_processes == 1


def test_what_is_known_is_confirmed_not_scanned_again():
    scanner = FdScanner(budget=FREE)
    with socket.socket() as one, socket.socket() as two:
        numbers = inode(one), inode(two)
        for _ in range(10):
            assert [scanner.holders(n, likely_pids=[os.getpid()])[0][0] for n in numbers] == [os.getpid()] * 2
        before = scanner.scanned_processes
        scanner.holders(numbers[0])
        scanner.holders(numbers[1])
        assert scanner.scanned_processes == before <= 2


def test_same_fd_again_costs_no_scan():
    scanner = FdScanner()
    with socket.socket() as sock:
        assert scanner.holders(inode(sock), likely_pids=[os.getpid()])
        fd = sock.fileno()
    for _ in range(20):
        with socket.socket() as sock:
            assert sock.fileno() == fd
            assert scanner.holders(inode(sock)) == [(os.getpid(), fd)]
    assert scanner.scanned_processes == 1


def test_closed_socket_is_held_by_nobody():
    scanner = FdScanner(budget=FREE)
    with socket.socket() as sock:
        number = inode(sock)
        assert scanner.holders(number)
    try:
        assert scanner.holders(number) == []
    except PermissionError:
        assert hidden_processes()


def test_all_who_inherited_it_oldest_first():
    with socket.socket() as sock:
        sock.set_inheritable(True)
        with child(lambda: None) as one, child(lambda: None) as two:
            everybody = [(pid, sock.fileno()) for pid in (os.getpid(), one, two)]
            for hints in ({}, {"likely_pids": [two]}, {"likely_pids": [one, two, os.getpid()]}):
                found = FdScanner(budget=FREE).holders(inode(sock), **hints)
                assert found[0] == everybody[0] and sorted(found) == sorted(everybody)
            scanner = FdScanner(budget=FREE)
            for _ in range(3):
                assert sorted(scanner.holders(inode(sock), likely_pids=[two])) == sorted(everybody)
            assert sorted(FdScanner().all_holders(inode(sock))) == sorted(everybody)


def test_many_children_without_it_are_not_all_asked(tmp_path):
    parent = fake_process(tmp_path, 1000, ppid=0, fds=["socket:[7]"])
    for pid in range(1, 101):
        fake_process(tmp_path, pid, ppid=1000, fds=["socket:[7]"] if pid in (3, 98) else [])
    for children, expected in ((range(1, 101), [3, 98, 1000]), (range(1, 91), [1000])):
        (parent / "task" / "1000" / "children").write_text("".join(f"{pid} " for pid in children))
        found = FdScanner(tmp_path).holders(7, likely_pids=[1000])
        assert sorted(pid for pid, _ in found) == expected


def test_child_alone_once_the_parent_has_closed_it():
    scanner = FdScanner(budget=FREE)
    sock = socket.socket()
    number, fd = inode(sock), sock.fileno()
    with child(lambda: None) as pid:
        assert scanner.holders(number, likely_pids=[os.getpid()])[0] == (os.getpid(), fd)
        sock.close()
        assert scanner.holders(number, likely_pids=[os.getpid(), pid]) == [(pid, fd)]


def test_holder_by_another_fd_over_a_unix_socket():
    here, there = socket.socketpair()
    with here, there, socket.socket() as sock:

        def work():
            sock.close()
            os.close(os.open("/dev/null", os.O_RDONLY))
            data, ancillary, _, _ = there.recvmsg(1, socket.CMSG_SPACE(4))
            got = array.array("i", ancillary[0][2])[0]
            os.dup2(got, 200)
            os.close(got)

        here.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sock.fileno()]))])
        with child(work) as pid:
            assert sorted(FdScanner().all_holders(inode(sock))) == sorted([(os.getpid(), sock.fileno()), (pid, 200)])
            number = inode(sock)
            sock.close()
            assert FdScanner(budget=FREE).holders(number) == [(pid, 200)]


@pytest.mark.root
def test_same_user_is_looked_at_before_others():
    def work():
        os.setresuid(4321, 4321, 4321)
        kept.append(socket.socket())
        os.write(told, str(inode(kept[0])).encode())

    kept = []
    answer, told = os.pipe()
    with child(work) as pid:
        number = int(os.read(answer, 32))
        scanner = FdScanner(budget=FREE)
        assert scanner.holders(number, uid=4321)[0][0] == pid
        assert scanner.scanned_processes == 1
        assert FdScanner(budget=FREE).holders(number, uid=1234)[0][0] == pid
    os.close(answer)
    os.close(told)


@pytest.mark.root
def test_no_permission_is_told_apart_from_nobody():
    def ask():
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        scanner = FdScanner(budget=FREE)
        for hints in ({}, {"likely_pids": [parent]}, {"uid": 0}):
            try:
                scanner.holders(number, **hints)
                return 1
            except PermissionError:
                pass
        with socket.socket() as own:
            return 0 if scanner.holders(inode(own)) == [(os.getpid(), own.fileno())] else 2

    parent = os.getpid()
    with socket.socket() as sock:
        number = inode(sock)
        pid = os.fork()
        if pid == 0:
            sock.close()
            code = 3
            try:
                code = ask()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def holders_or_none(scanner, inode, likely_pids, uid=None):
    try:
        return scanner.holders(inode, uid=uid, likely_pids=likely_pids)
    except BlockingIOError:
        return None


def test_scanning_is_bounded_and_recovers(tmp_path):
    for pid in range(1, 41):
        fake_process(tmp_path, pid, fds=["/dev/null"] * 50 + [f"socket:[{1000 + pid}]"])
    no_budget = FdScanner(tmp_path, budget=0)
    with pytest.raises(BlockingIOError):
        no_budget.holders(1001)
    assert no_budget.scanned_processes == 0 and no_budget.budget_exhausted > 0

    scanner = FdScanner(tmp_path, budget=0.001, negative_ttl=0)
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        try:
            scanner.holders(99999)
        except BlockingIOError:
            time.sleep(0.001)
    # At 50 us a process, a free scanner would look into some 8,000 in that time.
    assert scanner.scanned_processes < 1000 and scanner.budget_exhausted > 0
    # How much is saved up for it depends on how long the last scan took, which is the machine's business.
    end = time.monotonic() + 10
    while (found := holders_or_none(scanner, 1040, [40])) is None and time.monotonic() < end:
        time.sleep(0.05)
    assert found == [(40, 50)] and scanner.scanned_processes > 0


@pytest.fixture(scope="module")
def many_processes(tmp_path_factory):
    root = tmp_path_factory.mktemp("many")
    for pid in range(1, 6001):
        (root / str(pid) / "fd").mkdir(parents=True)
        (root / str(pid) / "fd" / "3").symlink_to(f"socket:[{10_000 + pid}]")
    return root


@pytest.mark.parametrize("uid", [None, os.geteuid(), 1234])
def test_a_search_through_many_processes_goes_on_where_it_was_cut_short(many_processes, uid):
    """Each may take 20 ms at first, and one through all of these takes 45."""
    last = int(os.listdir(many_processes)[0])  # from the end on, where they are not in order
    scanner = FdScanner(many_processes, budget=0.02)
    end = time.monotonic() + 120
    while (found := holders_or_none(scanner, 10_000 + last, [], uid)) is None and time.monotonic() < end:
        time.sleep(0.02)
    assert found == [(last, 3)] and scanner.budget_exhausted > 0


STOPPED = """
import sys, time
from nfct_fast.sockets.fd_scanner import FdScanner

scanner, longest = FdScanner(sys.argv[1], budget=0.5, negative_ttl=0, burst=0.5), 0
print("scanning", flush=True)
while time.thread_time() < 0.4:    # with what the start took
    began = time.monotonic()
    scanner.holders(1)
    longest = max(longest, time.monotonic() - began)
print(longest > 1)
"""


def test_a_machine_that_stands_still_does_not_use_up_the_budget(many_processes):
    """The half second that may be spent is of processor time, and the process is stopped for longer in the middle."""

    def stood_still():
        command = [sys.executable, "-c", STOPPED, many_processes]
        with Child(command, stdout=subprocess.PIPE, text=True) as scanning:
            assert scanning.stdout.readline() == "scanning\n"
            time.sleep(0.05)
            scanning.stand_still()
            within_a_scan = scanning.stdout.read() == "True\n"
        assert scanning.returncode == 0  # no BlockingIOError
        return within_a_scan

    until(stood_still)


def test_negative_entry_is_believed_for_a_while(tmp_path):
    fake_process(tmp_path, 5)
    scanner = FdScanner(tmp_path, negative_ttl=2)
    assert scanner.holders(77) == []
    fake_process(tmp_path, 5, fds=["socket:[77]"])
    before = scanner.scanned_processes
    assert scanner.holders(77) == [] and scanner.scanned_processes == before
    time.sleep(2.01)
    assert scanner.holders(77) == [(5, 0)]


def test_newest_first(tmp_path):
    for pid in (10, 20, 30, 40):
        fake_process(tmp_path, pid, fds=[f"socket:[{pid}]"])
    (tmp_path / "loadavg").write_text("0.00 0.01 0.05 1/144 30\n")
    scanner = FdScanner(tmp_path, budget=0.02)
    assert scanner.holders(30) == [(30, 0)]
    if sorted(os.listdir(tmp_path), key=os.listdir(tmp_path).index) == sorted(os.listdir(tmp_path)):
        assert scanner.scanned_processes == 1


def test_service_manager_is_named_last(tmp_path):
    fake_process(tmp_path, 1, start=1, comm="init", fds=["socket:[7]"])
    fake_process(tmp_path, 2, start=2, comm="systemd", fds=["socket:[7]"])
    fake_process(tmp_path, 30, start=40, comm="a) (systemd", ppid=2, fds=["socket:[7]"])
    fake_process(tmp_path, 40, start=30, comm="b", ppid=1, fds=["socket:[7]"])
    assert [pid for pid, _ in FdScanner(tmp_path).all_holders(7)][:2] == [40, 30]
    assert FdScanner(tmp_path).holders(7, likely_pids=[40, 30])[0] == (40, 0)


def test_more_holders_than_fit(tmp_path):
    for pid in range(1, 101):
        fake_process(tmp_path, pid, start=pid, ppid=max(pid - 1, 0), fds=["socket:[7]"])
    assert len(FdScanner(tmp_path).all_holders(7)) == 32
    # Told where to begin: a plain directory does not list by number, as /proc does.
    assert len(FdScanner(tmp_path).holders(7, likely_pids=[100])) == 32


def test_parents_that_go_round_in_a_circle(tmp_path):
    fake_process(tmp_path, 5, ppid=6, fds=["socket:[7]"])
    fake_process(tmp_path, 6, ppid=5, fds=["socket:[7]"])
    assert sorted(FdScanner(tmp_path).holders(7)) == [(5, 0), (6, 0)]


@pytest.mark.parametrize(
    "target",
    [
        "socket:[",
        "socket:[]",
        "socket:[7",
        "socket:[7]x",
        "socket:[x7]",
        "socket:7",
        "[7]",
        "socket:[ 7]",
        "socket:[-7]",
        "socket:[18446744073709551623]",
        "s" * 200,
        "pipe:[7]",
    ],
)
def test_links_that_are_no_socket(tmp_path, target):
    fake_process(tmp_path, 5, fds=[target])
    assert FdScanner(tmp_path).holders(7) == []


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.text("0123456789ab", min_size=1, max_size=12),
        st.lists(st.sampled_from(["socket:[7]", "socket:[8]", "x", "socket:[99999999999999999999]"]), max_size=4),
        max_size=5,
    )
)
def test_any_tree_is_survived(tmp_path_factory, tree):
    root = tmp_path_factory.mktemp("proc")
    expected = set()
    for name, links in tree.items():
        (root / name / "fd").mkdir(parents=True)
        for fd, target in enumerate(links):
            (root / name / "fd" / str(fd)).symlink_to(target)
            if target == "socket:[7]" and name.isdigit() and str(int(name)) == name and 0 < int(name) < 2**31:
                expected.add(int(name))
    found = {pid for pid, _ in FdScanner(root).all_holders(7)}
    assert expected <= found | {0} and found <= expected | {int(n) for n in tree if n.isdigit()}
    shutil.rmtree(root)


def test_many_fds_and_processes_that_vanish():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 6000), hard))
    socks = []
    try:
        while len(socks) < min(hard, 6000) - 200:
            socks.append(socket.socket())
        scanner = FdScanner(budget=FREE)
        for sock in (socks[0], socks[2000], socks[-1]):
            assert scanner.holders(inode(sock), likely_pids=[os.getpid()])[0] == (os.getpid(), sock.fileno())
    finally:
        for sock in socks:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    scanner = FdScanner(budget=FREE, negative_ttl=0)
    for _ in range(50):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        try:
            assert scanner.holders(2**40, likely_pids=[pid]) == []
        except PermissionError:
            assert hidden_processes()
        os.waitpid(pid, 0)
