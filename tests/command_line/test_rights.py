"""The privileges that the running program and its helper processes keep: none is root, and none can become root."""

import functools
import os
import platform
import pwd
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.cli import PROGRAM, inside, until
from support.cli import Program as AnyProgram
from support.containers import wire_through
from support.netns import made

Program = functools.partial(AnyProgram, command=PROGRAM)
NET_ADMIN, SYS_PTRACE, SYS_ADMIN, DAC_READ_SEARCH = 12, 19, 21, 2
filtered = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "aarch64"), reason="no table of this machine's system calls"
)
pytestmark = filtered


def mask(*capabilities):
    return sum(1 << number for number in capabilities)


ALL = mask(NET_ADMIN, SYS_PTRACE, SYS_ADMIN, DAC_READ_SEARCH)
MODES = {"auto": mask(NET_ADMIN, SYS_PTRACE), "off": mask(NET_ADMIN)}
APART = {"nfct-holders": mask(SYS_PTRACE, DAC_READ_SEARCH), "nfct-netns": mask(SYS_ADMIN, NET_ADMIN)}


def status(path):
    return dict(line.split(":\t", 1) for line in Path(path, "status").read_text().splitlines() if ":\t" in line)


def threads(pid):
    return [status(path) for path in Path(f"/proc/{pid}/task").iterdir()]


def children(pid):
    return [
        int(child) for path in Path(f"/proc/{pid}/task").iterdir() for child in (path / "children").read_text().split()
    ]


def rights(of):
    """Return a thread's ids, its capability sets, and its other restrictions."""
    return {
        "uid": {*of["Uid"].split()},
        "gid": {*of["Gid"].split()},
        "groups": of["Groups"].split(),
        "effective": int(of["CapEff"], 16),
        "permitted": int(of["CapPrm"], 16),
        "inheritable": int(of["CapInh"], 16),
        "bounding": int(of["CapBnd"], 16),
        "ambient": int(of["CapAmb"], 16),
        "no_new_privs": of["NoNewPrivs"],
        "seccomp": of["Seccomp"],
    }


def expected(capabilities, user="nobody"):
    entry = pwd.getpwnam(user)
    return {
        "uid": {str(entry.pw_uid)},
        "gid": {str(entry.pw_gid)},
        "groups": [],
        "effective": capabilities,
        "permitted": capabilities,
        "inheritable": 0,
        "bounding": capabilities,
        "ambient": 0,
        "no_new_privs": "1",
        "seccomp": "2",
    }


def dropped_rights(pid):
    """The rights of each thread, once every thread has dropped its own (which the seccomp filter shows)."""
    until(lambda: all(one["Seccomp"] == "2" for one in threads(pid)), what="the filter of every thread")
    return [rights(one) for one in threads(pid)]


def default_user():
    try:
        return pwd.getpwnam("nfct-fast").pw_name
    except KeyError:
        return "nobody"


def send(netns, port):
    """Send a datagram from a new process, and return that."""
    sender = subprocess.Popen(
        inside(
            netns,
            [
                sys.executable,
                "-c",
                f"import socket; s = socket.socket(2, 2); s.sendto(b'x', ('127.0.0.1', {port})); input()",
            ],
        ),
        stdin=subprocess.PIPE,
    )
    return sender


@pytest.mark.parametrize("attribution", MODES)
def test_rights_of_every_thread(tracked, attribution):
    with Program(tracked, "-p", "udp", "--attribution", attribution) as program:
        found = dropped_rights(program.pid)
        assert len(found) == (2 if attribution == "off" else 4)
        for one in found:
            assert one == expected(MODES[attribution], default_user())


