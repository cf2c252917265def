"""The proc connector against real processes, and its messages as they might come."""
import ctypes
import errno
import os
import shutil
import struct
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given, settings, strategies as st

from nfct_fast.processcache import ProcessCache
from nfct_fast.procevents import ProcEvents
from support_proc import fake_process

NONE, FORK, EXEC, UID, GID, COMM, EXIT = 0, 1, 2, 4, 0x40, 0x200, 0x80000000
CLONE_NEWNET = 0x40000000
HZ = os.sysconf("SC_CLK_TCK")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the proc connector needs root")


def initial_pid_namespace():
    return os.stat("/proc/self/ns/pid").st_ino == 0xEFFFFFFC


if not initial_pid_namespace():
    pytest.skip("the proc connector serves the initial pid namespace only", allow_module_level=True)


def wait_for(condition, seconds=5):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.fixture
def cache():
    return ProcessCache(limit=8192, bytes_limit=64 << 20, linger=30)


@pytest.fixture
def events(cache):
    with ProcEvents(cache) as running:
        yield running


def forked(work):
    """Runs work in a fork that then ends; its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    return pid


def settled(cache, pid, when=None):
    """What ran under pid, once all events up to now are in."""
    return cache.known_at(pid, time.monotonic_ns() if when is None else when, 10.0)


def ask_once_gone(cache, pid):
    known_to_end = time.monotonic_ns()
    settled(cache, 0, known_to_end)
    return cache.last_known(pid)


def test_fork_alone_is_what_its_parent_is(events, cache):
    me = cache.lookup(os.getpid())
    pids = [forked(lambda: None) for _ in range(20)]
    for pid in pids:
        found = ask_once_gone(cache, pid)
        assert (found.pid, found.ppid, found.cmdline, found.exe, found.cgroup, found.uid) == (
            pid, os.getpid(), me.cmdline, me.exe, me.cgroup, me.uid)
        assert cache.lookup(pid) is None


def test_start_of_an_inherited_process_is_the_kernels_to_a_tick(events, cache):
    cache.lookup(os.getpid())
    for _ in range(30):
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
        try:
            settled(cache, 0)
            inherited = cache.last_known(pid).start_ticks
            with open(f"/proc/{pid}/stat") as file:
                assert inherited - int(file.read().rsplit(")")[-1].split()[19]) in (0, 1)
        finally:
            os.kill(pid, 9)
            os.waitpid(pid, 0)


def test_a_glance_at_an_empty_queue_spares_a_look(tmp_path):
    """What was read of a process counts until then, though nobody can look any more."""
    pid = 4000000       # beyond PID_MAX_LIMIT there is none: nothing will be told of it
    directory = fake_process(tmp_path, pid, cmdline=b"x\0", start=1)
    cache = ProcessCache(tmp_path)
    events = ProcEvents(cache)
    try:
        cache.lookup(pid)
        time.sleep(0.02)        # until what was read counts
        asked = time.monotonic_ns()
        shutil.rmtree(directory)
        assert cache.known_at(pid, asked) is None

        def seen():             # other processes' events may come in between
            events.poll()
            events.glance()
            return cache.known_at(pid, asked)
        wait_for(seen)
        assert seen().cmdline == ("x",)
    finally:
        events.close()


def test_a_glance_at_a_queue_says_nothing(cache):
    events = ProcEvents(cache)      # no thread takes anything from it
    shell = subprocess.Popen(["sh", "-c", "read line; exec sleep 60"], stdin=subprocess.PIPE)
    try:
        wait_for(lambda: open(f"/proc/{shell.pid}/comm").read() == "sh\n")
        cache.lookup(shell.pid)
        wait_for(lambda: events.poll() >= 0 and cache.known_at(shell.pid, time.monotonic_ns()) is not None)
        shell.stdin.write(b"\n")
        shell.stdin.flush()
        wait_for(lambda: open(f"/proc/{shell.pid}/comm").read() == "sleep\n")
        asked = time.monotonic_ns()
        events.glance()
        assert cache.known_at(shell.pid, asked) is None, "the execve is queued, and was not heard of"
    finally:
        shell.kill()
        shell.wait()
        shell.stdin.close()
        events.close()


def test_every_command_line_of_short_programs(events, cache):
    run = [subprocess.Popen(["bash", "-c", f"echo {i} >/dev/udp/127.0.0.1/9"]) for i in range(40) if not time.sleep(0.002)]
    for process in run:
        process.wait()
    wrong, missing = [], 0
    for i, process in enumerate(run):
        found = ask_once_gone(cache, process.pid)
        if found is None or found.cmdline is None:
            missing += 1
        elif found.cmdline[2] != f"echo {i} >/dev/udp/127.0.0.1/9" or found.ppid != os.getpid():
            wrong.append(found)
    assert not wrong
    # Read before they ran, where a thread may wait on each processor.
    assert missing <= (0 if events.processors else 36) and events.unread >= missing


def test_a_thread_reads_on_each_processor(events):
    if not events.realtime:
        pytest.skip("SCHED_FIFO is not permitted here (CAP_SYS_NICE)")
    allowed = {thread.name: os.sched_getaffinity(thread.native_id) for thread in threading.enumerate()
               if thread.name.startswith("nfct-exec/")}
    assert allowed == {f"nfct-exec/{processor}": {processor} for processor in os.sched_getaffinity(0)}
    assert events.processors == len(allowed)
    for thread in threading.enumerate():
        if thread.name in allowed:
            assert os.sched_getscheduler(thread.native_id) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO


def test_subshell_sends_under_the_shells_command_line(events, cache):
    # The subshell is a fork of the shell without execve, and ends at once.
    out = subprocess.run(["bash", "-c", "(echo $BASHPID; exec 9>/dev/udp/127.0.0.1/9; echo x >&9); sleep 0.05"],
                         stdout=subprocess.PIPE, text=True)
    found = ask_once_gone(cache, int(out.stdout))
    assert found.cmdline[0] == "bash" and "BASHPID" in found.cmdline[2]


def test_exec_chain_is_told_apart_by_time(events, cache):
    script = f"read a; exec {sys.executable} -c 'input(); import os; os.execlp(\"cat\", \"cat\", \"-u\")'"
    before = time.monotonic_ns()
    with subprocess.Popen(["bash", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        pid = running.pid
        try:
            stages = []
            for name in ("bash", sys.executable, "cat"):
                wait_for(lambda: (cache.lookup(pid).cmdline or ("",))[0] == name)
                stages.append((name, time.monotonic_ns()))
                if name != "cat":
                    running.stdin.write(b"\n")
                    running.stdin.flush()
            for name, when in stages * 2:
                assert settled(cache, pid, when).cmdline[0] == name
            assert cache.known_at(pid, before) is None
        finally:
            running.kill()
    for name, when in stages:
        assert settled(cache, pid, when).cmdline[0] == name
    wait_for(lambda: cache.known_at(pid, time.monotonic_ns(), 0.1) is None)


def test_other_ids_after_setuid_without_exec(events, cache):
    read, write = os.pipe()

    def work():
        os.write(write, struct.pack("q", time.monotonic_ns()))
        os.setresgid(4322, 4322, 4322)
        os.setresuid(4321, 4321, 4321)
        os.write(write, struct.pack("q", time.monotonic_ns()))

    cache.lookup(os.getpid())
    pid = forked(work)
    moments = struct.unpack("qq", os.read(read, 16))
    os.close(read)
    os.close(write)
    first, second = (settled(cache, pid, when) for when in moments)
    assert (first.uid, first.gid) == (0, 0)
    assert (second.uid, second.gid) == (4321, 4322)
    assert second.cmdline == first.cmdline


@pytest.mark.skipif(not shutil.which("setpriv"), reason="no setpriv")
def test_program_run_under_another_user(events, cache):
    with subprocess.Popen(["setpriv", "--reuid", "4321", "--clear-groups", "sleep", "0.05"]) as running:
        pass
    found = ask_once_gone(cache, running.pid)
    assert (found.uid, found.cmdline) == (4321, ("sleep", "0.05"))


def test_name_a_process_gives_itself(events, cache):
    read, write = os.pipe()

    def work():
        with open("/proc/self/comm", "w") as file:
            file.write("called (so) x")
        os.write(write, b"x")

    cache.lookup(os.getpid())
    pid = forked(work)
    assert ask_once_gone(cache, pid).comm == "called (so) x"
    os.close(read)
    os.close(write)


def test_threads_do_not_appear(events, cache):
    settled(cache, 0)
    tids = []
    for _ in range(50):
        thread = threading.Thread(target=lambda: tids.append(threading.get_native_id()))
        thread.start()
        thread.join()
    settled(cache, 0)
    assert len(tids) == 50 and all(cache.last_known(tid) is None for tid in tids)


def test_main_thread_that_left_others_behind(events, cache):
    script = ("import ctypes, threading, time, sys; "
              "threading.Thread(target=lambda: (time.sleep(.1), print(flush=True), time.sleep(60))).start(); "
              "ctypes.CDLL(None).pthread_exit(None)")
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as running:
        try:
            wait_for(lambda: open(f"/proc/{running.pid}/stat").read().rsplit(")")[-1].split()[0] == "Z")
            known = settled(cache, running.pid)
            assert known is not None and known.cmdline[2] == script
            assert cache.lookup(running.pid).cmdline[2] == script
        finally:
            running.kill()


def test_process_from_before_the_start(cache):
    with subprocess.Popen(["sleep", "60"]) as running:
        try:
            wait_for(lambda: os.readlink(f"/proc/{running.pid}/exe").endswith(("sleep", "coreutils", "busybox")))
            early = time.monotonic_ns()
            with ProcEvents(cache):
                time.sleep(2 / HZ)    # its start is known to a tick
                now = time.monotonic_ns()
                assert settled(cache, running.pid, now).cmdline == ("sleep", "60")
                # Nobody watched then: it may have been another program.
                assert cache.known_at(running.pid, early, 0.01) is None
        finally:
            running.kill()


def test_lost_messages_cost_knowledge_and_no_truth(cache):
    # Room for some 170 messages, and nobody reads while 200 processes come and go.
    events = ProcEvents(cache, receive_buffer=64 << 10)
    told, tell = os.pipe()
    try:
        cache.lookup(os.getpid())
        pid = os.fork()
        if pid == 0:
            os.read(told, 1)
            os.execlp("sleep", "sleep", "60")
        events.poll()
        before = time.monotonic_ns()
        events.poll()
        name = cache.known_at(pid, before).cmdline
        assert name == cache.lookup(os.getpid()).cmdline and events.lost == 0
        started = [forked(lambda: None) for _ in range(200)]
        os.write(tell, b"x")
        wait_for(lambda: open(f"/proc/{pid}/comm").read() == "sleep\n")
        during = time.monotonic_ns()
        events.poll()
        assert events.lost > 0 and events.overruns > 0
        assert cache.known_at(pid, before).cmdline == name
        assert cache.known_at(pid, during) is None
        after = time.monotonic_ns()
        for _ in range(2):
            assert cache.lookup(pid).cmdline == ("sleep", "60")
            time.sleep(0.01)
            events.poll()
        assert cache.known_at(pid, after).cmdline == ("sleep", "60")
        assert cache.known_at(pid, during) is None
        assert all(cache.known_at(child, during) is None for child in started)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(told)
        os.close(tell)
        events.close()


def test_stop_and_start_again_leaks_nothing(cache):
    fds, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(20):
        with ProcEvents(cache) as events:
            pid = forked(lambda: None)
            assert ask_once_gone(cache, pid).pid == pid
        with pytest.raises(ValueError):
            events.fileno()
        events.close()
    ProcEvents(cache).close()
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == (fds, threads)
    assert cache.known_at(pid, time.monotonic_ns()) is None


def test_privileges_that_cannot_be_given_up_are_an_error(cache):
    def refused():
        raise PermissionError(errno.EPERM, "no")

    events = ProcEvents(cache)
    with pytest.raises(PermissionError, match="its thread cannot begin"):
        events.start(settled=refused)
    assert events.failed == errno.EPERM
    events.close()
    assert cache.known_at(os.getpid(), time.monotonic_ns()) is None


def test_two_listeners(cache):
    other = ProcessCache()
    with ProcEvents(cache):
        with ProcEvents(other):
            pid = forked(lambda: None)
            assert ask_once_gone(cache, pid) == ask_once_gone(other, pid) is not None
        pid = forked(lambda: None)
        assert ask_once_gone(cache, pid) is not None and other.last_known(pid) is None


def test_from_another_network_namespace(cache):
    def work():
        assert ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) == 0
        home = os.stat("/proc/thread-self/ns/net").st_ino
        with ProcEvents(cache):
            stayed = os.stat("/proc/thread-self/ns/net").st_ino == home
            pid = forked(lambda: None)
            result.append((stayed, ask_once_gone(cache, pid).pid == pid))

    result = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert result == [(True, True)]


@pytest.mark.skipif(not shutil.which("unshare"), reason="no unshare")
@pytest.mark.parametrize("options", [["--pid", "--fork"], ["--user", "--map-root-user"]])
def test_another_pid_or_user_namespace_is_refused_with_the_reason(options):
    script = ("from nfct_fast.procevents import ProcEvents\nfrom nfct_fast.processcache import ProcessCache\n"
              "try:\n ProcEvents(ProcessCache())\nexcept OSError as e:\n print(e)\n")
    done = subprocess.run(["unshare", *options, sys.executable, "-c", script], text=True, capture_output=True,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert "proc connector" in done.stdout and ("initial" in done.stdout or "CAP_NET_ADMIN" in done.stdout), done


TELLER = r"""
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
static void tell(char who, const char *name) {
    struct timespec t;
    char line[80];
    clock_gettime(CLOCK_MONOTONIC, &t);
    int n = snprintf(line, sizeof line, "%c %d %lld %s\n", who, getpid(), t.tv_sec * 1000000000LL + t.tv_nsec, name);
    if (write(1, line, n) != n) _exit(9);
}
int main(int argc, char **argv) {
    int left = atoi(argv[1]);
    char next[16];
    tell('p', argv[1]);
    if (fork() == 0) { tell('c', argv[1]); _exit(0); }
    if (left % 2) wait(NULL);
    tell('p', argv[1]);
    snprintf(next, sizeof next, "%d", left - 1);
    if (left % 1000) execl(argv[0], argv[0], next, NULL);
    while (wait(NULL) > 0) ;
    return 0;
}
"""


@pytest.mark.skipif(not (shutil.which("cc") or shutil.which("clang")), reason="no C compiler")
@pytest.mark.parametrize("realtime", [True, False])
def test_what_processes_say_of_themselves(tmp_path, cache, realtime):
    """Chains of execve and forks, each of which says who it is and when: no answer may differ, and few be missing."""
    events = ProcEvents(cache)
    events.start(realtime=realtime)
    (tmp_path / "t.c").write_text(TELLER)
    program = str(tmp_path / "t")
    subprocess.run([shutil.which("cc") or "clang", "-O1", "-o", program, str(tmp_path / "t.c")], check=True)
    asked = threading.Event()
    pids = []

    def others_ask():
        while not asked.is_set():
            for pid in pids[-3:]:
                cache.lookup(pid)

    thread = threading.Thread(target=others_ask)
    thread.start()
    said = b""
    try:
        for round in range(1, 13):
            chains = []
            for n in range(3):
                chains.append(subprocess.Popen([program, str(round * 1000 + n * 100 + 3)], stdout=subprocess.PIPE))
                pids.append(chains[-1].pid)
            time.sleep(0.01)
            for chain in chains:
                chain.kill()    # in the midst of it
                said += chain.communicate()[0]
    finally:
        asked.set()
        thread.join()
    lines = [line.split() for line in said.decode().splitlines() if line.count(" ") == 3]
    settled(cache, 0)
    programs = {}
    for _, pid, _, name in lines:
        programs.setdefault(pid, {})[name] = None
    kept = {(pid, name) for pid, names in programs.items() for name in list(names)[-6:]}    # of eight: see processtable
    wrong, missing = [], 0
    for who, pid, when, name in lines:
        found = cache.known_at(int(pid), int(when))
        if found is None or found.cmdline is None:
            missing += (pid, name) in kept
        elif found.cmdline != (program, name):
            wrong.append((who, pid, when, name, found.cmdline))
    assert not wrong
    assert len(lines) > 300
    # One thread alone comes too late for many, and is asked for no more than the truth.
    assert not events.processors or missing < len(kept) // 20, (missing, len(kept))
    events.close()


# Messages made here, against a /proc of files.

def message(what, when, *numbers, ack=0, cpu=0, idx=1, val=1, rest=b""):
    body = struct.pack(f"=IIQ{len(numbers)}I", what, cpu, when, *numbers) + rest
    body += bytes(40 - len(body))
    return struct.pack("=IHHII", 36 + len(body), 3, 0, 0, 0) + struct.pack("=IIIIHH", idx, val, 0, ack, len(body), 0) + body


@pytest.fixture
def told(tmp_path):
    """A cache over a /proc of files, and ProcEvents that is only told what a test says."""
    cache = ProcessCache(tmp_path, limit=8192, max_age=3600, linger=3600)
    events = ProcEvents(cache)
    yield cache, events
    events.close()


def ticks(when):
    offset = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
    return (when + offset) * HZ // 10**9


def fork(events, parent, child):
    when = time.monotonic_ns()
    assert events.feed(message(FORK, when, parent, parent, child, child))
    return when


def later(events):
    """What was read just before an event may belong behind it: lets that time pass."""
    time.sleep(0.01)
    assert events.feed(message(EXIT, time.monotonic_ns(), 9, 9))


def test_pid_used_again_is_told_by_time(tmp_path, told):
    cache, events = told
    pid, spans = 2**22 + 5, []
    for name in (b"one", b"two", b"three"):
        born = fork(events, 2**22 + 1, pid)
        fake_process(tmp_path, pid, cmdline=name + b"\0", start=ticks(born))
        turned = time.monotonic_ns()
        assert events.feed(message(EXEC, turned, pid, pid))
        spans.append((name.decode(), born, turned, time.monotonic_ns()))
        shutil.rmtree(tmp_path / str(pid))
        assert events.feed(message(EXIT, time.monotonic_ns(), pid, pid, 0, 17))
        after = time.monotonic_ns()
        events.feed(message(EXIT, after + 1, 9, 9))
        assert cache.known_at(pid, after) is None
    for name, born, turned, seen in spans:
        assert cache.known_at(pid, seen).cmdline == (name,)
        assert cache.known_at(pid, turned).cmdline == (name,)
        assert cache.known_at(pid, turned - 1).cmdline is None    # its parent was not to be seen
        assert cache.known_at(pid, born - 1) is None


def test_gone_before_it_was_read_has_no_command_line(tmp_path, told):
    cache, events = told
    parent, pid = 2**22 + 1, 2**22 + 2
    fake_process(tmp_path, parent, cmdline=b"shell\0", start=1)
    cache.lookup(parent)
    fork(events, parent, pid)
    time.sleep(0.001)
    inherited = time.monotonic_ns()
    assert events.feed(message(EXEC, time.monotonic_ns(), pid, pid))
    found = cache.last_known(pid)
    assert (found.ppid, found.uid, found.cmdline, found.exe, found.comm) == (parent, 7, None, None, "")
    assert cache.known_at(pid, inherited).ppid == parent
    assert events.unread == 1


def test_read_before_it_is_told_of_exec_is_the_new_program(tmp_path, told):
    cache, events = told
    parent, pid = 2**22 + 1, 2**22 + 2
    born = fork(events, parent, pid)
    turned = time.monotonic_ns()
    fake_process(tmp_path, pid, cmdline=b"new\0", start=ticks(born))
    assert cache.lookup(pid).cmdline == ("new",)
    # The event is still to come: nobody can say since when it has been this.
    assert cache.known_at(pid, turned - 1) is None and cache.known_at(pid, turned + 1) is None
    assert events.feed(message(EXEC, turned, pid, pid))
    later(events)
    assert cache.known_at(pid, turned - 1) is None
    assert cache.known_at(pid, turned).cmdline == ("new",)


@pytest.mark.parametrize("ended", [False, True])
def test_a_reading_that_was_overtaken_by_what_it_was_told(tmp_path, told, ended):
    """Who read a process was kept from saying so until its execve, or exit, had been told of."""
    cache, events = told
    pid, born = 2**22 + 2, time.monotonic_ns()
    before = fake_process(tmp_path, pid, cmdline=b"", start=ticks(born))
    (before / "cmdline").unlink()
    os.mkfifo(before / "cmdline")
    slow = threading.Thread(target=cache.known_at, args=(pid, time.monotonic_ns(), 0.1), daemon=True)
    slow.start()
    time.sleep(0.2)
    before = before.rename(tmp_path / "before")
    turned = time.monotonic_ns()
    fake_process(tmp_path, pid, cmdline=b"new\0", start=ticks(born), addresses=(2, 2, 0, 0))
    assert events.feed(message(EXEC, turned, pid, pid))
    if ended:
        shutil.rmtree(tmp_path / str(pid))
        assert events.feed(message(EXIT, time.monotonic_ns(), pid, pid, 0, 17))
    with open(os.open(before / "cmdline", os.O_WRONLY | os.O_NONBLOCK), "wb") as file:      # it does wait there
        file.write(b"old\0")
    slow.join(10)
    assert not slow.is_alive()
    later(events)
    assert cache.last_known(pid).cmdline == ("new",)
    if ended:
        assert cache.known_at(pid, time.monotonic_ns()) is None
    fork(events, pid, pid + 1)
    later(events)
    found = cache.known_at(pid + 1, time.monotonic_ns())
    assert found is None or found.cmdline == ("new",)


def test_child_given_what_its_parent_became_after_the_fork(tmp_path, told):
    cache, events = told
    parent, pid = 2**22 + 1, 2**22 + 2
    born = fork(events, 2**22, parent)
    forked_at = time.monotonic_ns()
    turned = forked_at + 1
    time.sleep(0.001)
    # By the time the fork is heard, the parent is another program already.
    fake_process(tmp_path, parent, cmdline=b"became\0", start=ticks(born))
    cache.started(parent)
    assert events.feed(message(FORK, forked_at, parent, parent, pid, pid))
    assert events.feed(message(EXEC, turned, parent, parent))
    later(events)
    found = cache.known_at(pid, forked_at + 1)
    assert found is None or found.cmdline is None
    assert cache.known_at(parent, turned + 1).cmdline == ("became",)
    assert cache.last_known(pid) is None or cache.last_known(pid).cmdline is None


def test_history_is_bounded(tmp_path):
    cache = ProcessCache(tmp_path, limit=64, bytes_limit=64 << 10)
    events = ProcEvents(cache)
    try:
        for pid in range(2**22, 2**22 + 20000):
            when = time.monotonic_ns()
            events.feed(message(FORK, when, 1, 1, pid, pid))
            events.feed(message(EXEC, when + 1, pid, pid))
            events.feed(message(EXIT, when + 2, pid, pid))
        assert len(cache) <= 64 and cache.bytes <= 64 << 10
        for _ in range(100):
            events.feed(message(EXEC, time.monotonic_ns(), 77, 77))
        assert len(cache) <= 64 and cache.last_known(2**22 + 19999)
    finally:
        events.close()


@pytest.mark.parametrize("data", [
    b"", b"\0" * 35, b"\0" * 76, message(FORK, 1, 1, 1, 2, 2)[:50],
    message(FORK, 1, 1, 1, 2, 2, idx=2), message(FORK, 1, 1, 1, 2, 2, val=7),
    struct.pack("=I", 500) + message(FORK, 1, 1, 1, 2, 2)[4:],
])
def test_what_is_no_message(told, data):
    cache, events = told
    assert events.feed(data) is False and len(cache) == 0


def test_unknown_events_and_threads_are_skipped(told):
    cache, events = told
    for what in (NONE, 0x80, 0x100, 0x400, 0x40000000):
        assert events.feed(message(what, 5, 6, 6))
    events.feed(message(FORK, 5, 6, 6, 8, 7))
    events.feed(message(EXEC, 5, 8, 7))
    assert len(cache) == 0


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([FORK, EXEC, UID, GID, COMM, EXIT]), st.integers(0, 2**64 - 1),
                          st.lists(st.integers(1, 6) | st.integers(0, 2**32 - 1), min_size=4, max_size=6)), max_size=30),
       st.lists(st.binary(max_size=120)))
def test_random_messages_never_crash(tmp_path_factory, wellformed, raw):
    cache = ProcessCache(tmp_path_factory.getbasetemp(), limit=16)
    events = ProcEvents(cache)
    try:
        for what, when, numbers in wellformed:
            assert events.feed(message(what, when, *numbers))
            assert len(cache) <= 16
        for data in raw:
            events.feed(data)
    finally:
        events.close()
