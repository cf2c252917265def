"""How fields are named where some are chosen: as in templates, shorter where that is clear, or as JSON has them."""

import difflib

from nfct_fast.output.fields import FIELDS

_TOP = """type time time_ns schema host machine_id boot_id proto protonum original reply community_id community_id_nat
direction status mark zone timeout state id use netns original_packets original_bytes reply_packets reply_bytes start_ns
stop_ns outcome duration_ns count first_ns last_ns forgotten recovered owner peer""".split()
_TUPLE = "src dst sport dport icmp_type icmp_code icmp_id".split()
_OWNER = """pid ppid uid gid user group start entity_id start_ns ns_pid login_uid forked ancestors comm exe cgroup unit
user_unit slice container runtime claimed_unit claimed_container claimed_runtime exe_size cgroup_size exe_dev exe_inode
cmdline cmdline_size inode cookie cgroup_id others users match reason""".split()
_BASE64 = "comm exe cgroup container runtime claimed_container claimed_runtime cmdline user group".split()
JSON_KEYS = (
    *_TOP,
    *[f"{side}.{name}" for side in ("original", "reply") for name in _TUPLE],
    *[f"{side}.{name}" for side in ("owner", "peer") for name in _OWNER],
)
# Templates have one field where JSON has another.
_RENAMED = {"service": "cgroup", "parent": "ancestors"}


def _short_names():
    """Template fields by their last name; those of the peer are always named in full."""
    names = {"ts": "ts"}
    for field in FIELDS:
        side, _, name = field.partition(".")
        if side != "peer":
            names[name] = None if name in names else field
    return {name: field for name, field in names.items() if field is not None}


_SHORT = _short_names()
_LONG = {
    **{field: field for field in FIELDS},
    **{field.replace("info.", "owner."): field for field in FIELDS if field.startswith("info.")},
}


def split_fields(text) -> list[str]:
    """Return the names in a list such as "src,dst,pid". ValueError if there is none, or one twice."""
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise ValueError(f"{text!r} is not a list of fields, such as src,dst,dport,pid,comm")
    if len(set(names)) < len(names):
        raise ValueError(f"{text!r} names a field twice")
    return names


def _unknown(name, known):
    near = difflib.get_close_matches(name, known, 3, 0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "README.md has all"
    return ValueError(f"unknown field {name!r} ({hint})")


def template_field(name) -> str:
    """Return the name that a template has for a field: "pid" and "owner.pid" are "info.pid". ValueError."""
    field = _SHORT.get(name) or _LONG.get(name)
    if field is None:
        raise _unknown(name, [*_SHORT, *_LONG])
    return field


def short_name(field) -> str:
    """Return the shortest name of a template's field."""
    name = field.rpartition(".")[2]
    return name if _SHORT.get(name) == field else field


def json_keys(name) -> list[str]:
    """Return the keys of JSON for a field: its own names, or a template's. ValueError.

    A name's bytes in base64, which only some records have, come with the name.
    """
    key = name if name in JSON_KEYS else _key_of(name)
    if key is None:
        raise _unknown(name, [*JSON_KEYS, *_SHORT])
    outer, _, inner = key.partition(".")
    return [key, f"{key}_base64"] if outer in ("owner", "peer") and inner in _BASE64 else [key]


def _key_of(name):
    field = _SHORT.get(name) or _LONG.get(name)
    if field is None:
        return None
    if field == "ts":
        return "time"
    side, _, last = field.partition(".")
    if side != "ev":
        return f"{'owner' if side == 'info' else side}.{_RENAMED.get(last, last)}"
    if last in _TUPLE:
        return f"original.{last}"
    if last.startswith("reply_") and last.removeprefix("reply_") in _TUPLE:
        return f"reply.{last.removeprefix('reply_')}"
    return f"{last}_ns" if last in ("duration", "first", "last") else last
