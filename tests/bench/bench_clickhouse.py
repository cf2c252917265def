"""Measure the tables and questions of `nfct-fast fleet` in ClickHouse's own engine, chdb.

Run: python tests/bench/bench_clickhouse.py [stored] [ways] [questions] [KEEP=DIRECTORY]

Makes FLEET_RECORDS records (ten million) of 1,000 hosts in 30 days, which takes some minutes, 2 GB of disk and 6 GB of
memory: bytes of each on disk, how many go in per second as lines and as Arrow, and how long each question takes. With
KEEP the database stays in DIRECTORY, and is taken from there the next time. Needs no root.
"""

import contextlib
import datetime
import json
import os
import statistics
import sys
import tempfile
import time

import many_hosts
from support_bench import rounds, table

sys.path.insert(1, os.path.join(os.path.dirname(__file__), ".."))

from support.clickhouse import Engine, Tables  # noqa: E402

HOSTS, DAYS = 1_000, 30
RECORDS = int(os.environ.get("FLEET_RECORDS", "10000000"))
PER_INSERT = 500_000
LAST_WEEK = 7
NEEDLES = 600


def moment(day, second=0):
    """A time of one of the days as a parameter, and in ns."""
    when = datetime.datetime.combine(FIRST, datetime.time(), datetime.UTC) + datetime.timedelta(day, second)
    return when.strftime("%F %T"), int(when.timestamp()) * 10**9


FIRST = datetime.date.today() - datetime.timedelta(DAYS)


def needles():
    """Lines of what the questions are to find: a beacon, a scan, a theft, a new destination, and losses."""
    owner = {"pid": 4242, "entity_id": "NeedleNeedleNeed", "exe": "/tmp/.x", "comm": "x", "unit": "service7.service"}
    line = {"type": "FLOW", "host": "host0007.example.net", "proto": "ipv4/tcp", "protonum": 6, "direction": "out"}
    line |= {"owner": owner, "outcome": "answered", "original_bytes": 500, "reply_bytes": 300}
    ends = {"src": "10.1.0.7", "dst": "198.51.100.99", "dport": 443}
    for number in range(NEEDLES):
        at = moment(DAYS - 2, number * 60 + number % 5)[1]
        yield line | {"time_ns": at, "id": number, "original": ends | {"sport": 40000 + number}}
        target = {"src": "10.1.0.7", "sport": 50000, "dst": f"10.2.{number // 250}.{number % 250}", "dport": 445}
        at = moment(DAYS - 2, 3600 + number)[1]
        yield line | {"time_ns": at, "id": number, "outcome": "refused", "original": target}
    theft = {"time_ns": moment(DAYS - 1)[1], "original": ends | {"sport": 1}, "original_bytes": 1 << 36}
    yield line | theft
    yield {"type": "LOST", "time_ns": moment(DAYS - 1)[1], "host": line["host"], "lost": 12345}


