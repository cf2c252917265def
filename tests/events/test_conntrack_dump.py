"""Interrupted and broken dumps of the conntrack table are read again; what is left of one is not taken for another."""

import json
import os
import signal
import subprocess
import sys

import pytest

from support.cli import Program, inside, until

OPTIONS = ("-p", "ipv4/udp", "--json", "--attribution", "off", "--rcvbuf", "64K", "--rcvbuf-max", "64K")


class Told:
    """What the program has said so far."""

    def __init__(self, program):
        records = [json.loads(line) for line in program.lines]
        self.flows = [
            (record["original"]["dst"], record["original"]["dport"]) for record in records if record["type"] == "NEW"
        ]
        self.lost = sum(record["lost"] for record in records if record["type"] == "LOST")


def ready(program, flood):
    """It has read the table: what it finds there at its start counts as known."""
    flood(1, 0, address="10.99.200.1")
    program.await_lines(1)


def overrun(program, flood, address, count=5_000):
    """Flows of which the receive buffer held a few hundred, once all are reported or counted."""
    before = Told(program)
    os.kill(program.pid, signal.SIGSTOP)
    made = flood(count, 0, address=address)
    os.kill(program.pid, signal.SIGCONT)

    def grown():
        told = Told(program)
        return len(told.flows) + told.lost - len(before.flows) - before.lost >= made and told

    return until(grown), made


@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupted_dump_at_the_start(tracked, flood, faults, times):
    """Flows that the dump missed existed before all the same, and are not reported as new."""
    flood(5_000, 0, address="10.99.50.1")
    with Program(tracked, *OPTIONS, env=faults("intr", times=times)) as program:
        ready(program, flood)
        told, made = overrun(program, flood, "10.99.1.1")
        assert program.end()[0] == 0
    assert {dst for dst, _ in told.flows} == {"10.99.1.1", "10.99.200.1"}
    assert len(told.flows) == len(set(told.flows)) == made + 1 and told.lost == 0


@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupted_dump_amid_a_recovery(tracked, flood, faults, times):
    with Program(tracked, *OPTIONS, env=faults("intr", times=times, after=4)) as program:
        ready(program, flood)
        told, made = overrun(program, flood, "10.99.1.1")
        assert program.end()[0] == 0
    assert len(told.flows) == len(set(told.flows)) == made + 1 and told.lost == 0


def test_a_dump_that_is_interrupted_without_end(tracked, flood, faults):
    """It is given up after some times, and what was not found is counted."""
    with Program(tracked, *OPTIONS, env=faults("intr", times=1000, after=4)) as program:
        ready(program, flood)
        _, made = overrun(program, flood, "10.99.1.1")
        told, more = overrun(program, flood, "10.99.2.1")
        assert program.end()[0] == 0
    assert len(told.flows) == len(set(told.flows)) and len(told.flows) + told.lost == made + more + 1


@pytest.mark.parametrize("times", [1, 2])
def test_what_is_left_of_a_dump_that_was_given_up(tracked, flood, faults, times):
    """The next one begins with its own beginning, and ends with its own end."""
    with Program(tracked, *OPTIONS, env=faults("broken", times=times, after=4)) as program:
        ready(program, flood)
        made = sum(overrun(program, flood, f"10.99.{number}.1")[1] for number in (1, 2, 3))
        assert program.end()[0] == 0
    told = Told(program)
    assert len(told.flows) == len(set(told.flows)) == made + 1 and told.lost == 0


def test_what_was_lost_to_a_broken_dump_and_found_by_the_next(tracked, flood, faults):
    """It is reported, and later losses are still counted."""
    with Program(tracked, *OPTIONS, env=faults("broken", times=3, after=4)) as program:
        ready(program, flood)
        first, made = overrun(program, flood, "10.99.1.1")
        assert first.lost > 0
        _, more = overrun(program, flood, "10.99.2.1")
        # Those of the first overrun are reported now, too, in any order.
        second = until(lambda: len((told := Told(program)).flows) >= made + more + 1 and told, what="all flows")
        assert second.lost == first.lost and len(second.flows) == len(set(second.flows)) == made + more + 1
        os.kill(program.pid, signal.SIGSTOP)
        last = flood(5_000, 0, address="10.99.3.1")
        subprocess.run(inside(tracked, ["conntrack", "-F"]), check=True, capture_output=True)
        os.kill(program.pid, signal.SIGCONT)
        until(lambda: Told(program).lost > second.lost)
        assert program.end()[0] == 0
    told = Told(program)
    assert told.lost - second.lost + len(told.flows) - len(second.flows) == last


# The same of the table of addresses: asked for again after an answer that was not read to its end.
LEFTOVERS = """
import os, socket, struct, sys
from nfct_fast.namespaces.local_addresses import LocalAddresses

addresses = LocalAddresses()
[query] = [int(fd) for fd in os.listdir("/proc/self/fd") if int(fd) > 2 and int(fd) != addresses.fileno()
           and os.path.lexists(f"/proc/self/fd/{fd}") and os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")]
# A dump of all links is begun on the same socket, and its answer left there.
with socket.socket(fileno=os.dup(query)) as sock:
    sock.send(struct.pack("=IHHIIBxHiII", 32, 18, 0x301, 4711, 0, 0, 0, 0, 0, 0))
assert os.system("ip addr add 10.77.0.1/24 dev lo") == 0
assert addresses.update() and "10.77.0.1" in addresses
print("right")
"""


def test_what_is_left_of_another_dump_of_addresses(tracked):
    for number in range(100):
        subprocess.run(
            inside(tracked, ["ip", "link", "add", f"v{number}", "type", "veth", "peer", "name", f"w{number}"]),
            check=True,
        )
    done = subprocess.run(inside(tracked, [sys.executable, "-c", LEFTOVERS]), capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("right\n", "")