@pytest.mark.parametrize("attribution", ["auto", "off"])
def test_rights_while_namespaces_are_followed(tracked, attribution):
    """A namespace that appears later is monitored, with the flows it had before, by sockets that nfct-netns opened."""
    with Program(
        tracked, "--netns", "all", "-p", "ipv4/udp", "--attribution", attribution, "-f", "{ev.netns} {ev.dport}"
    ) as program:
        for one in dropped_rights(program.pid):
            assert one == expected(MODES["auto"], default_user())
        found = {status(f"/proc/{child}")["Name"]: child for child in children(program.pid)}
        assert rights(status(f"/proc/{found['nfct-netns']}")) == expected(APART["nfct-netns"], default_user())
        rules = "table ip see { chain c { type filter hook output priority 0; ct state new; }; }"
        with made() as later:
            inode = os.stat(f"/run/netns/{later}").st_ino
            subprocess.run(inside(later, ["nft", rules]), check=True)
            with send(later, 4321) as sender:
                until(lambda: f"{inode} 4321" in program.lines, what="a flow of a namespace that came later")
                sender.communicate(b"\n")


def test_rights_of_each_process(tracked):
    """The helper that reads command lines is made when it is needed, by a thread that has given up its rights."""
    with Program(tracked, "-p", "udp", "--attribution", "diag") as program:
        dropped_rights(program.pid)
        with send(tracked, 4321) as sender:
            program.await_lines(1)
            sender.communicate(b"\n")
        found = {status(f"/proc/{child}")["Name"]: child for child in children(program.pid)}
        for name, capabilities in APART.items():
            pid = found.pop(name)
            assert dropped_rights(pid) == [expected(capabilities, default_user())]
            for fd in os.listdir(f"/proc/{pid}/fd"):
                opened = os.readlink(f"/proc/{pid}/fd/{fd}")
                assert opened.startswith(("/dev/null", "/proc", "socket:")) or "/cgroup" in opened or opened == "/", (
                    opened
                )
        assert list(found) == ["nfct-cmdline"]
        assert rights(status(f"/proc/{found['nfct-cmdline']}")) == expected(MODES["auto"], default_user())
    until(lambda: not any(Path(f"/proc/{child}").exists() for child in found.values()), what="the end of its processes")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_is_left(tracked, number):
    """However the program ends, and even if its helpers get the same signals, as the processes of a service do."""
    with Program(tracked, "-p", "udp") as program:
        dropped_rights(program.pid)
        apart = [child for child in children(program.pid) if status(f"/proc/{child}")["Name"] in APART]
        assert len(apart) == len(APART)
        for child in apart:
            os.kill(child, signal.SIGTERM)
            assert status(f"/proc/{child}")["State"][0] == "S"
        program.end(number)
        until(lambda: not any(Path(f"/proc/{child}").exists() for child in apart), what="the end of its processes")


@pytest.mark.parametrize("name", APART)
def test_a_process_that_is_killed_ends_the_program(tracked, name):
    with Program(tracked, "-p", "udp") as program:
        dropped_rights(program.pid)
        (victim,) = [child for child in children(program.pid) if status(f"/proc/{child}")["Name"] == name]
        os.kill(victim, signal.SIGKILL)
        assert program.wait() == 1
        assert [line for line in program.complaints if "has ended" in line]


