"""Have a real engine map records to OCSF, and check the events against its schemas: `make ocsf`, as root.

Tenzir comes from PyPI into the user's cache (590 MB). Flows of every kind are made in a network namespace; what the
program writes of them goes through ocsf.tql as it is. The engine must not complain, every event must be valid for its
class, and say what the record said. Mappings with a mistake each must be found out.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "wheels")]

from nfct_fast.command.fleet import text  # noqa: E402
from nfct_fast.kernel.netns import resolve  # noqa: E402
from nfct_fast.processes.cgroup_filesystem import find_mount  # noqa: E402
from ocsf_schema import Schema  # noqa: E402
from roots import cache  # noqa: E402
from support.cli import Program, inside, until  # noqa: E402
from support.netns import ip, made, use_conntrack  # noqa: E402
from support.whole_flows import count_entries  # noqa: E402

ENGINE = cache() / "tenzir-6.20.0"
CONTAINER = "c0ffee" * 10 + "abcd"
NAT = """table ip n {
    chain o { type nat hook output priority -100; udp dport 4321 dnat to 127.0.0.9:4322; }
    chain p { type nat hook postrouting priority 100; udp dport 53 snat to 127.0.0.9; }
}"""
LOSSES = 3000
SENDER = """
import contextlib, socket
def call(server, client, close=True):
    with server, client:
        client.connect(server.getsockname()[:2])
        with server.accept()[0] as accepted:
            client.send(b"x" * 1000)
            accepted.recv(2000)
            accepted.send(b"y" * 500)
            client.recv(900)
            if not close:
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\\1\\0\\0\\0\\0\\0\\0\\0")
for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    for close in (True, False):
        call(socket.create_server((address, 0), family=family), socket.socket(family), close)
    with contextlib.suppress(ConnectionRefusedError), socket.socket(family) as refused:
        refused.connect((address, 81))
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", (address, 4321))
    icmp = socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6
    with socket.socket(family, socket.SOCK_RAW, icmp) as sock:
        kind = 8 if family == socket.AF_INET else 128
        sock.sendto(bytes([kind, 0, *((0xf7, 0xfe) if kind == 8 else (0, 0)), 0, 1, 0, 0]), (address, 0))
with socket.socket() as sock:
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        sock.connect(("10.95.0.2", 80))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.bind(("127.0.0.2", 0))
    sock.sendto(b"x", ("127.0.0.1", 53))
