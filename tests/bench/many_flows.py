"""Make a store of many plausible flows: python tests/bench/many_flows.py DIRECTORY [FLOWS] [HOURS]

By default ten million whole flows in 200 hours, until now: of a host with forty programs that talk to 20,000 addresses,
few of them often. Rows are made by the package's own code. Takes some minutes and 4 GB.
"""

import os
import random
import struct
import sys
import threading
import time

sys.path[:0] = [os.path.join(os.path.dirname(__file__), ".."), os.path.join(os.path.dirname(__file__), "../../src")]

from support.described_flows import Recorder  # noqa: E402
from support.filters import message  # noqa: E402
from support.stores import store_recording  # noqa: E402

HOUR_NS = 3600 * 10**9
OURS = bytes([10, 0, 0, 5])
PROGRAMS, ADDRESSES = 40, 20_000
_SRC, _DST, _SPORT, _DPORT, _ID = "198.18.0.1", "198.18.0.2", 0x1234, 0x5678, 77


def _attribute(kind, content):
    return struct.pack("=HH", len(content) + 4, kind) + content + bytes(-len(content) % 4)


def _counters(kind):
    return _attribute(kind | 0x8000, _attribute(1, struct.pack(">Q", 12)) + _attribute(2, struct.pack(">Q", 34567)))


def _sent(proto):
    flow = dict(version=4, proto=proto, orig=(_SRC, _SPORT, _DST, _DPORT), reply=(_DST, _DPORT, _SRC, _SPORT))
    sent = message(flow | dict(zone=0, mark=0), 0x102) + _counters(9) + _counters(10)
    return struct.pack("=I", len(sent)) + sent[4:]


class _Template:
    """A chunk of a flow, in which what differs from flow to flow is replaced."""

    def __init__(self, recorder, proto, owner):
        flow = dict(time=0, type="FLOW", netns=4026531840, direction=1, message=_sent(proto), owner=owner)
        whole = recorder.flow(flow | dict(peer={"reason": 12}))
        size = 8 + (struct.unpack_from("=I", whole)[0] + 7 & ~7)
        begin = size if struct.unpack_from("=I", whole, 4)[0] == 2 else 0  # after the chunk of a process
        self.process, self.chunk = whole[:begin], bytearray(whole[begin:])
        at = lambda data: [i for i in range(len(self.chunk)) if self.chunk.startswith(data, i)]  # noqa: E731
        self.src, self.dst = at(bytes([198, 18, 0, 1])), at(bytes([198, 18, 0, 2]))
        self.sport, self.dport = at(struct.pack(">H", _SPORT)), at(struct.pack(">H", _DPORT))
        [self.id] = at(struct.pack(">I", _ID))

    def fill(self, moment, lasted, address, sport, dport, number):
        chunk = self.chunk
        struct.pack_into("=q", chunk, 8, moment)
        struct.pack_into("=q", chunk, 24, moment - lasted)
        for i in self.src:
            chunk[i : i + 4] = OURS
        for i in self.dst:
            chunk[i : i + 4] = address
        for i in self.sport:
            struct.pack_into(">H", chunk, i, sport)
        for i in self.dport:
            struct.pack_into(">H", chunk, i, dport)
        struct.pack_into(">I", chunk, self.id, number)
        return bytes(chunk)


def programs(chance):
    for number in range(PROGRAMS):
        name = f"program{number}".encode()
        yield {
            "pid": 1000 + number * 7,
            "uid": chance.choice([0, 33, 1000, 1001]),
            "gid": 100,
            "comm": name,
            "exe": b"/usr/lib/programs/" + name,
            "cmdline": b"\0".join([b"/usr/lib/programs/" + name, b"--config", b"/etc/programs/%d.conf" % number]),
            "cgroup": b"/system.slice/" + name + b".service",
            "start_ns": 10**12 + number * 10**9,
            "ancestors": [(1, 10**7, b"systemd")],
        }


def addresses(chance):
    return [bytes([203, 0]) + struct.pack(">H", n) for n in chance.sample(range(65536), ADDRESSES)]


def write_flows(out, count, hours, until_ns, seed=1):
    """Write a recording to a file object: the same one for the same arguments."""
    chance = random.Random(seed)
    recorder = Recorder()
    out.write(recorder.begin())
    templates = [_Template(recorder, proto, owner) for owner in programs(chance) for proto in (6, 17)]
    for template in templates:
        out.write(template.process)
    known = addresses(chance)
    first = until_ns // HOUR_NS - hours
    done = 0
    for hour in range(hours):
        size = (count - done) // (hours - hour)
        moments = sorted([chance.randrange(HOUR_NS) for _ in range(size)])
        for moment in moments:
            template = templates[int(chance.random() ** 2 * len(templates))]
            # The address with the rank r is talked to about in proportion to 1/r.
            address = known[int(ADDRESSES ** chance.random()) - 1]
            out.write(
                template.fill(
                    (first + hour) * HOUR_NS + moment,
                    int(chance.expovariate(1 / 5e9)),
                    address,
                    32768 + chance.getrandbits(14),
                    443 if chance.random() < 0.7 else chance.choice((53, 80, 123, 8080)),
                    chance.getrandbits(32),
                )
            )
        done += size
    recorder._flows = count
    out.write(recorder.end())


def make(directory, count=10_000_000, hours=200, until_ns=None):
    """Make the store; hours before this one, or before `until_ns`."""
    read, write = os.pipe()

    def produce():
        with open(write, "wb", buffering=1 << 20) as out:
            write_flows(out, count, hours, time.time_ns() if until_ns is None else until_ns)

    producer = threading.Thread(target=produce)
    producer.start()
    try:
        store_recording(directory, read)
    finally:
        os.close(read)
        producer.join()


def main():
    directory = sys.argv[1]
    os.makedirs(directory, mode=0o700, exist_ok=True)
    began = time.perf_counter()
    make(directory, *map(int, sys.argv[2:4]))
    print(f"made in {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