def make(engine, hosts=HOSTS, days=DAYS, records=RECORDS):
    tables = engine.tables()
    for day in range(days):
        many_hosts.add_day(tables, FIRST, day, records // days, hosts)
    tables.add_lines(map(json.dumps, needles()))
    tables.do("OPTIMIZE TABLE nfct_flows FINAL")
    return tables


def per_record(tables, what, source, condition="1"):
    rows = tables.value("SELECT count() FROM nfct_flows")
    query = f"SELECT sum({what}) FROM system.{source} WHERE database = currentDatabase() AND table = 'nfct_flows'"
    return float(tables.value(f"{query} AND {condition}")) / rows


def stored(engine, tables):
    rows = tables.value("SELECT count() FROM nfct_flows")
    of_columns = tables.rows(
        "SELECT column, sum(column_data_compressed_bytes) AS bytes FROM system.parts_columns WHERE active AND "
        "database = currentDatabase() AND table = 'nfct_flows' GROUP BY column ORDER BY bytes DESC LIMIT 12"
    )
    indexes = ("by_address", "by_community_id", "by_process")
    results = [
        ["on disk", per_record(tables, "bytes_on_disk", "parts", "active")],
        ["columns, uncompressed", per_record(tables, "data_uncompressed_bytes", "parts", "active")],
        *[
            [f"index {name}", per_record(tables, "data_compressed_bytes", "data_skipping_indices", f"name = '{name}'")]
            for name in indexes
        ],
        *[[f"column {row['column']}", row["bytes"] / rows] for row in of_columns],
    ]
    dense = make(engine, hosts=20, days=1, records=RECORDS // 10)
    results.insert(1, ["on disk, of 20 hosts in a day", per_record(dense, "bytes_on_disk", "parts", "active")])
    dense.do(f"DROP DATABASE {dense.name}")
    table(
        f"{rows:,} records of {HOSTS:,} hosts in {DAYS} days",
        ["bytes a record", ""],
        [[name, f"{value:.2f}"] for name, value in results],
    )


def ways(engine, tables):
    """Inserts of PER_INSERT records each, with all that follows of the views, the order and the indexes."""
    with tempfile.TemporaryDirectory(prefix="nfct-fast-bench-") as directory:
        paths = {"lines (JSONEachRow)": f"{directory}/lines", "batches (Arrow)": f"{directory}/batches"}
        many_hosts.write_lines(tables, PER_INSERT, paths["lines (JSONEachRow)"])
        many_hosts.write_batches(tables, PER_INSERT, paths["batches (Arrow)"])
        results = []
        for name, path in paths.items():
            add = Tables.add_line_file if name.startswith("lines") else Tables.add_arrow
            took, spent, merging = [], [], []
            for _ in range(rounds()):
                into = engine.tables()
                into.do("SYSTEM STOP MERGES nfct_flows")
                began, used = time.perf_counter(), time.process_time()
                add(into, path)
                took.append(time.perf_counter() - began)
                spent.append(time.process_time() - used)
                into.do("SYSTEM START MERGES nfct_flows")
                used = time.process_time()
                into.do("OPTIMIZE TABLE nfct_flows FINAL")
                merging.append(time.process_time() - used)
                into.do(f"DROP DATABASE {into.name}")
            rates = [f"{PER_INSERT / statistics.median(times):,.0f}" for times in (took, spent, merging)]
            results.append([name, f"{os.stat(path).st_size / PER_INSERT:,.0f}", *rates])
    table(
        f"Inserting {PER_INSERT:,} records at once, medians of {rounds()}",
        ["as", "bytes each", "per s", "per CPU s", "merged again, per CPU s"],
        results,
    )


def forget_files(directory):
    """Have the kernel drop what it keeps of the files in memory: those on disk only, and only these."""
    os.sync()
    for place, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(FileNotFoundError), open(os.path.join(place, name), "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed(tables, number, parameters):
    """Time, CPU time, and rows of the answer."""
    began, used = time.perf_counter(), time.process_time()
    answer = tables.ask(number, **parameters)
    return time.perf_counter() - began, time.process_time() - used, len(answer)


def milliseconds(runs, which):
    return f"{1000 * statistics.median([run[which] for run in runs]):,.0f}"


def parameters(tables):
    month = {"since": moment(0)[0], "until": moment(DAYS)[0]}
    week = {"since": moment(DAYS - LAST_WEEK)[0], "until": moment(DAYS)[0]}
    day = {"since": moment(DAYS - 2)[0], "until": moment(DAYS - 1)[0]}
    [usual] = tables.rows("SELECT toString(topK(50)(dst)[40]) AS dst FROM nfct_flows WHERE direction = 'out'")
    [rare] = tables.rows(
        "SELECT toString(dst) AS dst, any(community_id) AS id FROM nfct_flows WHERE direction = 'out' GROUP BY dst "
        "HAVING count() = 3 LIMIT 1"
    )
    parent = tables.value("SELECT any(parent_entity_id) FROM nfct_flows WHERE comm = 'curl'")
    return [
        (1, "an address, rare, in a month", month | {"address": rare["dst"]}),
        (1, "an address, talked to every day", month | {"address": usual["dst"]}),
        (2, "a Community ID, in a month", month | {"id": rare["id"]}),
        (3, "a program, in a month", month | {"exe": "/usr/lib/services/service7"}),
        (4, "a process and its descendants, in a month", month | {"entity_id": parent}),
        (5, "new destinations of a unit", {"unit": "service7.service", "since": week["since"]}),
        (6, "reached from outside, in a week", week),
        (7, "beacons, in a day", day),
        (8, "bytes out per day, in a week", week),
        (9, "scans, in a day", day | {"targets": 20}),
        (10, "blind spots, in a day", day),
    ]


def questions(engine, tables, directory):
    results = []
    for number, what, given in parameters(tables):
        cold = []
        for _ in range(rounds()):
            for cache in (
                "MARK",
                "UNCOMPRESSED",
                "INDEX MARK",
                "INDEX UNCOMPRESSED",
                "PRIMARY INDEX",
                "QUERY CONDITION",
            ):
                engine.do(f"SYSTEM DROP {cache} CACHE")
            forget_files(directory)
            cold.append(timed(tables, number, given))
        warm = [timed(tables, number, given) for _ in range(rounds())]
        plain = [timed(tables, number, given | {"final": False}) for _ in range(rounds())]
        times = [milliseconds(cold, 0), milliseconds(warm, 0), milliseconds(warm, 1), milliseconds(plain, 1)]
        print(number, what, *times, file=sys.stderr, flush=True)
        results.append([f"{number}", what, *times, f"{warm[0][2]:,}"])
    table(
        f"The questions, of {tables.value('SELECT count() FROM nfct_flows'):,} records, medians of {rounds()}",
        ["", "question", "ms, cold", "ms, warm", "CPU ms, warm", "CPU ms, without FINAL", "rows"],
        results,
    )


def main(only=()):
    keep = next((word.partition("=")[2] for word in only if word.startswith("KEEP=")), None)
    parts = {word for word in only if "=" not in word}
    with contextlib.ExitStack() as stack:
        directory = keep or stack.enter_context(tempfile.TemporaryDirectory(prefix="nfct-fast-bench-"))
        there = os.path.exists(os.path.join(directory, "made"))
        engine = Engine(directory)
        stack.callback(engine.close)
        if there:
            tables = Tables(engine, "fleet1")
        else:
            began = time.perf_counter()
            tables = make(engine)
            print(f"made in {time.perf_counter() - began:.0f} s")
            open(os.path.join(directory, "made"), "w").close()
        if not parts or "stored" in parts:
            stored(engine, tables)
        if not parts or "ways" in parts:
            ways(engine, tables)
        if not parts or "questions" in parts:
            questions(engine, tables, directory)


if __name__ == "__main__":
    main(sys.argv[1:])
