"""What --json writes and batches hold is in ClickHouse as it was: in its own engine, chdb."""

import ipaddress
import itertools
import json
import random
import subprocess

import pytest

from nfct_fast import Conntrack
from nfct_fast.events.community_id import community_id
from nfct_fast.text.status import Status
from support.aggregation import write
from support.cli import PROGRAM
from support.columns import PINGS, PORTS, columns_of, reader
from support.events import saved
from support.filters import message
from support.recordings import flow, loss, owner, process, whole

pyarrow = reader("pyarrow")
reader("chdb")

from support.clickhouse import Engine  # noqa: E402

TIME = 1_700_000_000_123_456_789
NAMES = [
    b"curl",
    b"two words",
    b"\xff\xfe not utf-8 \xc3",
    b"",
    b"\xed\xa0\x80",
    b"a\0b",
    b'"\n\x1b\\',
    b"'; DROP TABLE x",
]
NAMES += ["\xe9\U0001f600\ufffe".encode(), b"\\N", b"{}", b"[1]"]
OF_HOST = ("host", "machine_id", "boot_id")
OF_PROCESS = ("exe_dev", "exe_inode", "ns_pid", "claimed_runtime", "forked")
BASE64 = ("comm", "exe", "cmdline", "cgroup", "container", "runtime", "claimed_container", "claimed_runtime")


def nat_messages():
    """Of either family: source NAT, destination NAT, of ports only, and a protocol without ports."""
    for version, (a, b, c) in (
        (4, ("10.0.0.1", "192.0.2.0", "198.51.100.7")),
        (6, ("fd00::1", "2001:db8::", "2001:db8::7")),
    ):
        for proto in (6, 17, 132, 33, 47):
            one, other = (40000, 443) if proto != 47 else (0, 0)
            for reply in ((b, other, c, one), (c, other, a, one), (b, other, a, one and 256), (b, other, a, one), None):
                yield message(
                    dict(version=version, proto=proto, orig=(a, one, b, other), reply=reply, zone=3, mark=1 << 31)
                )


def recorded():
    """A recording with every kind of message, and owners of hostile names."""
    longest = b"x" * 5000 + b"\0" + b"\x01" * 3000  # more than a line has room for
    processes = [
        process(
            slot,
            comm=name[:15],
            exe=b"/" + name,
            cmdline=name.replace(b"\0", b" ") + b"\0" + name,
            cgroup=b"/system.slice/" + name.replace(b"/", b"") + b".service",
            ancestors=[(300 + slot, name[:15], 10**9 * slot + 10**9), (1, b"systemd", 10**7)],
        )
        for slot, name in enumerate(NAMES)
    ]
    processes.append(process(len(NAMES), cmdline=longest, exe=b"/" + b"\x02" * 3000, cgroup=b"/" + b"\x03" * 3000))
    processes.append(process(len(NAMES) + 1, cmdline=b""))
    slots = range(1, len(processes) + 1)
    owners = itertools.cycle(
        [owner(slot) for slot in slots]
        + [owner(1, [2, 3]), owner(2, [3, 4], used=True), owner(reason=2), owner(reason=8), owner(0, [1, 2])]
    )
    peers = itertools.cycle([owner(reason=12), owner(reason=2), *[owner(slot) for slot in slots]])
    chunks = []
    messages = [*saved()[0], *nat_messages()]
    for kind, began in ((1, 0), (2, 0), (4, 0), (5, TIME - 5 * 10**9)):
        for one in messages:
            time = TIME + len(chunks)
            chunks.append(flow(one, next(owners), next(peers), time=time, kind=kind, began=began))
    return whole(*processes, *chunks, loss(time=TIME), loss(time=TIME + 10**9, events=5))


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("clickhouse") / "recording"
    path.write_bytes(recorded())
    return str(path)


@pytest.fixture(scope="module")
def flows(recording):
    with Conntrack(replay=recording, community_id=0) as conntrack:
        return list(conntrack)


@pytest.fixture(scope="module")
def lines(recording):
    done = subprocess.run([*PROGRAM, "--replay", recording, "--json"], capture_output=True, check=True)
    return done.stdout.decode().splitlines()


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    engine = Engine(tmp_path_factory.mktemp("chdb"))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def filled(engine, lines):
    """Tables with all lines."""
    tables = engine.tables()
    tables.add_lines(lines)
    return tables


