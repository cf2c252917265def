"""What a host sends to those who gather its records: bytes a day and CPU time, by form and with --aggregate.

python tests/bench/bench_bytes.py [SECONDS] [ROUNDS]. It needs no root: the flows are described, as three kinds of hosts
make them, and played from recordings. Bytes are measured over SECONDS (30) of such flows, at the lower rate over ten
times as many; what is compressed, in blocks of 1 MiB, as shippers send them, at the default level of gzip and zstd. CPU
time is the least of ROUNDS (3), less that of a recording whose flows are all refused; of the higher rate only, as a
program's start is much beside a few flows.
"""

import gzip
import itertools
import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

BENCH = Path(__file__).resolve().parent
sys.path[:0] = [str(BENCH.parent), str(BENCH.parents[1] / "src")]

from support.described_flows import Recorder  # noqa: E402

RATES = (100, 10_000)
DAY = 86_400
BEGIN = 1_764_288_000 * 10**9
SAMPLE = 16 << 20  # bytes that are compressed at most
FIELDS = "time,type,proto,src,dst,dport,original_bytes,reply_bytes,outcome,owner.pid,owner.entity_id,comm,exe,unit,user"
FORMS = {
    "`--json`": ("NEW", ["--json"]),
    "`--flows --json`": ("FLOW", ["--json"]),
    "`--flows --json --fields`": ("FLOW", ["--json", "--fields", FIELDS]),
    "`--flows --schema ecs`": ("FLOW", ["--schema", "ecs"]),
    "`--flows --json --aggregate 10s`": ("FLOW", ["--json", "--aggregate", "10s"]),
    "`--flows --json --fields --aggregate 10s`": (
        "FLOW",
        ["--json", "--fields", FIELDS + ",count,first,last", "--aggregate", "10s"],
    ),
    "`--flows --json --aggregate 1min`": ("FLOW", ["--json", "--aggregate", "1min"]),
}
REMOTE, CLOSED = {"reason": 12}, {"reason": 3}
INIT = (1, 10_000_000, b"systemd")


def process(pid, comm, exe, arguments, unit, uid=0, ancestors=(INIT,)):
    return {
        **{"pid": pid, "ppid": ancestors[0][0], "uid": uid, "gid": uid, "comm": comm, "exe": exe},
        **{"cmdline": b"\0".join(arguments), "cgroup": unit, "start_ns": 5 * 10**12 + pid * 10**7},
        **{"exe_inode": 400_000 + len(exe) * 977, "ancestors": ancestors},
    }


class Crowd:
    """Addresses, the first ones asked for often and most of them seldom (Zipf)."""

    def __init__(self, dice, count, network):
        self._addresses = [f"{network}.{i >> 8 & 255}.{i & 255}" for i in range(count)]
        self._weights = list(itertools.accumulate([1 / (i + 1) for i in range(count)]))
        self._dice = dice

    def one(self):
        return self._dice.choices(self._addresses, cum_weights=self._weights)[0]


