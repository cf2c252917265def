"""The program that sent is known by identity, whatever forks, executes and exits, and however late events arrive."""

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time

import pytest

from nfct_fast.conntrack import Conntrack
from support.cli import SECONDS, Program, inside, until
from support.netns import inside as entered
from support.netns import made
from support.socket_notes import unusable

REASON = unusable()
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(REASON is not None, reason=f"owner tracking cannot run here: {REASON}"),
]

SEND = "import socket; s = socket.socket(2, 2); s.sendto(b'x', ('127.0.0.1', {}))"
CLONE3, CLONE_PARENT, CLONE_INTO_CGROUP = 435, 0x8000, 0x200000000
CLONE = """if 1:
    import ctypes, os, socket, struct, sys
    sock = socket.socket(2, 2)
    def clone(flags, cgroup=0):
        return ctypes.CDLL(None).syscall(435, struct.pack("11Q", flags, *[0] * 9, cgroup), 88)
    def send(port):
        sock.sendto(b"x", ("127.0.0.1", port))
"""


@pytest.fixture
def conntrack():
    with entered(), Conntrack(track=True, probe=False, protocol="ipv4/udp") as opened:
        assert opened.degraded == ()
        yield opened


def owners(conntrack, *ports):
    """The owners of the flows to these ports, in that order."""
    found, end = {}, time.monotonic() + SECONDS
    while len(found) < len(ports) and time.monotonic() < end:
        found |= {flow.dport: flow.owner for flow in conntrack.read(timeout=0.2) if flow.dport in ports}
    return [found[port] for port in ports]


def run(script, *arguments, **options):
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], check=True, capture_output=True, text=True, **options
    )


def test_a_program_of_a_chain_of_fifty_is_the_one_that_sent(conntrack):
    ports = range(3000, 3050)
    text = ""
    environment = dict(os.environ)
    for port in reversed(ports):
        environment[f"T{port}"] = text = f"echo x >/dev/udp/127.0.0.1/{port}" + (
            f'; exec bash -c "$T{port + 1}" {port}' if text else ""
        )
    process = subprocess.Popen(["bash", "-c", text, "first"], env=environment)
    process.wait()
    for port, owner in zip(ports, owners(conntrack, *ports), strict=True):
        assert owner.pid == process.pid and owner.process.exe == "/usr/bin/bash"
        assert owner.process.cmdline[2:] == (environment[f"T{port}"], str(port - 1) if port > 3000 else "first")
        assert owner.process.ancestors[0].pid == os.getpid() and not owner.process.forked


def test_one_socket_handed_from_program_to_program_is_the_last_ones(conntrack):
    """The tuple was noted already: that it is another program which sends now is seen all the same."""
    script = f"""if 1:
        import os, socket, subprocess, sys
        sock = socket.socket(fileno=int(sys.argv[1])) if len(sys.argv) > 1 else socket.socket(2, 2)
        sock.sendto(b"x", ("127.0.0.1", 3100))
        input()
        if len(sys.argv) == 1:
            os.set_inheritable(sock.fileno(), True)
            script = open("/proc/self/cmdline").read().split("\\0")[2]
            os.execv({sys.executable!r}, ["second", "-c", script, str(sock.fileno())])
    """
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, text=True)
    (first,) = owners(conntrack, 3100)
    time.sleep(1.5)  # two programs in one batch could not be distinguished
    subprocess.run(["conntrack", "-D", "-p", "udp", "--dport", "3100"], check=True, capture_output=True)
    process.stdin.write("\n")
    process.stdin.flush()
    (second,) = owners(conntrack, 3100)
    process.communicate("\n")
    assert first.pid == second.pid == process.pid
    assert (first.process.cmdline[0], second.process.cmdline[0]) == (sys.executable, "second")


def test_a_child_that_executed_nothing_has_its_parents_program_and_says_so(conntrack):
    out = run(
        "import os, socket\nif not os.fork():\n os.setresuid(4321, 4321, 4321)\n "
        + SEND.format(3200)
        + "\nelse:\n print(os.getpid()); os.wait()"
    )
    (owner,) = owners(conntrack, 3200)
    assert owner.process.forked and owner.process.cmdline[:2] == (sys.executable, "-c")
    assert owner.uid == 4321 and owner.process.ppid == int(out.stdout) == owner.process.ancestors[0].pid
    assert [each.pid for each in owner.process.ancestors[1:]][:1] == [os.getpid()]


