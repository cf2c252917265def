"""What reads bytes that others write, each as a function of bytes that raises AssertionError where the answer cannot
be.

Nothing here may raise anything else, whatever the bytes are: a user, a container's root, or another kernel has chosen
them.
"""

import base64
import errno
import json
import os
import tempfile
from pathlib import Path

from nfct_fast.namespaces.local_routes import parse_route
from nfct_fast.processes import cgroup
from nfct_fast.processes.process_object import process
from nfct_fast.records.messages import MessageDecoder
from nfct_fast.sockets.proc_net import ProcNet
from nfct_fast.text.text_buffer import escape

BETWEEN = b"\xfe--\xfe"  # parts of one input that go into files of their own
PROTOCOLS = {"tcp": 6, "udp": 17, "udp6": 17, "raw": 255}


def folder():
    return Path(tempfile.mkdtemp(prefix="nfct-fuzz-", dir="/dev/shm"))


class Conntrack:
    """NETLINK_NETFILTER datagrams: one decoder for all, whose object is used again."""

    def __init__(self):
        self.decoder = MessageDecoder()
        # What is decoded first, and then again after whatever came between.
        self.good, self.told = None, None

    def __call__(self, data):
        flows = self.decoder.decode(data, 7)
        assert len(flows) <= len(data) // 20
        for flow in flows:
            assert flow.time_ns == 7 and flow.type in ("NEW", "UPDATE", "DESTROY")
            repr(flow), flow.proto, flow.original, flow.reply, flow.counters, flow.status, flow.start_ns, flow.stop_ns
        told = [(repr(flow), flow.original, flow.reply, flow.mark, flow.zone, flow.status, flow.id) for flow in flows]
        if self.good is None and len(flows) == 1:
            self.good, self.told = data, told
        elif self.good is not None:
            [again] = self.decoder.decode(self.good, 7)
            assert [
                (repr(again), again.original, again.reply, again.mark, again.zone, again.status, again.id)
            ] == self.told


def sock_diag(data):
    from nfct_fast.testing.diag_client import parse_reply  # in no wheel

    for proto, src, dst in ((6, "10.0.0.1", "10.0.0.2"), (17, "2001:db8::1", "2001:db8::2")):
        found = parse_reply(data, 7, proto, src, 1000, dst, 53)
        assert found is None or isinstance(found, dict) or -4096 < found < 0, found
        if isinstance(found, dict):
            assert found["kind"] in ("exact", "wildcard", "listener")


def route(data):
    for address in ("10.0.0.1", "2001:db8::1"):
        assert parse_route(data, address) in (True, False, -errno.EBADMSG)


class Proc:
    """Files of /proc/PID: stat, status, cgroup and cmdline."""

    def __init__(self):
        self.root = folder()
        self.files = [self.root / "5" / name for name in ("stat", "status", "cgroup", "cmdline")]
        self.files[0].parent.mkdir()

    def __call__(self, data):
        for file, part in zip(self.files, [*data.split(BETWEEN), b"", b"", b"", b""]):
            file.write_bytes(part)
        found = process(5, self.root, cmdline_limit=64)
        if found is None:
            return
        assert len(os.fsencode(found.comm)) <= 1024 and found.start_ticks >= 0
        assert found.cmdline is None or sum(map(len, found.cmdline)) <= 64
        for name in dir(found):
            if not name.startswith("__"):
                getattr(found, name)


class ProcNetTables:
    """Files of /proc/net."""

    def __init__(self):
        self.root = folder()

    def __call__(self, data):
        name = list(PROTOCOLS)[data[0] % 4] if data else "tcp"
        (self.root / name).write_bytes(data[1:])
        net = ProcNet(self.root)
        for proto in {*PROTOCOLS.values()}:
            for src, dst in (("127.0.0.1", "127.0.0.9"), ("::1", "::"), ("0.0.0.0", "10.0.0.1")):
                found = net.find(proto, src, 53, dst, 1)
                assert found is None or found["kind"] in (1, 2, 3, 4), found
        (self.root / name).unlink()


def cgroup_path(data):
    for trusted in (None, 0, len(data) // 2):
        names = cgroup.names(data, trusted)
        for name in names.values():
            assert name is None or name == "-.slice" or (name and os.fsencode(name) in data)
        if trusted == 0:
            assert {names[name] for name in ("unit", "user_unit", "slice", "container", "runtime")} == {None}


def text(data):
    shown = json.loads(b'"%s"' % escape(data, json=True))
    beside = escape(data, json=True, base64=True)
    assert base64.b64decode(beside, validate=True) == data if beside else shown.encode() == data
    assert len(escape(data, space=True).decode().split()) == bool(data)


TARGETS = {
    "conntrack": Conntrack,
    "sock_diag": lambda: sock_diag,
    "route": lambda: route,
    "proc": Proc,
    "procnet": ProcNetTables,
    "cgroup": lambda: cgroup_path,
    "text": lambda: text,
}
