"""Kill the logger fifty times while it stores flows under load: as root, python tests/store_kill [ROUNDS].

Each time all its processes are killed at once (SIGKILL), SQLite checks the files, and every flow that was made more
than a second before has to be in them. Takes about four minutes.
"""

import random
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.cli import Program
from support.netns import ip, made, use_conntrack
from support.store_checks import place
from support.store_kill import kill_once

PROMISED = 1.0  # seconds
LOAD = 3_000  # further flows per second


def main(rounds):
    chance = random.Random(1)
    ages, missing, flows = [], 0, 0
    with made() as netns, place() as directory, tempfile.TemporaryDirectory() as scratch:
        use_conntrack(netns)
        flood = Path(scratch, "flood")
        subprocess.run(["gcc", "-O2", "-o", flood, Path(__file__).parents[1] / "bench" / "flood.c"], check=True)
        ip("link", "add", "sink", "type", "ifb", netns=netns)
        ip("link", "set", "sink", "up", netns=netns)
        ip("addr", "add", "10.99.0.1/16", "dev", "sink", netns=netns)
        for number in range(rounds):
            seconds = chance.uniform(1.5, 3.5)
            options = ("-p", "udp", "--store", directory / "store")
            inside = ["nsenter", f"--net=/run/netns/{netns}"]
            with Program(netns, *options) as program:
                load = [*inside, flood, str(int(LOAD * (seconds + 1))), str(LOAD), "one", f"10.99.{number + 1}.1"]
                with subprocess.Popen(load, stdout=subprocess.DEVNULL) as sender:
                    killed = kill_once(program, directory / "store", netns, f"127.0.1.{number + 1}", seconds)
                    sender.kill()
            ages.append(killed.age)
            missing, flows = missing + killed.missing, flows + killed.made
            print(
                f"{number + 1}: {killed.made} made, {killed.missing} missing, the oldest {killed.age:.2f} s", flush=True
            )
    late = sum(age > PROMISED for age in ages)
    print(
        f"{rounds} kills, integrity_check ok each time; {flows} flows made, {missing} missing, at most "
        f"{max(ages):.2f} s old, {late} times more than {PROMISED} s"
    )
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 50))
