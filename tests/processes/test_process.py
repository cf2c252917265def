"""What /proc says of a process, and the cache of it: pids that are used again, processes that exit, broken files."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfct_fast.processes.process_cache import ProcessCache
from nfct_fast.processes.process_object import Process, process
from nfct_fast.processes.process_reader import ProcessReader
from support.child import Child
from support.cli import until
from support.fake_proc import child, fake_process, fake_stat, write_stat

libc = ctypes.CDLL(None, use_errno=True)


def test_own_facts_are_what_python_knows():
    me = process(os.getpid())
    assert (me.pid, me.ppid, me.uid, me.gid) == (os.getpid(), os.getppid(), os.getuid(), os.getgid())
    assert me.exe == os.readlink("/proc/self/exe")
    with open("/proc/self/cmdline", "rb") as file:
        raw = file.read()
    assert list(map(os.fsencode, me.cmdline)) == raw[:-1].split(b"\0")
    assert me.cmdline_size == len(raw) - 1 and not me.cmdline_cut
    assert me.netns == os.stat("/proc/self/ns/net").st_ino
    assert me == process(os.getpid()) and hash(me) == hash(process(os.getpid()))


def test_start_is_seconds_since_the_epoch():
    before = time.time()
    with child(lambda: None) as pid:
        started = process(pid).start
    assert before - 0.05 < started < time.time() + 0.05


def test_no_process_is_none():
    assert process(2**22 + 1) is None
    assert process(-1) is None
    assert process(0) is None


def test_process_cannot_be_made_by_hand():
    with pytest.raises(TypeError):
        Process()


def test_kernel_thread_has_no_arguments_and_no_exe():
    thread = process(2)
    if thread is None or thread.comm != "kthreadd":
        pytest.skip("not in the initial pid namespace")
    assert thread.cmdline == () and thread.exe is None


def test_thread_id_gives_its_process():
    seen, stop = [], threading.Event()

    def work():
        seen.append(threading.get_native_id())
        stop.wait()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        tid = until(lambda: seen)[0]
        assert tid != os.getpid()
        assert process(tid).pid == os.getpid()
        assert ProcessCache(ProcessReader()).lookup(tid).pid == os.getpid()
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("comm", ["a b", "x) R 1 (y", "))) (((", "a\nb\n", "1 2 3 4 5 6 7 8", "\udcff\udcfe", ")"])
def test_any_name_a_process_gives_itself(comm):
    with child(lambda: libc.prctl(15, os.fsencode(comm), 0, 0, 0)) as pid:
        found = process(pid)
    assert found.comm == comm
    assert found.ppid == os.getpid()
    assert found.start > time.time() - 100


def test_arguments_of_any_bytes_and_a_long_command_line():
    arguments = [
        sys.executable,
        "-c",
        "import time; print(flush=True); time.sleep(60)",
        "",
        "a b\n",
        "\udcff",
        "x" * 130000,
    ]
    with Child(arguments, stdout=subprocess.PIPE) as running:
        try:
            running.stdout.readline()
            whole = sum(len(os.fsencode(a)) + 1 for a in arguments) - 1
            cut = process(running.pid)
            assert cut.cmdline[:-1] == tuple(arguments[:-1]) and set(cut.cmdline[-1]) == {"x"}
            assert sum(len(os.fsencode(a)) + 1 for a in cut.cmdline) - 1 == 4096
            assert cut.cmdline_cut and cut.cmdline_size == whole
            full = process(running.pid, cmdline_limit=1 << 20)
            assert full.cmdline == tuple(arguments) and not full.cmdline_cut and full.cmdline_size == whole
        finally:
            running.kill()


def test_title_written_over_the_arguments_is_one(tmp_path):
    fake_process(tmp_path, 5, cmdline=b"nginx: worker process\0\0\0\0\0\0")
    assert process(5, tmp_path).cmdline == ("nginx: worker process",)


@pytest.mark.root
def test_real_ids_not_effective_ones():
    def work():
        os.setresgid(1234, 0, 0)
        os.setresuid(4321, 0, 0)

    with child(work) as pid:
        found = process(pid)
    assert (found.uid, found.gid) == (4321, 1234)


@pytest.mark.root
def test_without_rights_the_rest_is_still_told():
    def ask():
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        found = process(parent)
        good = (
            found.exe is None
            and found.netns is None
            and found.comm
            and found.cmdline
            and found.uid == 0
            and found.cgroup == cgroup
            and ProcessCache(ProcessReader()).lookup(parent) == found
        )
        os._exit(0 if good else 1)

    parent, cgroup = os.getpid(), process(os.getpid()).cgroup
    pid = os.fork()
    if pid == 0:
        try:
            ask()
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (b"0::/system.slice/a.service\n", "/system.slice/a.service"),
        (b"9:name=systemd:/\n8:memory:/x\n0::/b\n", "/b"),
        (b"1:name=systemd:/docker/1\n0::/system.slice/containerd.service\n", "/docker/1"),
        (b"1:name=systemd:/\n0::/\n", "/"),
        (b"4:cpu,cpuacct:/\n3:name=elogind:/x\n", None),
        (b"0::/a b:c\xff (deleted)\n", "/a b:c\udcff"),
        (b"0::/cut", None),
        (b"0::\n::\n:\n\n0::relative\n", None),
    ],
)
def test_cgroup_of_the_hierarchy_that_says_something(tmp_path, text, path):
    fake_process(tmp_path, 5, cgroup=text)
    assert process(5, tmp_path).cgroup == path


def test_what_is_missing_is_unknown(tmp_path):
    (tmp_path / "5").mkdir()
    assert process(5, tmp_path) is None
    write_stat(tmp_path, 5, fake_stat(5, comm="a) b", ppid=3))
    found = process(5, tmp_path)
    assert (found.comm, found.ppid, found.start_ticks) == ("a) b", 3, 1000)
    assert {
        found.uid,
        found.gid,
        found.exe,
        found.cmdline,
        found.cmdline_size,
        found.cgroup,
        found.netns,
        found.unit,
        found.container,
    } == {None}


def test_no_arguments_is_empty_for_kernel_threads_only(tmp_path):
    fake_process(tmp_path, 5, cmdline=b"")
    fake_process(tmp_path, 6, cmdline=b"", flags=0x208040)
    assert process(5, tmp_path).cmdline is None
    assert process(6, tmp_path).cmdline == ()


def test_status_of_a_thread_group_that_is_its_own_thread_does_not_loop(tmp_path):
    fake_process(tmp_path, 5, status=b"Tgid:\t6\n")
    fake_process(tmp_path, 6, status=b"Tgid:\t5\n")
    assert process(5, tmp_path) is None


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=1200), st.binary(max_size=300), st.binary(max_size=300), st.binary(max_size=300))
def test_random_bytes_never_crash(tmp_path_factory, stat, status, cgroup, cmdline):
    root = tmp_path_factory.mktemp("proc")
    try:
        write_stat(root, 5, stat)
        for name, content in zip(("status", "cgroup", "cmdline"), (status, cgroup, cmdline)):
            (root / "5" / name).write_bytes(content)
        found = process(5, root)
        if found is not None:
            for name in (n for n in dir(found) if not n.startswith("_")):
                getattr(found, name)
    finally:
        shutil.rmtree(root)


@given(
    st.lists(st.sampled_from([b"5 ", b"(", b")", b" S", b" 1", b" -1", b" 99999999999999999999", b"\n", b"\0", b"x"]))
)
def test_broken_stat_lines(tmp_path_factory, pieces):
    root = tmp_path_factory.mktemp("proc")
    write_stat(root, 5, b"".join(pieces))
    process(5, root)
    shutil.rmtree(root)


def test_cache_reads_once_while_nothing_changes():
    cache = ProcessCache(ProcessReader(), max_age=60)
    first = cache.lookup(os.getpid())
    assert all(cache.lookup(os.getpid()) == first for _ in range(100))
    assert (cache.reads, cache.hits) == (1, 100)


def test_cache_notices_execve_in_the_same_process():
    script = (
        "import os, sys; sys.stdin.readline(); os.execv(sys.executable, [sys.executable, '-c', 'input()', 'after'])"
    )
    with Child([sys.executable, "-c", script, "befor"], stdin=subprocess.PIPE, text=True) as running:
        try:
            cache = ProcessCache(ProcessReader(), max_age=60)
            until(lambda: (cache.lookup(running.pid).cmdline or [""])[-1] == "befor")
            started = cache.lookup(running.pid).start_ticks
            running.stdin.write("go\n")
            running.stdin.flush()
            # Amid execve there are no arguments for a moment: unknown, not empty.
            until(lambda: (process(running.pid).cmdline or [""])[-1] == "after")
            assert cache.lookup(running.pid).cmdline[-1] == "after"
            assert cache.lookup(running.pid).start_ticks == started
        finally:
            running.kill()


@pytest.mark.root
def test_cache_notices_rights_being_dropped():
    told, tell = os.pipe()
    ready, done = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(told, 1)
        os.setresuid(4321, 4321, 4321)
        os.write(done, b"x")
        signal.pause()
    try:
        cache = ProcessCache(ProcessReader(), max_age=60)
        assert cache.lookup(pid).uid == 0
        os.write(tell, b"x")
        os.read(ready, 1)
        assert cache.lookup(pid).uid == 4321
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        for fd in (told, tell, ready, done):
            os.close(fd)


def test_cache_tells_a_pid_used_again(tmp_path):
    cache = ProcessCache(ProcessReader(tmp_path), max_age=60)
    fake_process(tmp_path, 5, start=1000, cmdline=b"old\0")
    old = cache.lookup(5)
    fake_process(tmp_path, 5, start=2000, cmdline=b"new\0")
    new = cache.lookup(5)
    assert (old.cmdline, new.cmdline) == (("old",), ("new",)) and old != new


def test_zombie_keeps_what_was_known():
    cache = ProcessCache(ProcessReader(), max_age=0)
    pid = os.fork()
    if pid == 0:
        signal.pause()
    before = cache.lookup(pid)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert cache.lookup(pid).cmdline == before.cmdline != ()
    os.waitpid(pid, 0)
    assert cache.lookup(pid) is None


def test_cache_reads_again_what_cannot_be_seen_to_change(tmp_path):
    cache = ProcessCache(ProcessReader(tmp_path), max_age=0.05)
    fake_process(tmp_path, 5, cmdline=b"old\0")
    assert cache.lookup(5).cmdline == ("old",)
    (tmp_path / "5" / "cmdline").write_bytes(b"new\0")
    assert cache.lookup(5).cmdline == ("old",)
    time.sleep(0.06)
    assert cache.lookup(5).cmdline == ("new",)


def test_cache_has_one_place_for_processes_that_share_it(tmp_path):
    cache = ProcessCache(ProcessReader(tmp_path), max_age=60)
    for pid in (5, 5 + 4096):
        fake_process(tmp_path, pid, cmdline=b"%d\0" % pid)
    for pid in (5, 5 + 4096, 5):
        assert cache.lookup(pid).pid == pid and cache.lookup(pid).cmdline == (str(pid),)
    assert (cache.reads, cache.hits) == (3, 3)


def test_cache_while_processes_come_and_go():
    cache = ProcessCache(ProcessReader())
    for _ in range(100):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        for _ in range(5):
            found = cache.lookup(pid)
            assert found is None or found.pid == pid and found.ppid == os.getpid()
        os.waitpid(pid, 0)
        assert cache.lookup(pid) is None


def test_missing_proc_is_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError):
        ProcessReader(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        process(1, tmp_path / "none")
