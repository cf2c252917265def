"""Recordings made of saved messages of the kernel, with owners: what a store or a player is given."""

import json
import struct

from nfct_fast.replay.recording_host import MAGIC, VERSION

HEADER = struct.Struct("=8sII")
CHUNK = struct.Struct("=II")
HOST, PROCESS, FLOW, LOSS, END = range(1, 6)
ABOUT = {
    "host": "box",
    "machine_id": None,
    "boot_id": "0" * 32,
    "boot_time": 10**18,
    "users": "joe:x:1000:\n",
    "groups": "",
}


def chunk(kind, data):
    return CHUNK.pack(len(data), kind) + data + bytes(-len(data) % 8)


def process(slot, comm=b"curl", ancestors=(), cmdline=b"curl\0-s", pid=None, exe=b"/usr/bin/curl", cgroup=None):
    cgroup = b"/system.slice/a.service" if cgroup is None else cgroup
    fixed = struct.pack(
        "=IIiiIIIIQQQQQQIIIIII",
        slot, 0xFF, 4000 + slot if pid is None else pid, 1, 1000, 1000, 0, 0, 77, 770_000_000, 4026531840, len(cmdline),
        1, 2, len(comm), len(exe), len(cmdline), len(cgroup), len(cgroup), len(ancestors),
    )  # fmt: skip
    parts = b"".join(struct.pack("=QiHH", *start or [5], pid, len(name), 0) + name for pid, name, *start in ancestors)
    return chunk(PROCESS, fixed + comm + exe + cmdline + cgroup + parts)


def owner(slot=0, others=(), reason=0, used=False, cookie=7):
    """used: the others used the tuple before; else they hold the socket as well."""
    match, has = 1 if slot else 0, 7 if used else 3
    part = struct.pack("=QQQIIIIBBBB", 0, cookie, 8, 1000, 1000, slot, 0, len(others), has, match, reason)
    return part + struct.pack(f"={len(others)}I", *others)


def flow(message, *owners, time=10**18, kind=1, began=0):
    fixed = struct.pack("=qQqIHBBB7x", time, 4026531840, began, len(message), 0, kind, 1, 0)
    return chunk(FLOW, fixed + message + b"".join(owners))


def loss(time=10**18, events=3, since=0):
    return chunk(LOSS, struct.pack("=qqQQII", time, since, 5, events, 1, 0))


def beginning(about=None, version=VERSION):
    return HEADER.pack(MAGIC, version, 0x01020304) + chunk(HOST, json.dumps(about or ABOUT).encode())


def whole(*chunks, flows=None, losses=None, about=None):
    def count(kind):
        return sum(CHUNK.unpack_from(one)[1] == kind for one in chunks)

    flows = count(FLOW) if flows is None else flows
    end = struct.pack("=QQ", flows, count(LOSS) if losses is None else losses)
    return beginning(about) + b"".join(chunks) + chunk(END, end)