def with_host(batch, host):
    """A batch as a table with the host's columns: as README.md has it."""
    table = pyarrow.table(batch)
    about = table.schema.metadata
    zeros = pyarrow.array([0] * len(table), pyarrow.int8())
    for name in OF_HOST:
        value = host if name == "host" else about.get(name.encode(), b"").decode()
        table = table.append_column(name, pyarrow.DictionaryArray.from_arrays(zeros, [value]))
    return table


@pytest.fixture(scope="module")
def batched(filled, recording, tmp_path_factory):
    """The same as batches, of a host of another name."""
    path = tmp_path_factory.mktemp("arrow") / "batches"
    with Conntrack(replay=recording, community_id=0) as conntrack:
        for batch in conntrack.batches(max_rows=97):
            table = with_host(batch, "batches")
            with pyarrow.ipc.new_stream(str(path), table.schema) as stream:
                stream.write_table(table)
            filled.add_arrow(path)
    return filled


def stored(tables, host):
    """The rows of nfct_flows of a host, with the names of columns, in the order in which they were received."""
    names = [row["name"] for row in tables.rows("DESCRIBE nfct_flows") if "Map" not in row["type"]]
    names = [name for name in names if not name.startswith("hashed")]
    times = ("time", "start", "stop")
    columns = [f"toUnixTimestamp64Nano({name}) AS {name}" if name in times else f"`{name}`" for name in names]
    columns += ["sizes", "base64", "peer_sizes", "peer_base64"]
    return tables.rows(f"SELECT {', '.join(columns)} FROM nfct_flows FINAL WHERE host = '{host}' ORDER BY time")


def plain(address, proto):
    """An address of a row as text."""
    one = ipaddress.ip_address(address)
    return str(one.ipv4_mapped if proto.startswith("ipv4") else one)


def as_columns(row):
    """A row as Batch.to_dicts() has it."""
    ping, ports = row["protonum"] in PINGS, row["protonum"] in PORTS - {47}
    for name in ("src", "dst", "reply_src", "reply_dst"):
        text = row[name]
        packed = None if text is None else ipaddress.ip_address(text).packed
        row |= {name: None if text is None else plain(text, row["proto"]), f"{name}_packed": packed}
    for name in ("sport", "dport", "reply_sport", "reply_dport"):
        row[name] = row[name] if ports else None
    for name in ("icmp_type", "icmp_code", "icmp_id"):
        row[name] = row[name] if ping else None
    return row


@pytest.mark.parametrize("host", ["box", "batches"], ids=["lines", "batches"])
def test_every_column(batched, flows, host):
    rows = [as_columns(row) for row in stored(batched, host)]
    assert len(rows) == len(flows) > 200
    for row, one in zip(rows, flows):
        wanted = columns_of(one, with_community_id=True)
        if host == "box":  # an empty name is absent from a line
            wanted |= {name: wanted[name] or None for name in ("comm", "peer_comm")}
            for prefix, name in itertools.product(("", "peer_"), row["sizes"] | row["peer_sizes"]):
                if name in row[prefix + "sizes"]:  # of a process that would take too much of a line
                    assert len(row[prefix + name]) == 384
                    wanted[prefix + name] = wanted[prefix + name][:384]
        assert {name: row[name] for name in wanted} == wanted
        assert (row["host"], row["boot_id"], row["way"]) == (host, "0" * 32, "line" if host == "box" else "batch")
    # What makes this worth comparing.
    for name in ("nat_src", "nat_dst", "nat_sport", "community_id_nat", "pid", "peer_pid", "state", "original_bytes"):
        values = [row[name] for row in rows]
        assert None in values and any(values), name
    assert {row["type"] for row in rows} == {"NEW", "UPDATE", "DESTROY", "FLOW"}


def process_columns(known, prefix):
    """What a line says of an owner and a batch does not, as columns."""
    wanted = {prefix + name: known.get(name) for name in OF_PROCESS[:-1]}
    wanted[prefix + "forked"] = known.get("forked", False)
    wanted[prefix + "args"] = known.get("cmdline", [])
    for name in ("ancestors", "users", "others"):
        wanted[prefix + name] = known.get(name)
    wanted[prefix + "parent_entity_id"] = (known.get("ancestors") or [{}])[0].get("entity_id")
    start = known.get("start")
    wanted[prefix + "process_start"] = start and start.replace("T", " ").removesuffix("Z")
    sizes = {name: known[f"{name}_size"] for name in ("exe", "cmdline", "cgroup") if f"{name}_size" in known}
    base64 = {name: known[f"{name}_base64"] for name in BASE64 if f"{name}_base64" in known}
    if "cmdline" in base64:
        base64["cmdline"] = json.dumps(base64["cmdline"], separators=(",", ":"))
    return wanted | {prefix + "sizes": sizes, prefix + "base64": base64}