def test_ancestors_that_have_exited_are_named(conntrack):
    script = (
        CLONE
        + """
    if not os.fork():
        if not os.fork():
            os.setsid()
            while os.getppid() not in (1, int(sys.argv[1])): pass
            send(3210)
        os._exit(0)
    os.wait()
    print(os.getpid())
    """
    )
    out = run(script, os.getpid())
    (owner,) = owners(conntrack, 3210)
    first, second, third, *others = owner.process.ancestors
    assert owner.process.ppid == first.pid and second.pid == int(out.stdout) and third.pid == os.getpid()
    assert not os.path.exists(f"/proc/{first.pid}") and {first.comm, second.comm} == {os.path.basename(sys.executable)}
    assert others[-1].pid == 1 and first.exe == second.exe == os.path.realpath(sys.executable)


def test_a_thread_that_executes_is_its_process(conntrack):
    script = f"""if 1:
        import os, sys, threading
        threading.Thread(target=os.execv, args=({sys.executable!r}, ["by-a-thread", "-c", sys.argv[1]])).start()
        threading.Event().wait()
    """
    process = subprocess.Popen([sys.executable, "-c", script, SEND.format(3220)])
    process.wait()
    (owner,) = owners(conntrack, 3220)
    assert (owner.pid, owner.process.cmdline) == (process.pid, ("by-a-thread", "-c", SEND.format(3220)))


def test_vfork_and_posix_spawn(conntrack):
    pid = os.posix_spawn(sys.executable, ["spawned", "-c", SEND.format(3230)], os.environ)
    os.waitpid(pid, 0)
    (owner,) = owners(conntrack, 3230)
    assert (owner.pid, owner.process.cmdline[0], owner.process.ppid) == (pid, "spawned", os.getpid())


@pytest.mark.parametrize("executes", [False, True])
def test_clone_parent_names_who_really_forked(conntrack, executes):
    """The child has the parent's name and, by CLONE_PARENT, this test for a parent: uid 0 was printed with its
    command line."""
    script = (
        CLONE
        + f"""
    os.setresuid(4322, 4322, 4322)
    pid = clone({CLONE_PARENT})
    if pid == 0:
        if sys.argv[1:]:
            os.execv("/bin/bash", ["executed", "-c", "echo x >/dev/udp/127.0.0.1/3240"])
        send(3240)
        os._exit(0)
    print(os.getpid(), pid)
    """
    )
    out = run(script, *["x"] * executes)
    forker, child = map(int, out.stdout.split())
    (owner,) = owners(conntrack, 3240)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(child, 0x40000000)  # __WCLONE: it ends without a signal
    assert (owner.pid, owner.uid, owner.gid) == (child, 4322, 0 if owner.gid == 0 else 4322)
    assert owner.process.ancestors[0].pid == forker and owner.process.forked is not executes
    assert owner.process.cmdline[0] == ("executed" if executes else sys.executable)


def test_a_setuid_program_has_the_users_real_id(conntrack, tmp_path):
    program = tmp_path / "setuid"
    shutil.copy(os.path.realpath("/usr/bin/python3"), program)
    program.chmod(0o4755)
    # pytest's own folders, which only root may enter; not the one that all programs share.
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & stat.S_IXOTH:
            break
        folder.chmod(0o755)
    out = subprocess.run(
        [program, "-c", "import os; print(os.getuid(), os.geteuid());" + SEND.format(3250)],
        check=True,
        capture_output=True,
        text=True,
        user=65534,
        group=65534,
    )
    (owner,) = owners(conntrack, 3250)
    assert out.stdout.split() == ["65534", "0"]
    assert (owner.uid, owner.process.exe, owner.process.cmdline[0]) == (65534, str(program), str(program))


def test_a_script_and_its_interpreter(conntrack, tmp_path):
    script = tmp_path / "script"
    script.write_text("#!/bin/bash -e\necho x >/dev/udp/127.0.0.1/3260\n")
    script.chmod(0o755)
    subprocess.run([script, "argument"], check=True)
    (owner,) = owners(conntrack, 3260)
    assert owner.process.exe == os.path.realpath("/bin/bash")
    assert owner.process.cmdline == ("/bin/bash", "-e", str(script), "argument") and owner.process.comm == "script"


def test_a_file_executed_that_has_no_name_any_more(conntrack, tmp_path):
    copy = tmp_path / "gone"
    shutil.copy("/bin/bash", copy)
    fd = os.open(copy, os.O_RDONLY)
    inode = os.fstat(fd)
    copy.unlink()
    memory = os.memfd_create("in memory")
    with open("/bin/bash", "rb") as file:
        os.write(memory, file.read())
    for port, each in ((3270, fd), (3271, memory)):
        subprocess.run(
            ["name", "-c", f"echo x >/dev/udp/127.0.0.1/{port}"],
            executable=f"/proc/self/fd/{each}",
            pass_fds=(each,),
            check=True,
        )
        os.close(each)
    gone, unnamed = owners(conntrack, 3270, 3271)
    assert gone.process.exe == f"{copy} (deleted)" and unnamed.process.exe == "/memfd:in memory (deleted)"
    assert (gone.process.exe_inode, gone.process.exe_dev) == (inode.st_ino, inode.st_dev)