def desktop(dice, rate):
    """Someone's browser and what runs beside it, or a crawler: few processes, and names looked up before most flows."""
    session = b"/user.slice/user-1000.slice/user@1000.service/app.slice/app-firefox-4711.scope"
    above = ((3001, 3 * 10**10, b"gnome-shell"), (2900, 2 * 10**10, b"systemd"), INIT)
    programs = [
        process(4711 + i, b"firefox", b"/usr/lib/firefox/firefox", [b"/usr/lib/firefox/firefox", b"-new-window"],
                session, 1000, above)
        for i in range(max(1, rate // 500))
    ]  # fmt: skip
    mail = process(5100, b"thunderbird", b"/usr/lib/thunderbird/thunderbird", [b"thunderbird"],
                   session.replace(b"firefox", b"thunderbird"), 1000, above)  # fmt: skip
    resolved = b"/usr/lib/systemd/systemd-resolved"
    resolver = process(700, b"systemd-resolve", resolved, [resolved], b"/system.slice/systemd-resolved.service", 991)
    world = Crowd(dice, 20 * rate, "198.18")
    while True:
        kind = dice.random()
        if kind < 0.35:
            yield 17, "10.0.0.5", "10.0.0.1", 53, 1, resolver, REMOTE
        elif kind < 0.97:
            yield 6 if kind < 0.8 else 17, "10.0.0.5", world.one(), 443, 1, dice.choice(programs), REMOTE
        else:
            yield 6, "10.0.0.5", "203.0.113.25", 993, 1, mail, REMOTE


def server(dice, rate):
    """A web server: clients come in, its workers ask an application, and that asks a database and a cache."""
    nginx = [
        process(900 + i, b"nginx", b"/usr/sbin/nginx", [b"nginx: worker process"], b"/system.slice/nginx.service", 33,
                ((890, 2 * 10**10, b"nginx"), INIT))
        for i in range(4)
    ]  # fmt: skip
    python = b"/srv/app/venv/bin/python3"
    arguments = [python, b"-m", b"gunicorn", b"--workers", b"8", b"--bind", b"127.0.0.1:8000", b"app.wsgi:application"]
    app = [process(1200 + i, b"gunicorn", python, arguments, b"/system.slice/app.service", 980,
                   ((1190, 3 * 10**10, b"gunicorn"), INIT)) for i in range(8)]  # fmt: skip
    clients = Crowd(dice, 30 * rate, "198.19")
    while True:
        kind = dice.random()
        if kind < 0.4:
            yield 6, clients.one(), "10.0.0.5", 443, 2, dice.choice(nginx), REMOTE
        elif kind < 0.6:
            yield 6, "127.0.0.1", "127.0.0.1", 8000, 3, dice.choice(nginx), dice.choice(app)
        elif kind < 0.8:
            yield 6, "10.0.0.5", "10.0.1.10", 5432, 1, dice.choice(app), REMOTE
        elif kind < 0.95:
            yield 6, "10.0.0.5", "10.0.1.11", 6379, 1, dice.choice(app), REMOTE
        else:  # somebody tries ports
            yield 6, clients.one(), "10.0.0.5", dice.choice([22, 23, 3389, 8080]), 2, CLOSED, REMOTE


def jobs(dice, rate):
    """Builds and scripts: each process lives for a moment and makes one or two flows."""
    world = Crowd(dice, 400, "198.18")
    programs = [
        (b"git-remote-http", b"/usr/lib/git-core/git-remote-http", [b"git", b"fetch", b"--depth=1", b"origin"]),
        (b"curl", b"/usr/bin/curl", [b"curl", b"-fsSL", b"--retry", b"3", b"https://deb.example.org/pool/package.deb"]),
        (b"pip", b"/usr/bin/python3.13", [b"/usr/bin/python3.13", b"-m", b"pip", b"install", b"-r", b"requirements"]),
        (b"dig", b"/usr/bin/dig", [b"dig", b"+short", b"registry.example.org"]),
    ]
    for number in itertools.count():
        comm, exe, arguments = dice.choice(programs)
        shell = (20_000 + number // 20, 6 * 10**12, b"sh")
        one = process(30_000 + number, comm, exe, arguments, b"/system.slice/ci-runner.service", 995,
                      (shell, (1500, 3 * 10**10, b"ci-runner"), INIT))  # fmt: skip
        yield 17, "10.0.0.5", "10.0.0.1", 53, 1, one, REMOTE
        if dice.random() < 0.7:
            yield 6, "10.0.0.5", world.one(), 443, 1, one, REMOTE


HOSTS = {"desktop, crawler": desktop, "web server": server, "short-lived processes": jobs}


def described(dice, kind, time, number, flow):
    """A flow as it is recorded."""
    proto, src, dst, dport, direction, owner, peer = flow
    sport = dice.randrange(32768, 60999)
    made = {"version": 4, "proto": proto, "zone": 0, "mark": 0, "netns": 4026531840, "direction": direction}
    made |= {"orig": (src, sport, dst, dport), "reply": (dst, dport, src, sport), "id": dice.getrandbits(32)}
    made |= {"time": time, "type": kind, "peer": peer}
    made["owner"] = owner | {"socket": (90_000 + number, 4096 + number, 3000 + len(owner.get("cgroup", b"")))}
    if kind == "NEW":
        made |= {"timeout": 120 if proto == 6 else 30}
        return made | ({"state": 1} if proto == 6 else {})
    lasted = dice.randrange(10**6, 10**9)
    packets = dice.randrange(1, 30)
    made |= {"start": time - lasted, "stop": time, "began": time - lasted, "status": 0x20E}
    made["counters"] = [(packets, packets * dice.randrange(60, 400)), (packets, packets * dice.randrange(60, 1400))]
    return made | ({"state": 7, "timeout": 0} if proto == 6 else {})


def record(path, host, kind, rate, seconds):
    """Write a recording of so many seconds, and return how many flows it has."""
    dice = random.Random(1)
    recorder, flows = Recorder(), host(dice, rate)
    time, count = BEGIN, rate * seconds
    with path.open("wb") as file:
        file.write(recorder.begin())
        for number in range(count):
            time += int(dice.expovariate(rate) * 1e9)
            file.write(recorder.flow(described(dice, kind, time, number, next(flows))))
        file.write(recorder.end())
    return count


def play(recording, out, arguments):
    """Microseconds of CPU time of one run, whose output goes into the file."""
    command = [sys.executable, "-m", "nfct_fast", "--replay", recording, *arguments]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with out.open("wb") as file:
        subprocess.run(command, stdout=file, check=True, env={"PYTHONPATH": str(BENCH.parents[1] / "src")})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1e6 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def compressed(out):
    """How much is left of each byte, with gzip and with zstd."""
    before, sizes = 0, [0, 0]
    with out.open("rb") as file:
        while before < SAMPLE and (block := file.read(1 << 20)):
            before += len(block)
            sizes[0] += len(gzip.compress(block, 6))
            sizes[1] += len(subprocess.run(["zstd", "-c"], input=block, capture_output=True, check=True).stdout)
    return [size / before for size in sizes]


def amount(size):
    """Bytes in the unit that leaves two or three digits."""
    for unit in ("kB", "MB", "GB", "TB"):
        size /= 1000
        if size < 1000 or unit == "TB":
            return f"{size:.2f} {unit}" if size < 10 else f"{size:.0f} {unit}"
    return None


def measure(directory, host, rate, seconds, rounds):
    """Print a row for each form."""
    recordings = {}
    for kind in ("NEW", "FLOW"):
        recordings[kind] = directory / kind
        flows = record(recordings[kind], HOSTS[host], kind, rate, seconds)
    out = directory / "out"
    cost = {name: float("inf") for name in (*recordings, *FORMS)}
    size, lines = {}, {}
    for _ in range(rounds):
        for kind, recording in recordings.items():
            cost[kind] = min(cost[kind], play(recording, out, ["dport 0"]))
        for name, (kind, arguments) in FORMS.items():
            cost[name] = min(cost[name], play(recordings[kind], out, arguments))
            if name not in size:
                size[name] = (out.stat().st_size, *compressed(out))
                lines[name] = out.read_bytes().count(b"\n")
    for name, (kind, _) in FORMS.items():
        micros = f"{(cost[name] - cost[kind]) / flows:.2f}" if rate == RATES[-1] else ""
        whole, gzipped, zstd = size[name]
        day = whole / flows * rate * DAY
        print(
            f"| {host}, {rate:,}/s | {name} | {flows / lines[name]:.1f} | {whole / flows:.0f} | {amount(day)} | "
            f"{amount(day * gzipped)} | {amount(day * zstd)} | {micros} |",
            flush=True,
        )


def main(seconds=30, rounds=3):
    """Print the table."""
    print("| host, flows a second | form | flows a line | bytes a flow | a day | gzip | zstd | µs a flow |")
    print("|---|---|--:|--:|--:|--:|--:|--:|", flush=True)
    for host in HOSTS:
        for rate in RATES:
            with tempfile.TemporaryDirectory() as directory:
                lowest = rate == RATES[0]
                measure(Path(directory), host, rate, seconds * 10 if lowest else seconds, 1 if lowest else rounds)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
