"""What a process may still do after it has restricted itself. Each test runs in a process of its own."""

import os
import platform
import subprocess
import sys

import pytest

from nfct_fast.kernel import sandbox
from support.cli import inside

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "aarch64"), reason="no table of this machine's system calls"
)
HEAD = """
import ctypes, errno, mmap, os, signal, socket, subprocess, sys, threading
from nfct_fast.kernel import sandbox
libc = ctypes.CDLL(None, use_errno=True)

def denied(call, *wanted):
    try:
        call()
    except OSError as error:
        assert error.errno in (wanted or (errno.EPERM,)), error
    else:
        raise AssertionError("allowed")

def called(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)
"""


def run(code, prefix=()):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [*prefix, sys.executable, "-c", HEAD + code + "\nprint('done')"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


@pytest.mark.parametrize(
    "code",
    [
        "denied(lambda: open('/tmp/nfct-sandbox', 'w'))",
        "denied(lambda: os.open('/proc/self/comm', os.O_RDWR))",
        "denied(lambda: os.open('/tmp', os.O_RDONLY | os.O_CREAT))",
        "denied(lambda: os.open('/tmp', os.O_TMPFILE | os.O_WRONLY))",
        "denied(lambda: os.mkdir('/tmp/nfct-sandbox'))",
        "denied(lambda: os.unlink('/tmp/nfct-sandbox'))",
        "denied(lambda: os.chmod('/tmp', 0o777))",
        "denied(lambda: os.symlink('a', '/tmp/nfct-sandbox'))",
        "denied(lambda: os.execv('/bin/true', ['true']))",
        "denied(os.fork)",
        "denied(lambda: subprocess.run(['/bin/true']))",
        "denied(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))",
        "denied(lambda: socket.socket(socket.AF_UNIX))",
        "denied(lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))",
        "socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)",
        "denied(lambda: socket.socket(socket.AF_INET))",
        "denied(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))",
        "denied(lambda: os.kill(os.getppid(), 0))",
        "denied(lambda: os.setuid(1))",
        "denied(lambda: os.chroot('/'))",
        "denied(lambda: called('ptrace', 16, os.getppid(), 0, 0))",
        "denied(lambda: called('unshare', 0x10000000))",
        "denied(lambda: called('mount', b'a', b'/mnt', b'tmpfs', 0, None))",
        "denied(lambda: called('setns', 0, 0x40000000))",
        "denied(lambda: called('syscall', {bpf}, 5, None, 0))",
        "denied(lambda: called('syscall', 425, 8, None))",
        "denied(lambda: called('ioctl', 0, 0x5412, b'x'))",
        "denied(lambda: called('fcntl', 0, 8, os.getppid()))",
        "denied(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC))",
        "denied(lambda: called('process_vm_readv', os.getppid(), None, 0, None, 0, 0))",
        "denied(lambda: called('prlimit', os.getpid(), 7, ctypes.create_string_buffer(16), None))",
        "denied(lambda: called('syscall', 435, None, 0), errno.ENOSYS)",
    ],
)
def test_denied(code):
    code = code.replace("{bpf}", "280" if platform.machine() == "aarch64" else "321")
    run(f"subprocess.run(['true'])\nassert sandbox.restrict_calls()\n{code}")


def test_who_draws_sets_the_modes_of_its_terminal():
    run("""
import fcntl, termios
other, own = os.openpty()
sandbox.restrict_calls(terminal=True)
modes = termios.tcgetattr(own)
for when in (termios.TCSANOW, termios.TCSADRAIN, termios.TCSAFLUSH):
    termios.tcsetattr(own, when, modes)
modes = bytearray(44)           # a struct termios2, as glibc 2.42 and newer ask for
fcntl.ioctl(own, 0x802c542a, modes)
for request in (0x402c542b, 0x402c542c, 0x402c542d):
    fcntl.ioctl(own, request, modes)
os.get_terminal_size(own)
denied(lambda: fcntl.ioctl(own, termios.TIOCSTI, b"x"))
denied(lambda: fcntl.ioctl(own, termios.TIOCSCTTY, 0))
denied(lambda: fcntl.ioctl(other, termios.TIOCSWINSZ, bytes(8)))
denied(lambda: open('/tmp/nfct-sandbox', 'w'))
""")
    run("""
import termios
other, own = os.openpty()
sandbox.restrict_calls()
try:
    termios.tcgetattr(own)
except termios.error as error:
    assert error.args[0] == errno.EPERM
else:
    raise AssertionError("allowed")
""")


def test_who_enters_makes_netlink_sockets():
    run("""
sandbox.restrict_calls(setns=True)
with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as made:
    made.bind((0, 0))
denied(lambda: socket.socket(socket.AF_INET))
denied(lambda: socket.socket(socket.AF_UNIX))
""")


def test_other_machines_calls_are_none():
    """The table of 32 bits: its open(2) is another number."""
    if platform.machine() != "x86_64":
        pytest.skip("int 0x80 is of x86")
    run("""
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(b"\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3")       # getpid by int 0x80
call = ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
assert call() == os.getpid()
pid = os.fork()
if pid == 0:
    sandbox.restrict_calls()
    call()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == signal.SIGSYS
""")


def test_all_threads_and_later_ones():
    run("""
go, found = threading.Event(), []
def work():
    go.wait()
    denied(lambda: open("/tmp/nfct-sandbox", "w"))
    denied(os.fork)
    found.append(open("/proc/self/status").read().split("Seccomp:")[1].split()[0])
early = threading.Thread(target=work)
early.start()
sandbox.restrict_calls()
late = threading.Thread(target=work)
late.start()
go.set()
early.join(), late.join()
assert found == ["2", "2"], found
""")


def test_a_thread_can_end():
    """By pthread_exit, for which glibc opens a library, or aborts."""
    run("""
sandbox.restrict_calls()
thread = ctypes.c_ulong()
assert libc.pthread_create(ctypes.byref(thread), None, ctypes.cast(libc.pthread_exit, ctypes.c_void_p), None) == 0
assert libc.pthread_join(thread, None) == 0
""")


def test_what_shares_the_memory_can_be_made_and_no_process():
    """As the helper that reads command lines is; with a new user namespace it is refused."""
    run("""
sandbox.restrict_calls()
number = 220 if os.uname().machine == "aarch64" else 56
for flags in (0x100 | 0x10000000, 0x100 | 0x1000 | 0x10000000, 0x100 | 0x4000 | 17, 0x1000, 17, 0x100 | 17):
    denied(lambda: called("syscall", number, flags, 0, 0, 0, 0))
""")


def test_what_reading_needs_is_allowed(tracked):
    """A listener that restricts itself hears, names and ends as before."""
    run(
        """
import time
from nfct_fast import Conntrack
command = ["bash", "-c", "read; exec 3>/dev/udp/127.0.0.1/4321; echo x >&3; read"]
sender = subprocess.Popen(command, stdin=subprocess.PIPE)
with Conntrack(protocol="udp", attribution="diag") as conntrack:
    sandbox.restrict_calls(setns=True)
    sender.stdin.write(b"\\n")
    sender.stdin.flush()
    flow = conntrack.read(timeout=10)[0]
    assert (flow.dport, flow.owner.pid, flow.owner.match) == (4321, sender.pid, "socket"), (flow, flow.owner)
    conntrack.stats()
    signal.signal(signal.SIGUSR1, lambda *_: None)
    os.kill(os.getpid(), signal.SIGUSR1)
sender.stdin.close()
sender.wait()
""",
        prefix=inside(tracked, []),
    )


def landlock():
    """Return the Landlock version of this kernel, as a child process sees it."""
    done = subprocess.run(
        [sys.executable, "-c", "from nfct_fast.kernel import sandbox; print(sandbox.restrict_files(['/']))"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return int(done.stdout)


@pytest.fixture
def version():
    return landlock() or pytest.skip("this kernel has no Landlock, or it is not enabled")


def test_only_what_is_named_can_be_read(version, tmp_path):
    (tmp_path / "seen").mkdir()
    (tmp_path / "seen" / "file").write_text("yes")
    (tmp_path / "file").write_text("no")
    (tmp_path / "alone").write_text("yes")
    run(f"""
top = {str(tmp_path)!r}
listening = socket.create_server(("127.0.0.1", 0))
opened = open(top + "/file")
assert sandbox.restrict_files(["/proc", top + "/seen", top + "/alone", top + "/missing"]) == {version}
assert open(top + "/seen/file").read() == open(top + "/alone").read() == "yes" and os.listdir(top + "/seen") == ["file"]
assert opened.read() == "no"        # what is open stays open
for path in ("/etc/shadow", "/etc/passwd", top + "/file", top + "/seen/../file"):
    denied(lambda: open(path), errno.EACCES)
denied(lambda: os.listdir(top), errno.EACCES)
for path in (top + "/seen/file", top + "/seen/new", "/etc/nfct"):
    denied(lambda: open(path, "w"), errno.EACCES)
denied(lambda: subprocess.run(["/bin/true"]), errno.EACCES)
if {version} >= 4:
    denied(lambda: socket.create_connection(listening.getsockname()), errno.EACCES)
""")


@pytest.mark.root
def test_what_landlock_takes_for_tracing(version):
    """Why the descriptors of other processes are looked at elsewhere."""
    run("""
other = subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL)
try:
    os.readlink(f"/proc/{other.pid}/exe"), os.readlink(f"/proc/{other.pid}/fd/0")
    sandbox.restrict_files(["/"])
    assert open(f"/proc/{other.pid}/stat").read() and open(f"/proc/{other.pid}/cgroup").read()
    denied(lambda: os.readlink(f"/proc/{other.pid}/exe"), errno.EACCES)
    denied(lambda: os.readlink(f"/proc/{other.pid}/fd/0"), errno.EACCES)
finally:
    other.kill()
    other.wait()
""")


def test_a_path_that_is_none(version):
    with pytest.raises(TypeError):
        sandbox.restrict_files([None])
    with open("/proc/thread-self/status") as status:
        assert "NoNewPrivs:\t0\n" in status.read()