"""


def install():
    """Tenzir, which is an engine and its schemas, without what other programs of the package need."""
    if not ENGINE.exists():
        part = ENGINE.with_name(ENGINE.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", part], check=True)
        subprocess.run([part / "bin/pip", "install", "-q", "--no-deps", f"tenzir=={ENGINE.name[7:]}"], check=True)
        part.rename(ENGINE)
    [bundled] = ENGINE.glob("lib/python3*/site-packages/tenzir/bundled")
    return bundled


def mapped(bundled, mapping, lines):
    """Events that a mapping makes of lines, and what the engine said meanwhile."""
    with tempfile.NamedTemporaryFile("w", suffix=".tql") as pipeline:
        pipeline.write(mapping)
        pipeline.flush()
        done = subprocess.run(
            [bundled / "libexec/tenzir-engine", "--bare-mode", f"--schema-dirs={bundled}/share/tenzir/schema"]
            + ["-f", pipeline.name],
            input="".join(line + "\n" for line in lines),
            capture_output=True,
            text=True,
            timeout=60,
        )
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr.strip()


@contextlib.contextmanager
def cgroup(path):
    """A cgroup of that path, and the command with which a program begins in it."""
    at = Path(os.fsdecode(find_mount()), path)
    new = [folder for folder in (at.parent, at) if not folder.exists()]
    for folder in new:
        folder.mkdir()
    try:
        yield ["sh", "-c", f'echo $$ >{at}/cgroup.procs && echo 1000 >/proc/self/loginuid; exec "$@"', "sh"]
    finally:
        for folder in reversed(new):
            folder.rmdir()


def flush():
    for family in ("ipv4", "ipv6"):
        subprocess.run(["conntrack", "-F", "-f", family], check=True, capture_output=True)


def recorded():
    """Lines of flows of every kind: NEW and FLOW, UPDATE and DESTROY, entries, and of losses."""
    number = os.getpid()
    lines = []
    with contextlib.ExitStack() as stack:
        netns = stack.enter_context(made())
        service = stack.enter_context(cgroup(f"system.slice/nfct-ocsf-{number}.service"))
        container = stack.enter_context(cgroup(f"system.slice/docker-{CONTAINER}.scope"))
        use_conntrack(netns)
        [home] = resolve(netns)
        stack.enter_context(home)
        stack.enter_context(home.entered())
        ip("addr", "add", "127.0.0.9/8", "dev", "lo", netns=netns)
        ip("link", "add", "out", "type", "veth", "peer", "name", "far", netns=netns)
        ip("link", "set", "out", "up", netns=netns)
        ip("link", "set", "far", "up", netns=netns)
        ip("addr", "add", "10.95.0.1/24", "dev", "out", netns=netns)
        ip("neigh", "add", "10.95.0.2", "lladdr", "02:00:00:00:00:01", "dev", "out", netns=netns)
        subprocess.run(["nft", NAT], check=True)
        count_entries()
        unshared = ["unshare", "--pid", "--fork"]
        for arguments in (["--flows", "-e", "new"], ["-e", "update,destroy"]):
            with Program(netns, "--schema", "ecs", *arguments) as program:
                for prefix in (service, [*container, *unshared], ["setpriv", "--reuid=1234", "--clear-groups"]):
                    raw = prefix[:1] != ["setpriv"]  # who may open raw sockets
                    # "90s" would be a duration if lines were not read raw.
                    subprocess.run([*prefix, sys.executable, "-c", SENDER, "90s"], check=raw, capture_output=not raw)
                if arguments[0] == "--flows":
                    listed = subprocess.run(
                        inside(netns, [sys.executable, "-m", "nfct_fast", "-L", "--schema", "ecs"]),
                        check=True,
                        capture_output=True,
                        text=True,
                    )
                    lines += listed.stdout.splitlines()
                flush()
                ends = '"event":{"kind":"event","category":["network"],"type":["connection","end"]'
                until(lambda: sum(ends in line for line in program.lines) > 20)  # noqa: B023
                assert program.end()[0] == 0
            lines += program.lines
        with Program(netns, "--schema", "ecs", "--aggregate", "1h", "-p", "udp") as program:
            for _ in range(7):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                    sock.sendto(b"x", ("127.0.0.1", 10_000))
            program.await_all_read()
            assert program.end()[0] == 0
        assert any('"count":7' in line for line in program.lines)
        lines += program.lines
        with Program(netns, "--schema", "ecs", "--rcvbuf", "64K", "--rcvbuf-max", "64K") as program:
            program.stop()
            for port in range(LOSSES):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                    sock.sendto(b"x", ("127.0.0.1", 10_000 + port))
            flush()
            program.process.send_signal(18)
            until(lambda: any('"events_lost"' in line for line in program.lines))
            program.end()
        lost = [line for line in program.lines if '"events_lost"' in line]
        lines += [*program.lines[:5], *lost]
    return lines


ACTIVITIES = {"answered": 2, "timed_out": 2, "unanswered": 2, "reset": 3, "refused": 5, None: 2}


def compared(record, event):
    """What an event says and what its record said, as pairs by name."""

    def get(value, *path):
        for name in path:
            value = None if value is None else value.get(name)
        return value

    kind = record["nfct"]["type"]
    pairs = {"event_code": (get(event, "metadata", "event_code"), kind)}
    for name, path, origin in (
        ("host", ("device", "hostname"), ("host", "name")),
        ("machine", ("device", "uid"), ("host", "id")),
        ("boot", ("device", "boot_uid"), ("host", "boot", "id")),
    ):
        pairs[name] = get(event, *path), get(record, *origin)
    if kind == "LOST":
        pairs["lost"] = event.get("count"), record["nfct"]["lost"]
        pairs["class"] = event.get("class_uid"), 0
        return pairs
    outcome = record["nfct"].get("outcome")
    failed = outcome == "unanswered" and record["network"]["transport"] == "tcp"
    activity = {"NEW": 1, "UPDATE": 6, "ENTRY": 6}.get(kind) or (4 if failed else ACTIVITIES[outcome])
    pairs["activity"] = event.get("type_uid"), 400100 + activity
    pairs["uid"] = get(event, "metadata", "uid"), f"{record['host']['id']}-{record['event'].get('id')}"
    pairs["outcome"] = event.get("status_code"), outcome
    for name, path, origin in (
        ("source", ("src_endpoint", "ip"), ("source", "ip")),
        ("source port", ("src_endpoint", "port"), ("source", "port")),
        ("source after NAT", ("src_endpoint", "proxy_endpoint", "ip"), ("source", "nat", "ip")),
        ("target", ("dst_endpoint", "ip"), ("destination", "ip")),
        ("target port", ("dst_endpoint", "port"), ("destination", "port")),
        ("target after NAT", ("dst_endpoint", "proxy_endpoint", "ip"), ("destination", "nat", "ip")),
        ("target port after NAT", ("dst_endpoint", "proxy_endpoint", "port"), ("destination", "nat", "port")),
        ("community", ("connection_info", "community_uid"), ("network", "community_id")),
        ("protocol", ("connection_info", "protocol_name"), ("network", "transport")),
        ("flows", ("count",), ("nfct", "count")),
        ("sent", ("traffic", "bytes_out"), ("source", "bytes")),
        ("received", ("traffic", "packets_in"), ("destination", "packets")),
        ("bytes", ("traffic", "bytes"), ("network", "bytes")),
        ("pid", ("actor", "process", "pid"), ("process", "pid")),
        ("process", ("actor", "process", "uid"), ("process", "entity_id")),
        ("command line", ("actor", "process", "cmd_line"), ("process", "command_line")),
        ("executable", ("actor", "process", "file", "path"), ("process", "executable")),
        ("arguments", ("unmapped", "process", "args"), ("process", "args")),
        ("name", ("actor", "process", "name"), ("process", "name")),
        ("pid inside", ("actor", "process", "namespace_pid"), ("process", "vpid")),
        ("parent", ("actor", "process", "parent_process", "uid"), ("process", "parent", "entity_id")),
        ("user", ("actor", "user", "uid"), ("user", "id")),
        ("user's name", ("actor", "user", "name"), ("user", "name")),
        ("container", ("actor", "process", "container", "uid"), ("container", "id")),
        ("unit", ("actor", "app_name"), ("nfct", "owner", "unit") if "process" in record else ("none",)),
        ("login", ("actor", "process", "auid"), ("nfct", "owner", "login_uid") if "process" in record else ("none",)),
    ):
        pairs[name] = get(event, *path), get(record, *origin)
    if "process" in record:
        pairs["group"] = get(event, "actor", "process", "group", "uid"), get(record, "group", "id")
    if "duration" in record["event"]:
        pairs["duration"] = abs(event["duration"] - record["event"]["duration"] / 1e6) <= 0.5, True
    return pairs


# What has no place in the class, and stays as it is.
UNMAPPED = {
    *("process.args", "process.args_count", "user.id", "user.name", "group.id", "group.name"),
    *(f"nfct.{name}" for name in ("time_ns", "status", "mark", "zone", "timeout", "state", "netns", "use", "helper")),
    *(f"nfct.{name}" for name in ("recovered", "forgotten", "community_id_nat", "at_least", "icmp", "owner", "peer")),
}


def leaves(value, name=""):
    """Names of what an object of objects holds, two levels deep."""
    if isinstance(value, dict) and "." not in name:
        return {leaf for key, inner in value.items() for leaf in leaves(inner, f"{name}.{key}" if name else key)}
    return set() if value in (None, {}) else {name}


def faults(schema, bundled, mapping, lines):
    """All that is wrong with what a mapping makes of lines."""
    events, said = mapped(bundled, mapping, lines)
    found = said.splitlines()
    records, known, told = {}, set(), set()
    for record in map(json.loads, lines):
        records.setdefault(record["event"].get("id") or record["@timestamp"], []).append(record)
    if len(events) != len(lines):
        found.append(f"{len(events)} events of {len(lines)} records")
    for event in events:
        name = "base_event" if event.get("class_uid") == 0 else "network_activity"
        metadata = event.get("metadata") or {}
        found += schema.faults(event, name, metadata.get("profiles") or [])
        key = (metadata.get("uid") or "").rpartition("-")[2]
        alike = records.get(key) or [one for one in sum(records.values(), []) if one["nfct"]["type"] == "LOST"]
        pairs = [compared(record, event) for record in alike]
        if not any(all(ours == theirs for ours, theirs in one.values()) for one in pairs):
            differences = {name: pair for name, pair in pairs[0].items() if pair[0] != pair[1]}
            found.append(f"not what the record says: {str(differences)[:300]}")
        known |= {name for one in pairs for name in one}
        told |= {name for one in pairs for name, (value, _) in one.items() if value is not None}
        found += [f"unmapped: {name}" for name in sorted(leaves(event.get("unmapped") or {}) - UNMAPPED)]
    if not os.path.exists("/proc/self/loginuid"):
        told.add("login")
    return found + [f"never had a value: {name}" for name in sorted(known - told)]


MISTAKES = {
    "a number as text": ("severity_id = 1", 'severity_id = "1"'),
    "an address as text": ("(move ecs.source.ip).ip()", "move ecs.source.ip"),
    "a misspelled field": ("connection_info = {", "conection_info = {"),
    "a misspelled field inside": ("protocol_num:", "protocol_number:"),
    "an unknown activity": ("activity_id = 5", "activity_id = 8"),
    "another activity": ("activity_id = 5", "activity_id = 3"),
    "something required is missing": ("    direction_id: {out", "    boundary_id: {out"),
    "a profile that is not named": ('"host", ', ""),
    "source and target exchanged": ("bytes_out: move ecs.source.bytes", "bytes_out: move ecs.destination.bytes"),
    "read as more than text": ("read_ndjson raw=true", "read_ndjson"),
    "something forgotten": ("    cmd_line: move ecs.process.command_line?,\n", ""),
    "losses dropped": ("this = {ecs: this}", 'this = {ecs: this}\nwhere ecs.nfct.type != "LOST"'),
}


def main():
    if os.geteuid() != 0:
        raise SystemExit("needs root, for network namespaces and conntrack events")
    bundled = install()
    schema = Schema(bundled / "share/tenzir/schema/types/ocsf/v1_9_0.schema")
    lines = recorded()
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text("".join(line + "\n" for line in lines))
    mapping = text("ocsf.tql")
    found = faults(schema, bundled, mapping, lines)
    kinds = Counter()
    for record in map(json.loads, lines):
        kinds[
            record["nfct"]["type"], record.get("network", {}).get("transport", ""), record["nfct"].get("outcome")
        ] += 1
    for kind, count in sorted(kinds.items(), key=str):
        print(*(word or "" for word in kind), count, sep="\t")
    for line, count in Counter(found).most_common(20):
        print(f"{count} x {line}")
    print(f"{len(lines)} records, {len(found)} faults")
    unnoticed = []
    for name, (old, new) in MISTAKES.items():
        if old not in mapping:
            raise SystemExit(f"{old!r} is not in the mapping")
        noticed = faults(schema, bundled, mapping.replace(old, new), lines)
        print(f"{name}: {next(iter(noticed), 'not noticed')}")
        unnoticed += [] if noticed else [name]
    return 1 if found or unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