def test_long_and_empty_arguments(conntrack):
    long = "x" * 131000
    subprocess.run(["bash", "-c", "echo x >/dev/udp/127.0.0.1/3280", long], check=True)
    run(
        CLONE
        + """
    ctypes.CDLL(None).syscall(59, b"/bin/bash", (ctypes.c_char_p * 1)(None), (ctypes.c_char_p * 1)(None))
    """,
        input="echo x >/dev/udp/127.0.0.1/3281; exit",
    ) if os.uname().machine == "x86_64" else None
    owner, *empty = owners(conntrack, 3280, *[3281] * (os.uname().machine == "x86_64"))
    assert owner.process.cmdline_cut and owner.process.cmdline_size == len(
        "bash\0-c\0echo x >/dev/udp/127.0.0.1/3280\0"
    ) + len(long)
    assert len("\0".join(owner.process.cmdline)) == 4096
    for each in empty:  # Linux 5.18 and later give it one empty argument
        assert each.process.cmdline in ((), ("",)) and each.process.exe == os.path.realpath("/bin/bash")


def test_titles_are_shown_after_a_while(conntrack):
    """As sshd, nginx and postgres have them, whose children write over their arguments without execve."""
    script = """if 1:
        import ctypes, os, socket, time
        def title(text):
            with open("/proc/self/stat") as stat:
                start, end = map(int, stat.read().rpartition(")")[2].split()[45:47])
            ctypes.memset(start, 0, end - start)
            ctypes.memmove(start, text, len(text))
        title(b"server: a worker")
        with socket.socket(2, 2) as sock:
            for port in range(3300, 3400):
                sock.sendto(b"x", ("127.0.0.1", port))
                time.sleep(.1)
    """
    process = subprocess.Popen([sys.executable, "-c", script])
    seen, end = [], time.monotonic() + 10
    while time.monotonic() < end and seen[-1:] != ["server: a worker"]:
        seen += [flow.owner.process.cmdline[0] for flow in conntrack.read(timeout=0.2) if 3300 <= flow.dport < 3400]
    process.kill()
    process.wait()
    assert seen[0] == sys.executable and seen[-1] == "server: a worker" and set(seen) == {seen[0], seen[-1]}