INSIDE = """
import ctypes, errno, os, subprocess, sys, threading
from nfct_fast import Conntrack
from nfct_fast.kernel.program_user import find_user
from nfct_fast.rights import Rights
libc = ctypes.CDLL(None, use_errno=True)
found = []

def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)

class Attacked(Rights):
    def drop(self):
        super().drop()
        for what in {attacks}:
            try:
                what()
            except OSError as error:
                found.append((threading.get_native_id(), error.errno))
            else:
                found.append((threading.get_native_id(), 0))

rights = Attacked(user=find_user(), filter_calls=True, use_helpers=True)
with Conntrack(protocol="udp", drop_privileges=rights) as conntrack:
    rights.drop()
    conntrack.read(timeout=0.5)
assert len({{thread for thread, _ in found}}) == 4 and len(found) == 4 * len({attacks}), found
assert {{error for _, error in found}} <= {{errno.EPERM, errno.EACCES}}, found
assert rights.reasons == [], rights.reasons
print("done")
"""
ATTACKS = {
    "read": "lambda: os.open('/etc/shadow', os.O_RDONLY), lambda: os.open('/proc/1/root/etc/shadow', os.O_RDONLY), "
    "lambda: os.open('/proc/1/environ', os.O_RDONLY), lambda: os.listdir('/proc/1/fd'), lambda: os.listdir('/root')",
    "write": "lambda: os.open('/etc/cron.d/nfct', os.O_WRONLY | os.O_CREAT), "
    "lambda: os.open('/proc/sys/kernel/core_pattern', os.O_WRONLY)",
    "run": "lambda: os.execv('/bin/true', ['true']), lambda: os.posix_spawn('/bin/true', ['true'], {}), os.fork",
    "socket": "lambda: __import__('socket').socket(16, 3), lambda: __import__('socket').socket()",
    "trace": "lambda: call('ptrace', 16, os.getppid(), 0, 0), lambda: call('process_vm_readv', 1, None, 0, None, 0, 0)",
    "enter": "lambda: call('setns', os.open('/proc/1/ns/mnt', os.O_RDONLY), 0x20000), "
    "lambda: call('setns', os.open('/proc/1/ns/net', os.O_RDONLY), 0x40000000), lambda: call('unshare', 0x10000000)",
    "mount": "lambda: call('mount', b'a', b'/mnt', b'tmpfs', 0, None), lambda: os.chroot('/tmp')",
    "bpf": "lambda: call('syscall', 321 if os.uname().machine == 'x86_64' else 280, 5, None, 0)",
    "signal": "lambda: os.kill(os.getppid(), 9), lambda: os.kill(-1, 0)",
    "regain": "lambda: call('syscall', 117 if os.uname().machine == 'x86_64' else 147, 0, 0, 0), "
    "lambda: call('syscall', 116 if os.uname().machine == 'x86_64' else 159, 0, None)",
}


@pytest.mark.parametrize("attacks", ATTACKS)
def test_attacks_from_inside_the_program_fail(tracked, attacks):
    """Run the attacks in each of the program's threads, once they have dropped their rights."""
    run_inside(tracked, INSIDE.format(attacks="(" + ATTACKS[attacks] + ",)"))


@pytest.mark.parametrize("attribution", ["auto", "diag", "proc"])
def test_owners_are_found(tracked, attribution):
    with Program(
        tracked, "-p", "ipv4/udp", "--attribution", attribution, "-f", "{ev.dport} {info.pid} {info.exe} {info.cmdline}"
    ) as program:
        dropped_rights(program.pid)
        with send(tracked, 4321) as sender:
            program.await_lines(1)
            sender.communicate(b"\n")
        (line,) = program.lines
        assert (
            line.split(" ")[:3] == ["4321", str(sender.pid), os.readlink("/proc/self/exe")] and "import socket" in line
        )
        assert program.end()[0] == 0
        assert program.complaints == []


@pytest.fixture
def user():
    """A new user that owns nothing else."""
    name = f"nfct-{os.getpid()}"
    subprocess.run(["useradd", "--system", "--no-create-home", "--shell", "/bin/false", name], check=True)
    yield name
    subprocess.run(
        ["userdel", "--force", name], check=True, capture_output=True
    )  # its last processes may be about to end


def test_another_user(tracked, user):
    with Program(tracked, "--user", user) as program:
        for one in dropped_rights(program.pid):
            assert one == expected(MODES["auto"], user)


@pytest.mark.parametrize("arguments", [("--user", "no-such-user"), ("--user", "nobody", "--no-sandbox")])
def test_a_user_that_cannot_be(arguments):
    done = subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, timeout=20)
    assert done.returncode == 2 and done.stderr.count("\n") == 1


def test_without_a_sandbox(tracked):
    with Program(tracked, "-p", "udp", "--no-sandbox") as program:
        until(lambda: {rights(one)["effective"] for one in threads(program.pid)} == {ALL})
        for one in threads(program.pid):
            assert (one["Seccomp"], one["Uid"].split()[0], one["NoNewPrivs"]) == ("0", "0", "1")


