"""What a store costs: run as root, python tests/bench/bench_store.py

Flows stored per CPU second by nfct-store itself, in two parts (rows as they come, indexes when the hour is over), bytes
of a flow, and the CPU time that the program itself takes more with --store.
"""

import os
import statistics
import sys
import time

from nfct_fast.store.finishing import finish
from nfct_fast.store.hour_file import connect
from nfct_fast.store.schema import store_files
from nfct_fast.store.store_writer import StoreWriter
from support_bench import NFCT_FAST, count_lines, measure, medians, record_flood, rounds, space, table

FLOWS, RATE = 200_000, 20_000


def store_once(recording, directory):
    """CPU seconds of rows and of indexes, flows, and bytes without and with indexes."""
    directory.mkdir()
    fd = os.open(recording, os.O_RDONLY)
    began = time.process_time()
    writer = StoreWriter(str(directory), fd)
    writer.run()
    rows = time.process_time() - began
    os.close(fd)
    sizes = [sum(os.path.getsize(file.path) for file in store_files(directory))]
    began = time.process_time()
    for file in store_files(directory):
        connection = connect(file.path)
        finish(file.path, connection)
        connection.close()
    indexes = time.process_time() - began
    sizes.append(sum(os.path.getsize(file.path) for file in store_files(directory)))
    return rows, indexes, writer.stored, *sizes


def main():
    with space() as place:
        recording = place.directory / "flood.rec"
        record_flood(place, recording, FLOWS, RATE)
        runs = [store_once(recording, place.directory / f"store{number}") for number in range(rounds())]
        rows, indexes, flows, bare, whole = map(statistics.median, zip(*runs))
        commands = {"without": NFCT_FAST, "with": [*NFCT_FAST, "--store", f"/var/tmp/nfct-bench-{os.getpid()}"]}
        reading = {name: [] for name in commands}
        for _ in range(rounds()):
            for name, command in commands.items():
                reading[name].append(measure(place, command, FLOWS, RATE, counted=count_lines))
        reading = {name: medians(these) for name, these in reading.items()}
    table(
        f"{flows:,.0f} new UDP flows stored, medians of {rounds()}",
        ["part", "flows per CPU s", "bytes per flow"],
        [
            ["rows, as they come", f"{flows / rows:,.0f}", f"{bare / flows:.0f}"],
            ["indexes, when the hour is over", f"{flows / indexes:,.0f}", f"{(whole - bare) / flows:.0f}"],
            ["both", f"{flows / (rows + indexes):,.0f}", f"{whole / flows:.0f}"],
        ],
    )
    table(
        "The program itself (without nfct-store)",
        ["--store", "flows per CPU s", "CPU us per flow", "peak MiB"],
        [
            [name, f"{one.per_second:,.0f}", f"{1e6 / one.per_second:.2f}", f"{one.peak:.0f}"]
            for name, one in reading.items()
        ],
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
