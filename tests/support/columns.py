"""What a batch must hold, told by other means: by `Flow` objects and by Python's own UTF-8."""

import importlib
import ipaddress
import os

import pytest

PORTS = {6, 17, 33, 47, 132, 136}
PINGS = {1, 58}
LABELS = {
    "type": ("NEW", "UPDATE", "DESTROY", "FLOW", "ENTRY"),
    "direction": ("out", "in", "local", "forward"),
}
PROCESS_TEXTS = ("comm", "exe", "cgroup", "unit", "user_unit", "slice", "container", "runtime", "claimed_unit")
PROCESS_TEXTS += ("claimed_container",)


def reader(name):
    """A package that reads batches. In CI it must be there; elsewhere the reason for a skip is told."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} reads no batch here: {error}")
        pytest.skip(f"{name} cannot be imported ({error}): pip install --group test")


def valid_text(text):
    """A name as Python has it, its bytes that are not UTF-8 as surrogates, as JSON and columns have it."""
    if text is None:
        return None
    return "".join(letter if _is_valid(ord(letter)) else "\ufffd" for letter in text)


def _is_valid(point):
    is_surrogate, is_noncharacter = 0xD800 <= point <= 0xDFFF, 0xFDD0 <= point <= 0xFDEF or point & 0xFFFE == 0xFFFE
    return point and not is_surrogate and not is_noncharacter


def packed(address):
    one = ipaddress.ip_address(address)
    return one.packed if one.version == 6 else bytes(10) + b"\xff\xff" + one.packed


def owner_columns(owner, prefix):
    """The columns of one end; owner: None if it is not on this host."""
    names = ("pid", "ppid", "process_start_ns", "login_uid", "uid", "gid", "user", "group", "match", "reason")
    row = dict.fromkeys((*names, "inode", "cookie", "cgroup_id", "cmdline", "entity_id", *PROCESS_TEXTS))
    if owner is not None:
        row |= {name: getattr(owner, name) for name in ("pid", "uid", "gid", "inode", "cookie")}
        row |= {name: valid_text(getattr(owner, name)) for name in ("user", "group", "match", "reason")}
        row |= {"cgroup_id": owner.cgroup_id, "cgroup": valid_text(owner.cgroup)}
        if owner.process is None and owner.cgroup is not None:
            for name in PROCESS_TEXTS[3:]:  # an Owner says only the path, of which these come
                del row[name]
        if owner.process is not None:
            process = owner.process
            row |= {"ppid": process.ppid, "process_start_ns": process.start_ns, "login_uid": process.login_uid}
            row |= {name: valid_text(getattr(process, name)) for name in (*PROCESS_TEXTS, "entity_id")}
            if process.cmdline is not None:
                row["cmdline"] = " ".join(valid_text(word) for word in process.cmdline)
    return {prefix + name: value for name, value in row.items()}


def columns_of(flow, with_community_id=False):
    """The row of a `Flow`, as Batch.to_dicts() has it."""
    ports, ping, reply = flow.protonum in PORTS, flow.protonum in PINGS, flow.reply
    row = {name: getattr(flow, name) for name in ("type", "proto", "protonum", "src", "dst", "direction", "state")}
    row |= {name: getattr(flow, name) for name in ("mark", "zone", "timeout", "id", "use", "recovered")}
    row |= {name: getattr(flow, name) for name in ("duration_ns", "outcome", "forgotten")}
    row["first_seen"] = ",".join(flow.first_seen) or None
    row |= {
        "time": flow.time_ns,
        "start": flow.start_ns,
        "stop": flow.stop_ns,
        "status": None if flow.status is None else int(flow.status),
        "netns": flow.netns or None,
        "sport": flow.sport if ports else None,
        "dport": flow.dport if ports else None,
        "reply_src": reply and reply.src,
        "reply_dst": reply and reply.dst,
        "reply_sport": reply.sport if reply and ports else None,
        "reply_dport": reply.dport if reply and ports else None,
        "icmp_type": flow.original.icmp_type if ping else None,
        "icmp_code": flow.original.icmp_code if ping else None,
        "icmp_id": flow.original.icmp_id if ping else None,
        "community_id": flow.community_id if with_community_id else None,
        "community_id_nat": flow.community_id_nat if with_community_id else None,
        "src_packed": packed(flow.src),
        "dst_packed": packed(flow.dst),
        "reply_src_packed": reply and packed(reply.src),
        "reply_dst_packed": reply and packed(reply.dst),
    }
    for name in ("original_packets", "original_bytes", "reply_packets", "reply_bytes"):
        row[name] = flow.counters and getattr(flow.counters, name)
    return row | owner_columns(flow.owner, "") | owner_columns(flow.peer, "peer_")