def test_who_is_not_root_stays_who_he_is(tracked):
    caps = "+net_admin,+sys_ptrace,+dac_read_search"
    user = ["setpriv", "--reuid=1234", "--regid=1234", "--clear-groups", f"--inh-caps={caps}", f"--ambient-caps={caps}"]
    with Program(tracked, "-p", "udp", prefix=user, env=os.environ | {"HOME": "/"}) as program:
        for one in dropped_rights(program.pid):
            assert (one["uid"], one["effective"], one["seccomp"]) == ({"1234"}, mask(NET_ADMIN, SYS_PTRACE), "2")


def test_a_user_that_the_kernel_refuses(tracked):
    """Without CAP_SETUID the program says so, and drops the rest."""
    prefix = ["setpriv", "--bounding-set=-setuid"]
    with Program(tracked, "-p", "udp", prefix=prefix) as program:
        for one in dropped_rights(program.pid):
            assert one["uid"] == {"0"} and one["effective"] == MODES["auto"]
        until(lambda: program.complaints)
        assert program.complaints == [
            "nfct-fast: still runs as the user who started it: cannot become user 65534, group 65534: "
            "Operation not permitted"
        ]


def test_others_of_its_user_cannot_look_into_it(tracked):
    """A process of the same user can signal it, but neither trace it nor read its memory."""
    with Program(tracked, "-p", "udp") as program:
        dropped_rights(program.pid)
        code = f"""
import ctypes, os
os.setgroups([]); os.setgid(65534); os.setuid(65534)
libc = ctypes.CDLL(None, use_errno=True)
assert libc.ptrace(16, {program.pid}, 0, 0) < 0 and ctypes.get_errno() == 1
for name in ("mem", "environ", "maps", "fd/1", "exe"):
    try:
        os.open(f"/proc/{program.pid}/{{name}}", os.O_RDONLY)
    except PermissionError:
        continue
    raise AssertionError(name)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert program.end(signal.SIGTERM)[0] == 0


# Attacks from inside a helper process: `attack` runs there in place of the helper's work.
APART_CODE = """
import array, ctypes, errno, functools, os, socket, struct, sys
from nfct_fast.namespaces import opener
from nfct_fast.sockets import holder_search
from nfct_fast.kernel.program_user import find_user
from nfct_fast.rights import Rights
libc = ctypes.CDLL(None, use_errno=True)
rights = Rights(user=find_user(), filter_calls=True, use_helpers=True)

def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)

def attack(fd):
    for what in {attacks}:
        try:
            what()
            os.write(fd, struct.pack("i", 0))
        except OSError as error:
            os.write(fd, struct.pack("i", error.errno))
        except BaseException:
            os.write(fd, struct.pack("i", -1))
    os.write(fd, b"end")

pid, fd = rights.spawn_helper("nfct-attacked", lambda: attack, {keep}, {enters})
found = []
while len(data := os.read(fd, 4)) == 4:
    found.append(*struct.unpack("i", data))
assert data == b"end" and len(found) == len({attacks}), (data, found)
assert set(found) <= {{errno.EPERM, errno.EACCES}}, found
print("done")
"""
NOT_APART = {what: attacks for what, attacks in ATTACKS.items() if what not in ("read", "enter", "socket")} | {
    "enter": "lambda: call('setns', os.open('/proc/self/ns/mnt', os.O_RDONLY), 0x20000), "
    "lambda: call('unshare', 0x10000000)",
    "network": "lambda: socket.socket(), lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
}


def run_inside(netns, code):
    done = subprocess.run(
        inside(netns, [sys.executable, "-c", code]),
        capture_output=True,
        text=True,
        timeout=30,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


@pytest.mark.parametrize("attacks", NOT_APART)
@pytest.mark.parametrize(
    ("keep", "enters"), [(("sys_admin", "net_admin"), True), (("dac_read_search", "sys_ptrace"), False)]
)
def test_attacks_from_inside_a_helper_process_fail(tracked, attacks, keep, enters):
    run_inside(tracked, APART_CODE.format(attacks="(" + NOT_APART[attacks] + ",)", keep=keep, enters=enters))


def test_files_from_inside_nfct_netns(tracked):
    attacks = (
        "(lambda: os.open('/etc/passwd', os.O_RDONLY), lambda: os.open('/proc/self/root/etc/passwd', os.O_RDONLY), "
        "lambda: os.open('/proc/1/environ', os.O_RDONLY), lambda: os.listdir('/'))"
    )
    run_inside(tracked, APART_CODE.format(attacks=attacks, keep=("sys_admin",), enters=True))


# Requests of a program that has been taken over to nfct-netns, which must open nothing but netlink sockets and tables
# of /proc/net.
ASKED_WRONGLY = """
import array, errno, functools, os, socket, struct
from nfct_fast.namespaces import opener
from nfct_fast.kernel.program_user import find_user
from nfct_fast.rights import Rights
rights = Rights(user=find_user(), filter_calls=True, use_helpers=True)

