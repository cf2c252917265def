"""Make recordings of described flows, as replay/recording_format.pxd has them: for stores of flows that nobody made.

A flow is a dict as of support.filters.flows(), with `time`, in ns, and perhaps `type`, `began` and `message`; an owner
may have a `cgroup`, `start_ns`, `ppid`, `exe_inode`, a socket of (inode, cookie, cgroup_id), and `ancestors`, which are
(pid, start_ns, comm).
"""

import struct

from nfct_fast.processes.identity import Identity
from nfct_fast.replay.recording_host import beginning
from support.filters import message

_CHUNK = struct.Struct("=II")
_PROCESS = struct.Struct("=IIiiIIIIQQQQQQIIIIII")
_ANCESTOR = struct.Struct("=QiHH")
_OWNER = struct.Struct("=QQQIIIIBBBB")
_FLOW = struct.Struct("=qQqIHBBBB6x")
_PROCESS_CHUNK, _FLOW_CHUNK, _END = 2, 3, 5
_PPID, _IDS, _COMM, _EXE, _CMDLINE, _CGROUP, _EXE_FILE = 1, 2, 4, 8, 16, 32, 128
_TYPES = {"NEW": 1, "UPDATE": 2, "DESTROY": 4, "FLOW": 5}
SLOTS = 2048


def _chunk(kind, content):
    return _CHUNK.pack(len(content), kind) + content + bytes(-len(content) % 8)


class Recorder:
    """Encodes flows in turn; begin() comes first and end() last."""

    def __init__(self):
        self._slots = {}  # by what a process is
        self._next = 0
        self._flows = 0

    def begin(self):
        return beginning(Identity())

    def end(self):
        return _chunk(_END, struct.pack("=QQ", self._flows, 0))

    def flow(self, flow):
        """The chunks of a flow: processes that are new, and the flow itself."""
        before = []
        owners = [self._owner(flow[end], before) for end in ("owner", "peer")]
        sent = flow.get("message") or message(flow, 0x102 if flow.get("type") in ("DESTROY", "FLOW") else 0x100)
        content = _FLOW.pack(
            flow["time"],
            flow["netns"],
            flow.get("began", 0),
            len(sent),
            0,
            _TYPES[flow.get("type", "NEW")],
            flow["direction"],
            0,
            0,
        )
        self._flows += 1
        return b"".join(before) + _chunk(_FLOW_CHUNK, content + sent + owners[0] + owners[1])

    def _owner(self, known, before):
        process = cgroup = has = 0
        uid = gid = 0
        if known.get("pid") is not None:
            process = self._slot(known, before)
        elif known.get("cgroup"):
            cgroup = self._slot(known, before)
        if process == 0 and known.get("uid") is not None:
            has, uid, gid = 3, known["uid"], known.get("gid", 0)
        return _OWNER.pack(
            *known.get("socket", (0, 0, 0)),
            uid,
            gid,
            process,
            cgroup,
            0,
            has,
            1 if process else 0,
            known.get("reason") or 0,
        )

    def _slot(self, known, before):
        key = tuple([known.get(name) for name in ("pid", "uid", "gid", "comm", "exe", "cmdline", "cgroup", "start_ns")])
        if key in self._slots:
            return self._slots[key] + 1
        slot = self._next = (self._next + 1) % SLOTS
        for other in [other for other, taken in self._slots.items() if taken == slot]:
            del self._slots[other]
        self._slots[key] = slot
        before.append(_chunk(_PROCESS_CHUNK, self._process(slot, known)))
        return slot + 1

    def _process(self, slot, known):
        comm, exe, cmdline, cgroup = (known.get(name) or b"" for name in ("comm", "exe", "cmdline", "cgroup"))
        has = _COMM | _EXE | _CGROUP | (_CMDLINE if cmdline else 0) | (_IDS if known.get("uid") is not None else 0)
        has |= (_PPID if "ppid" in known else 0) | (_EXE_FILE if "exe_inode" in known else 0)
        start_ns = known.get("start_ns", 0)
        ancestors = known.get("ancestors", ())
        return (
            _PROCESS.pack(
                slot,
                has if known.get("pid") is not None else _CGROUP,
                known.get("pid") or 0,
                known.get("ppid", 0),
                known.get("uid") or 0,
                known.get("gid") or 0,
                0,
                0,
                start_ns // 10_000_000,
                start_ns,
                0,
                len(cmdline),
                0xFD01 if "exe_inode" in known else 0,
                known.get("exe_inode", 0),
                len(comm),
                len(exe),
                len(cmdline),
                len(cgroup),
                len(cgroup),
                len(ancestors),
            )
            + comm
            + exe
            + cmdline
            + cgroup
            + b"".join([_ANCESTOR.pack(start, pid, len(name), 0) + name for pid, start, name in ancestors])
        )


def record(flows):
    """The bytes of a recording of flows."""
    recorder = Recorder()
    return b"".join([recorder.begin(), *map(recorder.flow, flows), recorder.end()])
