"""Run all measurements one after another: as root, python tests/bench [PART]...

BENCH_ROUNDS is the number of rounds (5), of which medians are printed. Takes about forty minutes, without PART
clickhouse, which is run only when it is asked for and takes a quarter of an hour more.
"""

import os
import platform
import sys
import time

import bench_attribution
import bench_cases
import bench_clickhouse
import bench_columns
import bench_delay
import bench_filter
import bench_flows
import bench_growth
import bench_loss
import bench_mixture
import bench_namespaces
import bench_reading
import bench_spawn
import bench_store
import bench_storms
import bench_volume

PARTS = {
    "volume": bench_volume.main,
    "columns": bench_columns.main,
    "cases": bench_cases.main,
    "reading": bench_reading.main,
    "loss": bench_loss.main,
    "flows": bench_flows.main,
    "delay": bench_delay.main,
    "filter": bench_filter.main,
    "growth": bench_growth.main,
    "attribution": bench_attribution.main,
    "spawn": bench_spawn.main,
    "mixture": bench_mixture.main,
    "storms": bench_storms.main,
    "store": bench_store.main,
    "namespaces": bench_namespaces.main,
}
# Not of what the program does on a host; they are run when asked for.
OTHERS = {"clickhouse": bench_clickhouse.main}

if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("bench: needs root, for network namespaces and conntrack events")
    if unknown := set(sys.argv[1:]) - {*PARTS, *OTHERS}:
        sys.exit(f"bench: unknown part {', '.join(unknown)}; choose from {', '.join([*PARTS, *OTHERS])}")
    print(
        f"Linux {platform.release()}, {os.cpu_count()} CPUs, CPython {platform.python_version()}, "
        f"{time.strftime('%F')}, load {os.getloadavg()[0]:.1f}"
    )
    for name, part in (PARTS | OTHERS).items():
        if name in sys.argv[1:] or not sys.argv[1:] and name in PARTS:
            part()
