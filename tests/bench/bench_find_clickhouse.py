"""Measure how long it takes to find flows in ClickHouse, and to show them: python tests/bench/bench_find_clickhouse.py

FIND_ROWS (a million) flows of 100 hosts in a day, made in the engine of one; the engine is chdb's behind the tests' own
HTTP, in a process of its own on this machine. Needs no root.
"""

import json
import os
import random
import statistics
import sys
import tempfile
import time

from support_bench import ROOT, table

sys.path.insert(0, str(ROOT / "tests"))

from nfct_fast import ClickHouseStore, Store  # noqa: E402
from support.clickhouse_server import clickhouse  # noqa: E402
from support.stored_flows import CGROUPS, FLOW  # noqa: E402
from support.stores import make_store  # noqa: E402

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
LOOKED_UP = 20
BEGIN = 480_000 * 3600  # s since the epoch: an hour in 2024
DAY = 86400
ADDRESSES = 100_000
# Each flow is one of the template's, of another host, program, time and ends.
MAKE = """INSERT INTO nfct_flows SELECT t.* REPLACE(
    concat('host', toString(n % 100)) AS host,
    fromUnixTimestamp64Nano(toInt64({begin}) * 1000000000 + toInt64(n) * {step}, 'UTC')
        AS time,
    toIPv6(concat('::ffff:', IPv4NumToString(toUInt32(0xC6120000 + cityHash64(n, 1) % {addresses})))) AS dst,
    toUInt16(1024 + cityHash64(n, 2) % 60000) AS sport, toUInt32(n) AS id, toUInt64(n * 7) AS cookie,
    toInt32(1000 + n % 2000) AS pid, toUInt64(1000000000 + n % 2000 * 10000000) AS process_start_ns,
    addMilliseconds(t.process_start, n % 2000 * 10) AS process_start,
    concat('e', toString(n % 2000)) AS entity_id)
FROM nfct_flows AS t, (SELECT number + {first} AS n FROM numbers({count})) AS numbers WHERE t.host = '{template}'"""


def template():
    """The line of a whole flow of a process with ancestors."""
    owner = FLOW["owner"] | {
        "exe": b"/usr/bin/curl", "cgroup": CGROUPS[0],
        "cmdline": b"curl\0-s\0-o\0/dev/null\0https://example.org/a/path",
        "ancestors": [(1, 10**7, b"systemd"), (700, 2 * 10**8, b"sshd"), (900, 10**9, b"bash")],
    }  # fmt: skip
    reply = ("203.0.113.7", 443, "10.0.0.5", 40000)
    flow = FLOW | {"type": "FLOW", "began": FLOW["time"] - 10**9, "owner": owner, "reply": reply}
    with tempfile.TemporaryDirectory() as directory:
        make_store(directory, [flow])
        with Store(directory) as store:
            [one] = store.find()
    return json.dumps(one.to_dict() | {"host": "template"})


def fill(server, rows):
    server.insert([template()])
    step = 100_000
    for first in range(0, rows, step):
        server.ask(
            MAKE.format(
                begin=BEGIN, step=DAY * 10**9 // rows, addresses=ADDRESSES, first=first, count=min(step, rows - first),
                template="template",
            )
        )  # fmt: skip
    server.ask("ALTER TABLE nfct_flows DELETE WHERE host = 'template' SETTINGS mutations_sync = 2")
    server.ask("OPTIMIZE TABLE nfct_flows FINAL")


def seconds(what):
    began, spent = time.perf_counter(), time.process_time()
    count = what()
    return time.perf_counter() - began, time.process_time() - spent, count


def main():
    rows = int(os.environ.get("FIND_ROWS", "1000000"))
    chance = random.Random(7)
    with clickhouse() as server, ClickHouseStore(server.url) as store:
        fill(server, rows)
        [[there]] = json.loads(f"[{server.ask('SELECT count() FROM nfct_flows').decode()}]")
        assert there == rows, there
        looked_up = []
        for _ in range(LOOKED_UP):
            number = chance.randrange(ADDRESSES)
            address = f"198.{18 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
            looked_up.append(seconds(lambda address=address: len(list(store.find(f"dst {address}")))))
        shown = []
        for _ in range(ROUNDS):
            hour = dict(since=BEGIN * 10**9, until=(BEGIN + DAY // 20) * 10**9)
            shown.append(seconds(lambda hour=hour: sum(1 for flow in store.find(**hour) if flow.to_json())))
        first = []
        for _ in range(ROUNDS):
            first.append(seconds(lambda: len(list(store.find(limit=1, all_records=True)))))
    took, _, counts = zip(*looked_up)
    _, used, flows = map(statistics.median, zip(*shown))
    whole = statistics.median([one[0] for one in shown])
    table(
        f"Finding in {rows:,} rows of ClickHouse",
        ["what", "ms: median; longest", ""],
        [
            [
                "an address",
                f"{statistics.median(took) * 1000:.0f}; {max(took) * 1000:.0f}",
                f"{statistics.mean(counts):.1f} flows",
            ],
            ["the newest flow", f"{statistics.median([one[0] for one in first]) * 1000:.0f}", ""],
            [
                "a twentieth of them as JSON",
                f"{whole * 1000:.0f}",
                f"{flows / whole:,.0f} rows/s, {flows / used:,.0f} per CPU second",
            ],
        ],
    )


if __name__ == "__main__":
    main()
