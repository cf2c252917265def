"""All measurements of volume, in turn: run as root, python tests/bench [volume|loss|delay|growth|attribution]...

BENCH_ROUNDS: how often each is done (5), of which the medians are told. Takes some twenty minutes.
"""
import os
import platform
import sys
import time

import bench_attribution
import bench_delay
import bench_growth
import bench_loss
import bench_volume

PARTS = {"volume": bench_volume.main, "loss": bench_loss.main, "delay": bench_delay.main, "growth": bench_growth.main,
         "attribution": bench_attribution.main}

if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("bench: needs root, for network namespaces and conntrack events")
    if unknown := set(sys.argv[1:]) - set(PARTS):
        sys.exit(f"bench: there are {', '.join(PARTS)}, and no {', '.join(unknown)}")
    print(f"Linux {platform.release()}, {os.cpu_count()} CPUs, CPython {platform.python_version()}, "
          f"{time.strftime('%F')}, load {os.getloadavg()[0]:.1f}")
    for name, part in PARTS.items():
        if not sys.argv[1:] or name in sys.argv[1:]:
            part()