def test_what_only_lines_have(filled, lines):
    records = [record for record in map(json.loads, lines) if record["type"] != "LOST"]
    rows = stored(filled, "box")
    seen = set()
    for row, record in zip(rows, records, strict=True):
        for name, prefix in (("owner", ""), ("peer", "peer_")):
            wanted = process_columns(record.get(name, {}), prefix)
            for nested in ("ancestors", "users", "others"):
                text = row[prefix + nested]
                row[prefix + nested] = None if text is None else json.loads(text)
            assert {name: row[name] for name in wanted} == wanted
            seen |= {name for name, value in wanted.items() if value}
        reply = record.get("reply", {})
        assert row["has_reply"] == bool(reply)
        for name in ("icmp_type", "icmp_code", "icmp_id"):
            assert row[f"reply_{name}"] == reply.get(name)
    assert {"users", "others", "sizes", "base64", "args", "ancestors", "parent_entity_id", "exe_inode"} <= seen


def test_losses(filled, lines):
    lost = [record for record in map(json.loads, lines) if record["type"] == "LOST"]
    columns = "host, machine_id, boot_id, toUnixTimestamp64Nano(time) AS time_ns, lost, at_least"
    rows = filled.rows(f"SELECT {columns} FROM nfct_losses FINAL ORDER BY time")
    assert len(rows) == len(lost) == 2
    for row, record in zip(rows, lost):
        assert row == {name: record.get(name, "") for name in row} | {"at_least": record.get("at_least", False)}


def test_a_record_that_comes_twice_is_there_once(engine, lines):
    tables = engine.tables()
    for _ in range(2):
        tables.add_lines(lines)
    tables.add_lines(lines[:50])
    count = len([line for line in lines if '"type":"LOST"' not in line])
    ways = "count() AS n, uniqExact(time) AS times"
    assert tables.rows(f"SELECT {ways} FROM nfct_flows FINAL") == [{"n": count, "times": count}]
    tables.do("OPTIMIZE TABLE nfct_flows FINAL")
    assert tables.rows(f"SELECT {ways} FROM nfct_flows") == [{"n": count, "times": count}]
    assert tables.value("SELECT count() FROM nfct_losses FINAL") == 2


def test_records_of_one_moment_stay_apart(engine, lines):
    """Those that were received together have one time; what else tells them apart is in the order."""
    record = json.loads(next(line for line in lines if '"type":"NEW"' in line and '"sport"' in line))
    others = []
    for path, value in (
        (["type"], "UPDATE"),
        (["id"], 1),
        (["netns"], 2),
        (["boot_id"], "f" * 32),
        (["host"], "other"),
        (["status"], ["DYING"]),
        (["state"], 3),
        (["protonum"], 132),
        (["original", "src"], "192.0.2.1"),
        (["original", "dst"], "192.0.2.1"),
        (["original", "sport"], 1),
        (["original", "dport"], 1),
        (["original", "icmp_id"], 1),
        (["time_ns"], record["time_ns"] + 1),
    ):
        other = json.loads(json.dumps(record))
        place = other
        for key in path[:-1]:
            place = place[key]
        assert place.get(path[-1]) != value
        place[path[-1]] = value
        others.append(json.dumps(other))
    tables = engine.tables()
    tables.add_lines([json.dumps(record), *others, json.dumps(record)])
    assert tables.value("SELECT count() FROM nfct_flows FINAL") == len(others) + 1


def test_community_ids_of_any_tuple(filled):
    """Also of addresses and ports that end in zeros."""
    chance = random.Random(5)
    records, wanted = [], []
    for number in range(400):
        proto = chance.choice([1, 6, 17, 33, 47, 58, 132])
        version = 6 if proto == 58 else 4 if proto == 1 else chance.choice([4, 6])
        ends = ["10.0.0.0", "10.0.1.0", "0.0.0.0", "192.0.2.7"] if version == 4 else ["::", "fd00::", "2001:db8::7"]
        src, dst = chance.choice(ends), chance.choice(ends)
        sport, dport = chance.choice([0, 1, 256, 443, 65535]), chance.choice([0, 256, 443, 512])
        original = {"src": src, "dst": dst, "sport": sport, "dport": dport}
        if proto in (1, 58):
            original = {"src": src, "dst": dst, "icmp_type": number % 256, "icmp_code": number % 3}
        one, other = (number % 256, number % 3) if proto in (1, 58) else (sport, dport)
        wanted.append(community_id(proto, src, dst, one, other))
        records.append(
            {"type": "NEW", "time_ns": TIME + number, "host": "any", "proto": f"ipv{version}/x", "protonum": proto}
            | {"original": original, "owner": {"pid": None}}
        )
    filled.add_lines(map(json.dumps, records))
    rows = filled.rows("SELECT community_id, community_id_nat FROM nfct_flows WHERE host = 'any' ORDER BY time")
    assert rows == [{"community_id": one, "community_id_nat": None} for one in wanted]