def ask(*passed, protocol=-1, table=b"", size=28):
    pid, fd = rights.spawn_helper("nfct-netns", functools.partial(opener._prepare, b"/proc"), ("sys_admin",), True)
    with socket.socket(fileno=fd) as end:
        message = struct.pack("=IIi16s", 7, 0, protocol, table)[:size]
        end.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", passed))] if passed else [])
        data, control, _, _ = end.recvmsg(64, 1024)
        for _, _, fds in control:
            for one in array.array("i", fds):
                return os.readlink(f"/proc/self/fd/{one}")
        return struct.unpack("=Ii", data)[1] if data else None

own = os.open("/proc/self/ns/net", os.O_RDONLY)
assert ask(own, protocol=0).startswith("socket:"), ask(own, protocol=0)
assert ask(own, table=b"udp").endswith("/net/udp")
for table in (
    b"../status", b"../../../../../etc/passwd", b"/etc/passwd", b"stat/nf_conntrack", b"", b"." * 16, b"a" * 16,
    b"a\\xff", b"UDP",
):
    assert ask(own, table=table) in (-errno.EINVAL, -errno.EACCES, -errno.ENOENT, -errno.ENOTDIR), table
assert ask(protocol=0) == -errno.EINVAL
assert ask(os.open("/etc/passwd", os.O_RDONLY), protocol=0) == -errno.EINVAL
assert ask(os.open("/proc/self/ns/mnt", os.O_RDONLY), protocol=0) == -errno.EINVAL
assert ask(own, protocol=0, size=27) is None and ask(own, protocol=1 << 20) < 0
# Larger maps for the notes: of two kinds, and only where there is one for them to be put into.
for kind, entries in (-2, 1024), (-3, 1024), (-2, 0), (-2, (1 << 24) + 1), (-4, 1024), (-1 << 31, 1024):
    assert ask(own, protocol=kind, table=struct.pack("=I", entries)) == -errno.EINVAL, (kind, entries)
print("done")
"""


def test_what_nfct_netns_refuses(tracked):
    run_inside(tracked, ASKED_WRONGLY)


def test_nfct_holders_survives_wrong_requests(tracked):
    """It answers malformed requests or ends, and is not led astray."""
    run_inside(
        tracked,
        """
import functools, os, random, socket, struct
from nfct_fast.sockets import holder_search
from nfct_fast.kernel.program_user import find_user
from nfct_fast.rights import Rights
rights = Rights(user=find_user(), filter_calls=True, use_helpers=True)
generator = random.Random(20261127)
prepare = functools.partial(holder_search._prepare, "/proc", 0.2, 0.04)
pid, fd = rights.spawn_helper("nfct-holders", prepare, ("dac_read_search", "sys_ptrace"))
with socket.socket(fileno=fd) as end:
    end.settimeout(5)
    for _ in range(3000):
        question = bytearray(generator.randbytes(56))
        question[4:12] = struct.pack("=II", 0, generator.randrange(5))
        question[40:48] = struct.pack(
            "=ii", generator.choice((-1, 0, 1, 2, os.getpid(), 1 << 31 - 1)), generator.choice((-1, 0, 3, 1 << 30))
        )
        end.send(question)
        answer = end.recv(8192)
        assert len(answer) >= 16 and answer[:4] == question[:4]
