"""`nfct-fast top`: pages of text, what it refuses, and the real thing in a real terminal (tmux)."""

import os
import shutil
import signal
import socket
import subprocess
import sys

import pytest

from nfct_fast.kernel.netns import resolve
from support.child import Child
from support.cli import COMMAND, Program, inside, run, until
from support.flows import Worker
from support.users import NOBODY

HOSTILE = "\x1b[31mred\nline\u202e名前"


@pytest.fixture
def counting(tracked):
    subprocess.run(inside(tracked, ["sysctl", "-q", "net.netfilter.nf_conntrack_acct=1"]), check=True)
    return tracked


@pytest.fixture
def traffic(counting):
    """A process in the namespace with a hostile command line that sends 20 datagrams a second from one socket."""
    code = (
        "import socket,time\n"
        "server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); server.bind(('127.0.0.1', 7777))\n"
        "sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); sock.connect(('127.0.0.1', 7777))\n"
        "while True: sock.send(b'x' * 1000); time.sleep(.05)\n"
    )
    command = inside(counting, [sys.executable, "-c", code.replace("\n", ";", 3), HOSTILE + "x" * 4096])
    command[-2] = code
    with Child(command) as process:
        yield process.pid
        process.kill()


def test_pages_of_text(counting, traffic):
    done = run(counting, "top", "-b", "-n", "2", "-d", "0.5", text=True)
    assert (done.returncode, done.stderr) == (0, "")
    pages = done.stdout.split("\n\nnfct-fast top")
    assert len(pages) == 2
    for page in pages:
        [line] = [line for line in page.splitlines() if f" {traffic} " in line]
        fields = line.split()
        assert fields[:3] == [str(traffic), "root", "1"]
        assert "\\x1b[31mred" not in line or "\x1b" not in line
        assert float(fields[5].removesuffix("K")) > 1  # K of bytes out a second
        assert len(line) <= 160
    assert not any(character in done.stdout for character in "\x1b\u202e")


@pytest.mark.parametrize("by", ["unit", "destination", "flow"])
def test_every_grouping_is_printed(counting, traffic, by):
    done = run(counting, "top", "-b", "-n", "1", "-d", "0.3", "--by", by, "udp and dport 7777", text=True)
    assert (done.returncode, done.stderr) == (0, "")
    wanted = {"destination": "127.0.0.1", "flow": "> 127.0.0.1/7777"}.get(by, "-")
    assert wanted in done.stdout.splitlines()[-1]


def test_a_filter_selects(counting, traffic):
    done = run(counting, "top", "-b", "-n", "1", "-d", "0.3", "dport", "1", text=True)
    assert "flows: 0 live" in done.stdout and str(traffic) not in done.stdout


def test_that_bytes_are_not_counted_is_said(tracked):
    done = run(tracked, "top", "-b", "-n", "1", "-d", "0.3", text=True)
    assert "order: flows/s" in done.stdout
    assert "bytes are not counted: `sysctl net.netfilter.nf_conntrack_acct=1`" in done.stdout


def test_nothing_uses_conntrack(netns):
    done = run(netns, "top", "-b", "-n", "1", "-d", "0.3", text=True)
    assert done.returncode == 0 and "new flows are not tracked" in done.stdout


def test_it_ends_when_nobody_reads(counting):
    with Program(counting, "top", "-b", "-d", "0.1", stdout=subprocess.PIPE) as program:
        program.await_lines(1)
    done = subprocess.run(
        [*inside(counting, [*COMMAND, "top", "-b", "-d", "0.1"])], stdout=os.open("/dev/full", os.O_WRONLY), stderr=-1
    )
    assert done.returncode == 1 and b"No space left" in done.stderr and done.stderr.count(b"\n") == 1


def test_a_reader_that_stopped_does_not_keep_it(counting):
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(theirs, b"x" * 4096)
    os.set_blocking(theirs, True)
    with Program(counting, "top", "-b", "-d", "0.1", stdout=theirs) as program:
        status, seconds = program.end()
        assert status in (0, 1) and seconds < 10
    os.close(ours)
    os.close(theirs)


def test_it_gives_up_its_rights(counting):
    with Program(counting, "top", "-b", "-d", "0.2") as program:
        program.await_lines(1)
        with open(f"/proc/{program.pid}/status") as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        assert status["Seccomp"].strip() == "2" and status["NoNewPrivs"].strip() == "1"
        assert status["Uid"].split()[1] != "0"
        status, _ = program.end(signal.SIGTERM)
        assert status == 0 and program.complaints == []


@pytest.mark.parametrize(
    "arguments, why",
    [
        (["--by", "colour"], "invalid choice"),
        (["--sort", "x"], "invalid choice"),
        (["-d", "0"], "number of seconds"),
        (["-d", "nan"], "number of seconds"),
        (["-n", "0"], "number from 1"),
        (["--keep", "-1"], "number of seconds"),
        (["-b", "dprt", "3"], "unknown word"),
        (["-p", "("], "protocol"),
        ([], "no terminal: use -b"),
    ],
)
def test_wrong_arguments_are_refused_in_a_line(netns, arguments, why):
    done = run(netns, "top", *arguments, *(["-b"] if arguments else []), text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 2 and why in done.stderr and done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_an_unprivileged_user_is_told_what_is_missing(netns):
    command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *COMMAND, "top", "-b", "-n", "1"]
    done = subprocess.run(inside(netns, command), capture_output=True, text=True)
    assert done.returncode == 1 and "CAP_NET_ADMIN" in done.stderr and done.stderr.count("\n") == 1