def test_a_process_from_before_the_start_and_its_children(tmp_path):
    script = (
        "import os\nprint(flush=True); input()\n"
        + SEND.format(3400)
        + "\nif not os.fork():\n "
        + SEND.format(3401)
        + "\nelse:\n os.wait()"
    )
    with entered():
        process = subprocess.Popen(
            [sys.executable, "-c", script, "early"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        process.stdout.readline()
        with Conntrack(track=True, probe=False, protocol="ipv4/udp") as conntrack:
            process.communicate("\n")
            itself, child = owners(conntrack, 3400, 3401)
    assert (
        itself.process.cmdline[-1] == child.process.cmdline[-1] == "early"
        and child.process.forked
        and not itself.process.forked
    )
    assert (
        child.process.ancestors[0].pid == itself.pid == process.pid and itself.process.ancestors[0].pid == os.getpid()
    )


def test_its_pid_in_its_own_namespace_and_its_login(conntrack):
    subprocess.run(
        ["unshare", "--pid", "--fork", "sh", "-c", f'{sys.executable} -c "{SEND.format(3410)}"; true'], check=True
    )
    (owner,) = owners(conntrack, 3410)
    assert owner.process.ns_pid == 2 and owner.process.pid > 2 and owner.process.ancestors[0].comm == "sh"
    assert owner.process.login_uid is None or owner.process.login_uid >= 0
    assert abs(owner.process.start_ns - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) < 60e9


@pytest.mark.parametrize("spawners", [1, 8])
def test_a_thousand_short_programs_while_the_tool_is_stopped(spawners):
    """Nobody is woken for them, and none is lost up to what the ring holds. It holds those of all the host: on a busy
    one they may be too many, which the program says, and then it is done again."""
    for _ in range(5):
        wrong, lost = thousand_short_programs(spawners)
        assert {line for line in wrong.values() if line != "-" or not lost} == set()
        if not lost:
            return
    pytest.fail("other programs of this host have filled the ring each time")


def thousand_short_programs(spawners):
    """{port: command line} of those who have not their own, and whether the program says that some were lost."""
    count = 1000 // spawners
    loop = f'for i in $(seq {count}); do /bin/bash -c "echo x >/dev/udp/127.0.0.1/$(($1 + i))" $1 $i; done'
    with (
        made() as netns,
        Program(
            netns, "--track", "-p", "ipv4/udp", "-f", "{ev.dport} {info.pid} {info.parent} :: {info.cmdline}"
        ) as program,
    ):
        program.process.send_signal(signal.SIGSTOP)
        shells = [
            subprocess.Popen(inside(netns, ["bash", "-c", loop, "spawner", str(10000 + 1000 * n)]))
            for n in range(spawners)
        ]
        for shell in shells:
            shell.wait()
        program.process.send_signal(signal.SIGCONT)
        wanted = {
            10000
            + 1000 * n
            + i: f"/bin/bash -c echo x >/dev/udp/127.0.0.1/{10000 + 1000 * n + i} {10000 + 1000 * n} {i}"
            for n in range(spawners)
            for i in range(1, count + 1)
        }
        program.await_lines(len(wanted), seconds=30)
        found = dict(line.split(" ", 1) for line in program.lines)
        program.end()
    lines = {int(port): line.partition(" :: ")[2] for port, line in found.items()}
    assert len(lines) == len(wanted)
    lost = any("process starts and exits lost" in line for line in program.complaints)
    return {port: line for port, line in lines.items() if line != wanted[port]}, lost


def test_more_programs_than_there_is_room_for_are_counted_and_read():
    """What was lost is asked of /proc as long as it lives; what is gone has its pid and name, and no other's
    command line."""
    long = "y" * 5000
    with (
        made() as netns,
        Program(
            netns, "--track", "-p", "ipv4/udp", "-f", "{ev.dport} {info.pid} {info.comm} :: {info.cmdline}"
        ) as program,
    ):
        program.process.send_signal(signal.SIGSTOP)
        spawn = f"for i in $(seq 1500); do /bin/true {long}; done"
        subprocess.run(inside(netns, ["bash", "-c", spawn]), check=True)
        late = subprocess.Popen(
            inside(
                netns,
                [
                    "bash",
                    "-c",
                    "echo x >/dev/udp/127.0.0.1/3500; exec 3>/dev/udp/127.0.0.1/3501; read; echo x >&3; read",
                    "late",
                ],
            ),
            stdin=subprocess.PIPE,
        )
        gone = subprocess.Popen(inside(netns, ["bash", "-c", "echo x >/dev/udp/127.0.0.1/3502", "gone"]))
        gone.wait()
        program.process.send_signal(signal.SIGCONT)
        program.await_lines(2)
        time.sleep(2.5)  # all processes are read again
        late.stdin.write(b"\n")
        late.stdin.flush()
        program.await_lines(3)
        late.communicate(b"\n")
        lines = {line.split(" ", 1)[0]: line.split(" ", 1)[1] for line in program.lines}
        program.end()
    assert lines["3502"] in (f"{gone.pid} bash :: [bash]",)
    assert lines["3501"].startswith(f"{late.pid} bash :: bash -c echo x") and lines["3501"].endswith(" late")
    assert lines["3500"].startswith(f"{late.pid} bash :: ")
    assert any("process starts and exits lost" in line for line in program.complaints)


HIDDEN = ["unshare", "-m", "sh", "-c", 'mount --bind /dev/null /sys/kernel/btf/vmlinux && exec "$@"', "sh"]


def test_without_btf_the_proc_connector_tells_later_and_less():
    with made() as netns, Program(netns, "--track", "-p", "ipv4/udp", "--json", prefix=HIDDEN) as program:

        def send(port, *more):
            process = subprocess.Popen(
                inside(netns, ["bash", "-c", f"sleep 0.2; echo x >/dev/udp/127.0.0.1/{port}; sleep 0.2", *more])
            )
            process.wait()
            return process.pid

        pids = [send(3600 + i, "lives") for i in range(5)]
        short = [
            subprocess.Popen(inside(netns, ["bash", "-c", f"echo x >/dev/udp/127.0.0.1/{3700 + i}", str(i)]))
            for i in range(20)
        ]
        for each in short:
            each.wait()
        program.await_lines(25)
        owner = {record["original"]["dport"]: record["owner"] for record in map(json.loads, program.lines)}
        program.end()
        threads = [line for line in program.complaints if "command line" in line]
    assert [owner[3600 + i]["pid"] for i in range(5)] == pids
    assert all(owner[3600 + i]["cmdline"][3:] == ["lives"] for i in range(5))
    for i, each in enumerate(short):
        assert owner[3700 + i]["pid"] == each.pid and owner[3700 + i].get("cmdline", ["", "", "", str(i)])[3:] == [
            str(i)
        ]
    assert len(threads) == 1 and "vmlinux" in threads[0]


def test_no_thread_is_of_real_time_priority():
    with made() as netns, Program(netns, "--track") as program:
        until(lambda: len(os.listdir(f"/proc/{program.pid}/task")) >= 2, what="its threads")
        assert {os.sched_getscheduler(int(task)) for task in os.listdir(f"/proc/{program.pid}/task")} == {
            os.SCHED_OTHER
        }
        program.end()
