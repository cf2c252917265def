"""Make recordings of rows of nfct_flows: what is played of them is what the logger told, and so everything that can be
said of a flow.

A row may hold anything, as a table is what somebody filled: what is none of this program's is refused with its reason.
"""

import json
import struct
from base64 import b64decode
from collections import OrderedDict

from nfct_fast.clickhouse.row_columns import WIDTH
from nfct_fast.clickhouse.row_host import RowHost
from nfct_fast.clickhouse.row_message import ends, message
from nfct_fast.clickhouse.row_process import RowProcess, bare_process, row_process
from nfct_fast.filters.flow_program import DIRECTIONS, MARKS, REASONS
from nfct_fast.records.words import Match
from nfct_fast.replay.recording_host import MAGIC, VERSION

_HEADER = struct.pack("=8sII", MAGIC, VERSION, 0x01020304)
_CHUNK = struct.Struct("=II")
_SLOT = struct.Struct("=I")
_FLOW = struct.Struct("=qQqIHBBBB6x")
_OWNER = struct.Struct("=QQQIIIIBBBB")
_PROCESS_CHUNK, _FLOW_CHUNK = 2, 3
_TYPES = {"NEW": 1, "UPDATE": 2, "DESTROY": 4, "FLOW": 5, "ENTRY": 6}
_ENDED = ("DESTROY", "FLOW")
_MATCHES = {None: 0, **{name: number for number, name in enumerate(Match, 1)}}
_REASONS = {None: 0, **{name: number for number, name in enumerate(REASONS, 1)}}
_REMOTE = _REASONS["remote"]
_UID, _GID, _USERS = 1, 2, 4
_RECOVERED, _FORGOTTEN = 64, 128
_SLOTS = 2048
_OF_ONE_FLOW = 520  # processes of one flow at most: two ends with 255 further ones each, and themselves
_OTHERS_MOST = 255
_KEPT_MOST = 20_000  # processes
_HOSTS_MOST = 5_000
_TEXT_MOST = 64 << 20  # bytes of what is kept of processes
_DAMAGED = (TypeError, ValueError, KeyError, AttributeError, IndexError, OverflowError, RecursionError, struct.error)
_NO_OWNER = _OWNER.pack(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
_NOT_HERE = _OWNER.pack(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, _REMOTE)


def _chunk(kind, content):
    return _CHUNK.pack(len(content), kind) + content + bytes(-len(content) % 8)


class RowRecording:
    """Recordings of rows that are added one by one; take() ends one, and the next one begins."""

    def __init__(self) -> None:
        self._kept: dict[str, RowProcess | None] = {}  # by the text of a row
        self._kept_bytes = 0
        self._hosts: OrderedDict[tuple, RowHost] = OrderedDict()
        self._begin()

    def _begin(self):
        self._parts = [_HEADER]
        self._slots: dict = {}  # of what this recording has
        self._host = b""  # the chunk that was written last
        self.rows = 0

    @property
    def is_full(self) -> bool:
        """Whether it has to be taken before a row is added."""
        return len(self._slots) > _SLOTS - _OF_ONE_FLOW

    def take(self) -> bytes:
        """Return the recording of what was added since the last one."""
        recording = b"".join(self._parts)
        self._begin()
        return recording

    def add(self, row: list) -> None:
        """Add a row, as row_columns.py selects it. ValueError if it is none; then nothing was added."""
        length = len(self._parts)
        try:
            self._add(row)
        except _DAMAGED as error:
            del self._parts[length:]
            raise ValueError(f"a row that no nfct-fast wrote: {str(error)[:80] or type(error).__name__}") from None
        self.rows += 1

    def _add(self, row):
        if len(row) != WIDTH:
            raise ValueError(f"{len(row)} values")
        (
            host, machine_id, boot_id, time, kind, is_v4, proto, src, sport, dst, dport, icmp_type, icmp_code, icmp_id,
            has_reply, reply_src, reply_sport, reply_dst, reply_dport, reply_icmp_type, reply_icmp_code, reply_icmp_id,
            direction, status, state, mark, zone, timeout, id, use, netns, recovered, forgotten, sent_packets,
            sent_bytes, got_packets, got_bytes, start, stop, duration, first_seen,
            uid, gid, user, group, match, reason, inode, cookie, cgroup_id, others, users,
            peer_uid, peer_gid, peer_user, peer_group, peer_match, peer_reason, peer_inode, peer_cookie,
            peer_cgroup_id, peer_others, peer_users,
            process_text, peer_text,
        ) = row  # fmt: skip
        at = 12 if is_v4 else 0
        is_icmp = proto in (1, 58)
        original = ends(
            1, proto, bytes.fromhex(src)[at:], bytes.fromhex(dst)[at:],
            (icmp_type, icmp_code, icmp_id) if is_icmp else (sport, dport),
        )  # fmt: skip
        reply = b""
        if has_reply:
            reply = ends(
                2, proto, bytes.fromhex(reply_src)[at:], bytes.fromhex(reply_dst)[at:],
                (reply_icmp_type or 0, reply_icmp_code or 0, reply_icmp_id or 0) if is_icmp
                else (reply_sport, reply_dport),
            )  # fmt: skip
        time = int(time)
        start, stop, duration = (None if one is None else int(one) for one in (start, stop, duration))
        began = 0
        if kind == "FLOW":
            began = start if start is not None else 0 if duration is None else time - duration
        counters = tuple(
            [None if one is None else int(one) for one in (sent_packets, sent_bytes, got_packets, got_bytes)]
        )
        sent = message(
            is_v4, proto, original, reply, kind in _ENDED, zone, status, timeout, counters, start, stop, state, mark,
            id, use,
        )  # fmt: skip
        process, peer_process = self._process(process_text), self._process(peer_text)
        has_peer = peer_process is not None or peer_match is not None or peer_reason is not None
        self._tell_host(
            (host, machine_id, boot_id),
            (process, peer_process),
            ((uid, user), (peer_uid, peer_user)),
            ((gid, group), (peer_gid, peer_group)),
        )
        owner = self._owner(
            process_text, process, uid, gid, match, reason, inode, cookie, cgroup_id, others, users
        )  # fmt: skip
        peer = _NO_OWNER if direction is None else _NOT_HERE
        if has_peer:
            peer = self._owner(
                peer_text, peer_process, peer_uid, peer_gid, peer_match, peer_reason, peer_inode, peer_cookie,
                peer_cgroup_id, peer_others, peer_users,
            )  # fmt: skip
        seen = 0
        for word in first_seen.split(",") if first_seen else ():
            seen |= MARKS[word]
        marks = (_RECOVERED if recovered else 0) | (_FORGOTTEN if forgotten else 0)
        fixed = _FLOW.pack(
            time, int(netns or 0), began, len(sent), marks, _TYPES[kind],
            0 if direction is None else DIRECTIONS[direction], direction == "in", seen,
        )  # fmt: skip
        self._parts.append(_chunk(_FLOW_CHUNK, b"".join((fixed, sent, owner, peer))))

    def _process(self, text):
        try:
            return self._kept[text]
        except KeyError:
            pass
        found = row_process(text)
        self._kept_bytes += len(text) + (0 if found is None else len(found.content))
        if len(self._kept) >= _KEPT_MOST or self._kept_bytes > _TEXT_MOST:
            self._kept.clear()
            self._kept_bytes = 0
        self._kept[text] = found
        return found

    def _tell_host(self, key, processes, uids, gids):
        host = self._hosts.get(key)
        if host is None:
            if len(self._hosts) >= _HOSTS_MOST:
                self._hosts.popitem(last=False)
            host = self._hosts[key] = RowHost(*key)
        boot_time = None
        for process in processes:
            if process is not None and process.boot_time is not None:
                boot_time = process.boot_time
        host.learn(boot_time, uids, gids)
        if host.chunk is not self._host:
            self._parts.append(host.chunk)
            self._host = host.chunk

    def _slot(self, key, content):
        """The slot + 1 of a process, which is written first if the recording does not have it."""
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = len(self._slots)
            self._parts.append(_chunk(_PROCESS_CHUNK, _SLOT.pack(slot) + content))
        return slot + 1

    def _owner(self, text, process, uid, gid, match, reason, inode, cookie, cgroup_id, others, users):
        slot = cgroup = has = 0
        if process is not None and process.is_process:
            slot = self._slot(text, process.content)
        elif process is not None:
            cgroup = self._slot(text, process.content)
        has = (_UID if uid is not None else 0) | (_GID if gid is not None else 0)
        further = []
        if users is not None:
            has |= _USERS
            for one in json.loads(users)[1 if slot else 0 :][:_OTHERS_MOST]:
                facts = (one["pid"], one["start_ns"], one.get("uid"), one.get("gid"), _name(one))
                further.append(self._slot(facts, bare_process(*facts)))
        elif others is not None:
            for pid in json.loads(others)[:_OTHERS_MOST]:
                further.append(self._slot((pid,), bare_process(pid)))
        part = _OWNER.pack(
            int(inode or 0), int(cookie or 0), int(cgroup_id or 0), uid or 0, gid or 0, slot, cgroup, len(further), has,
            _MATCHES[match], _REASONS[reason],
        )  # fmt: skip
        return part + struct.pack(f"={len(further)}I", *further) if further else part


def _name(one):
    exact = one.get("comm_base64")
    return one.get("comm", "").encode("utf-8", "surrogateescape") if exact is None else b64decode(exact)