class Terminal:
    """A tmux of its own with a shell in the namespace."""

    def __init__(self, netns, folder):
        if shutil.which("tmux") is None:
            pytest.skip("tmux is missing: apt install tmux")
        self._socket = str(folder / "tmux")
        shell = " ".join(inside(netns, ["env", "PS1=ready%", "TERM=screen-256color", "sh"]))
        environment = os.environ | {"LC_ALL": "C.UTF-8", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._run("-f", "/dev/null", "-u", "new-session", "-d", "-x", "100", "-y", "20", shell, env=environment)
        self.until("ready%")

    def _run(self, *words, **options):
        return subprocess.run(
            ["tmux", "-S", self._socket, *words], check=True, capture_output=True, text=True, timeout=10, **options
        ).stdout

    def keys(self, *keys):
        self._run("send-keys", *keys)

    def type(self, text):
        self._run("send-keys", "-l", text)
        self.keys("Enter")

    def resize(self, columns, lines):
        self._run("resize-window", "-x", str(columns), "-y", str(lines))

    def screen(self):
        return self._run("capture-pane", "-p")

    def until(self, *texts):
        def there():
            screen = self.screen()
            return all(text in screen for text in texts) and screen

        try:
            return until(there, what=f"{texts}")
        except AssertionError as error:
            raise AssertionError(f"{error}; on the screen is\n{self.screen()}") from None

    def modes(self):
        self.type("clear; stty -g; echo end-of-'modes'")
        return self.until("end-of-modes").split()[0]

    def close(self):
        self._run("kill-server")


@pytest.fixture
def terminal(counting, tmp_path):
    terminal = Terminal(counting, tmp_path)
    yield terminal
    terminal.close()


TOP = " ".join([*COMMAND, "top"])


def test_in_a_terminal(terminal, traffic):
    modes = terminal.modes()
    terminal.type(f"{TOP} -d 0.3")
    screen = terminal.until("by process, order: bytes/s", "COMMAND", f" {traffic} ", "q quit")
    assert "\\x1b[31mred" in screen or "~" in screen
    terminal.keys("g")
    terminal.until("by program", "/python")
    terminal.keys("g")
    terminal.until("by unit")
    terminal.keys("g", "g", "g")
    terminal.until("by port", "udp/7777")
    terminal.keys("g", "g")
    terminal.until("by flow", "> 127.0.0.1/7777")
    terminal.keys("g")
    terminal.until("by process", f" {traffic} ")
    terminal.keys("s", "s")
    terminal.until("order: bytes/s out")
    terminal.keys("r")
    terminal.until("reversed")
    terminal.keys("r")
    terminal.keys("/")
    terminal.type("nothing-has-this")
    terminal.until("no flows with this text")
    terminal.keys("/", *["BSpace"] * 30)
    terminal.type("7777")
    terminal.until("filter: 7777", f" {traffic} ")
    terminal.keys("Enter")
    screen = terminal.until(f"process:   {traffic} ", "user:      root", "udp 127.0.0.1/")
    assert "\\nline" not in screen.replace("\\\\nline", "") and "\nline" not in screen
    terminal.keys("q", "h")
    terminal.until("arrows, page up and down")
    terminal.keys("Escape")
    terminal.until("filter: 7777")
    terminal.keys("p")
    terminal.until("PAUSED")
    terminal.keys("p")
    for columns, lines in ((40, 6), (3, 1), (120, 24)):
        terminal.resize(columns, lines)
        if columns > 20:
            terminal.until("by process", "NEW/S")
    terminal.until("UNIT", f" {traffic} ")
    terminal.keys("C-z")
    terminal.until("ready%")
    terminal.type("fg")
    terminal.until("by process", f" {traffic} ")
    terminal.keys("q")
    terminal.resize(100, 20)
    terminal.until("ready%")
    assert terminal.modes() == modes


def test_the_terminal_is_restored_after_an_interrupt(terminal, traffic):
    modes = terminal.modes()
    terminal.type(f"clear; {TOP} -d 0.3")
    terminal.until("by process", f" {traffic} ")
    terminal.keys("C-c")
    terminal.until("ready%")
    assert terminal.modes() == modes


def test_terminals_that_cannot_be_drawn_on(terminal):
    for name in ("dumb", "no-such-terminal"):
        terminal.type(f"clear; TERM={name} {TOP} -d 0.3; echo status $?")
        terminal.until(f"TERM={name}", "use -b", "status 2")


def test_a_terminal_that_stopped_costs_no_flow(terminal, counting):
    terminal.type(f"{TOP} -d 0.2 --by port --sort flows")
    terminal.until("by port")
    [home] = resolve(counting)
    terminal.keys("C-s")

    def send(worker):
        with home.entered():
            for _ in range(20000):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                    sock.sendto(b"x", ("127.0.0.1", 4444))

    with home, Worker(send) as worker:
        worker.hear()
    terminal.keys("C-q")
    terminal.until("udp/4444", "lost: 0")