def test_status_words_are_those_of_the_kernel(filled):
    words = [word.name for word in Status]
    record = {"type": "NEW", "time_ns": TIME, "host": "words", "original": {"src": "::", "dst": "::"}, "status": words}
    filled.add_lines([json.dumps(record)])
    assert filled.value("SELECT status FROM nfct_flows WHERE host = 'words'") == sum(Status)


def test_retention_drops_what_is_older(engine, lines):
    tables = engine.tables("INTERVAL 90 DAY")
    tables.add_lines(lines)
    tables.do("OPTIMIZE TABLE nfct_flows FINAL")
    assert tables.value("SELECT count() FROM nfct_flows") == 0


def test_an_unknown_key_does_no_harm(filled, lines):
    """A later version may write more."""
    record = json.loads(lines[0]) | {"host": "later", "new": {"a": [1]}}
    record["owner"] |= {"newer": [{"b": None}], "newest": "x"}
    filled.add_lines([json.dumps(record)])
    assert filled.value("SELECT count() FROM nfct_flows WHERE host = 'later'") == 1


def test_the_whole_file_runs_at_once(engine):
    """As it is piped into clickhouse-client."""
    text = subprocess.run([*PROGRAM, "fleet", "clickhouse.sql"], capture_output=True, check=True, text=True).stdout
    engine.do("CREATE DATABASE whole")
    for _ in range(2):  # and again, which changes nothing
        engine.do("USE whole")
        engine.do(text)
    names = engine.do("SELECT name FROM system.tables WHERE database = 'whole' ORDER BY 1", "TSV").split()
    assert names == [
        "nfct_batches",
        "nfct_batches_to_flows",
        "nfct_flows",
        "nfct_lines",
        "nfct_lines_to_flows",
        "nfct_lines_to_losses",
        "nfct_losses",
    ]


def test_lines_of_many_flows(engine):
    """With --aggregate: every flow counts, and what came twice does not, nor is anything taken for the same."""
    described = [
        dict(version=4, proto=6, zone=0, mark=0, orig=("10.0.0.1", port, "192.0.2.1", 443), reply=reply, id=port)
        for port in range(40000, 40100)
        for reply in [("192.0.2.1", 443, "198.51.100.7", port + 1)]
    ]
    chunks = [flow(message(one), owner(1 + i % 3), owner(), time=TIME) for i, one in enumerate(described)]
    chunks += [flow(message(described[0]), owner(1), owner(), time=TIME + 60 * 10**9)]
    data, _ = write(whole(*map(process, range(3)), *chunks), 10)
    tables = engine.tables()
    for _ in range(2):
        tables.add_lines(data.decode().splitlines())
    columns = "count, sport, nat_src, nat_sport, community_id, community_id_nat IS NULL AS not_nat, pid"
    times = "toUnixTimestamp64Nano(first_time) AS first, toUnixTimestamp64Nano(last_time) AS last"
    rows = tables.rows(f"SELECT {columns}, {times} FROM nfct_flows FINAL ORDER BY time, pid")
    *many, one = rows
    assert [(row["count"], row["pid"]) for row in rows] == [(34, 4000), (33, 4001), (33, 4002), (1, 4000)]
    assert {(row["sport"], row["nat_sport"], row["community_id"], row["not_nat"]) for row in many} == {(0, None, "", 1)}
    assert {(row["first"], row["last"], row["nat_src"]) for row in many} == {(TIME, TIME, "::ffff:198.51.100.7")}
    assert (one["sport"], one["nat_sport"], one["first"], one["not_nat"]) == (40000, 40001, None, 0)
    assert one["community_id"].startswith("1:")
    assert tables.value("SELECT sum(count) FROM nfct_flows FINAL") == 101