assert os.waitpid(pid, 0)[1] == 0
print("done")
""",
    )


def test_a_process_that_is_stopped(tracked):
    """If nfct-holders is stopped, which its user may do, flows are still reported, without the owners it would find."""
    with Program(
        tracked, "-p", "ipv4/udp", "--attribution", "diag", "-f", "{ev.dport} {info.pid} {info.reason}"
    ) as program:
        dropped_rights(program.pid)
        (victim,) = [child for child in children(program.pid) if status(f"/proc/{child}")["Name"] == "nfct-holders"]
        os.kill(victim, signal.SIGSTOP)
        with send(tracked, 4321) as first, send(tracked, 4322) as second:
            until(lambda: {"4321 ? budget", "4322 ? budget"} <= set(program.lines), what="both flows")
            os.kill(victim, signal.SIGCONT)
            with send(tracked, 4323) as third:
                until(lambda: f"4323 {third.pid} -" in program.lines, what="the third, with its owner")
                third.communicate(b"\n")
            os.kill(victim, signal.SIGSTOP)
            assert program.end()[0] == 0
            first.communicate(b"\n")
            second.communicate(b"\n")
        os.kill(victim, signal.SIGKILL)


@pytest.mark.parametrize("attribution", ["auto", "diag", "proc"])
def test_containers_that_come_later(tracked, attribution):
    """nfct-netns, which may, enters their namespaces and opens tables there."""
    with (
        made() as guest,
        Program(
            tracked,
            "-p",
            "ipv4",
            "--attribution",
            attribution,
            "-f",
            "{ev.proto} {ev.src} {info.pid} {info.reason} {info.match}",
        ) as program,
    ):
        dropped_rights(program.pid)
        wire_through(tracked, guest)
        subprocess.run(
            inside(
                tracked, ["nft", "table ip see { chain c { type filter hook forward priority 0; ct state new; }; }"]
            ),
            check=True,
        )
        sender = subprocess.Popen(
            inside(
                guest,
                [
                    sys.executable,
                    "-c",
                    """
import socket, sys
kept = []
for line in sys.stdin:
    kept.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    kept[-1].connect(("10.91.0.2", 9))
    kept[-1].send(bytes(8))
""",
                ],
            ),
            stdin=subprocess.PIPE,
        )

        def named():
            sender.stdin.write(b"\n")
            sender.stdin.flush()
            time.sleep(0.2)  # a socket each time: that of the first may be gone when its namespace is found
            return [line for line in program.lines if line.split()[:3] == ["ipv4/udp", "10.90.0.2", str(sender.pid)]]

        try:
            until(named, what=f"its name ({program.lines[-3:]})")
        finally:
            sender.stdin.close()
            sender.wait()
        assert program.end()[0] == 0


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        ("seccomp", "can still use every system call: seccomp: Invalid argument"),
        ("setresuid", "still runs as the user who started it: cannot become user 65534, group 65534: Invalid argument"),
        (
            "landlock_create_ruleset",
            "can still read every file that its user may read: this kernel has no Landlock, or it is not enabled",
        ),
    ],
)
def test_a_kernel_that_lacks_it(tracked, call, sentence, tmp_path):
    """The program says so, in one line, and drops the rest."""
    strace = [
        "strace",
        "-f",
        "-o",
        str(tmp_path / "calls"),
        "-e",
        f"trace={call}",
        "-e",
        f"inject={call}:error={'EOPNOTSUPP' if 'landlock' in call else 'EINVAL'}",
    ]
    with AnyProgram(tracked, "-p", "udp", command=[*strace, *PROGRAM], ready=False) as program:
        until(lambda: program.complaints, what="what it lacks")
        assert program.complaints == [f"nfct-fast: {sentence}"]
        (pid,) = children(program.pid)
        wanted = expected(MODES["auto"], default_user())
        if call == "seccomp":
            wanted["seccomp"] = "0"
        if call == "setresuid":
            wanted["uid"] = {"0"}
        until(lambda: all(rights(one) == wanted for one in threads(pid)), what="what is left of its rights")
        with send(tracked, 4321) as sender:
            program.await_lines(1)
            sender.communicate(b"\n")
        os.kill(pid, signal.SIGTERM)
        assert program.wait() == 0
