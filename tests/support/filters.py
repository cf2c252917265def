"""Filters with what they mean, and flows to try them on, for property tests: slow and obvious."""

import ipaddress
import re
import socket
import struct
from collections.abc import Callable
from typing import NamedTuple

from hypothesis import strategies as st

WITH_PORTS = {6, 17, 33, 132, 136}
ADDRESSES = {
    4: ["0.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.1.1", "192.0.2.7", "255.255.255.255"],
    6: ["::", "::1", "2001:db8::1", "2001:db8::2", "2001:db8:1::5", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"],
}
PREFIXES = {4: [0, 1, 8, 23, 24, 31, 32], 6: [0, 1, 32, 33, 48, 64, 127, 128]}
PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "gre": 47, "icmpv6": 58, "sctp": 132, "253": 253, "0": 0, "255": 255}
PORTS = [0, 1, 22, 80, 443, 1024, 65534, 65535]
IDS = [0, 1, 1000, 65534, (1 << 32) - 1]
MARKS = [0, 1, 0x10, 0x80000000, 0xFFFFFFFF]
DIRECTIONS = ["?", "out", "in", "local", "forward"]
REASONS = ["", "off", "forwarded", "closed", "orphaned", "exited", "permission", "budget", "ambiguous", "kernel"]
REMOTE = 12


class Filter(NamedTuple):
    """A filter and what it says of a flow. binding: 3 for a condition, 2 for "and", 1 for "or"."""

    text: str
    holds: Callable[[dict], bool]
    binding: int = 3

    def within(self, binding):
        return f"({self.text})" if self.binding < binding else self.text


def _ends(version):
    address, port = st.sampled_from(ADDRESSES[version]), st.sampled_from(PORTS)
    return st.tuples(address, port, address, port)


def _name(suffix=b""):
    return st.none() | st.text("ab", min_size=1, max_size=5).map(lambda text: text.encode() + suffix)


OWNERS = st.fixed_dictionaries(
    {
        "pid": st.none() | st.sampled_from([1, 7, 300, 4194304]),
        "uid": st.none() | st.sampled_from(IDS),
        "gid": st.sampled_from(IDS),
        "reason": st.integers(0, len(REASONS) - 1) | st.just(REMOTE),
        "comm": _name(),
        "exe": st.none() | st.text("ab/", max_size=5).map(lambda text: b"/" + text.encode()),
        "cmdline": st.none() | st.text("ab\0", max_size=6).map(lambda text: b"a" + text.encode()),
        "unit": _name(b".service"),
        "container": _name(),
    }
)


@st.composite
def flows(draw):
    version = draw(st.sampled_from([4, 6]))
    proto = draw(st.sampled_from([*PROTOCOLS.values()]))
    orig, reply = draw(_ends(version)), draw(st.none() | _ends(version))
    if proto not in WITH_PORTS:
        orig = (orig[0], 0, orig[2], 0)
        reply = reply and (reply[0], 0, reply[2], 0)
    return {
        "version": version,
        "proto": proto,
        "orig": orig,
        "reply": reply,
        "zone": draw(st.sampled_from([0, 1, 65535])),
        "mark": draw(st.sampled_from(MARKS)),
        "netns": draw(st.sampled_from([0, 4026531840])),
        "direction": draw(st.integers(0, 4)),
        "first_seen": draw(st.sampled_from([0, 0, 1, 2, 3, 4, 8, 13])),
        "owner": draw(OWNERS),
        "peer": draw(OWNERS),
    }


def _one_of(draw, strategy):
    """Some values as they stand in a filter, with or without braces, and what each means."""
    items = draw(st.lists(strategy, min_size=1, max_size=4))
    text = draw(st.sampled_from([",", ", ", " , "])).join([item[0] for item in items])
    return draw(st.sampled_from([text, f"{{{text}}}", f"{{ {text} }}"])), [item[1] for item in items]


def _number(numbers, hexadecimal=False):
    one = st.sampled_from(numbers)
    single = one.map(lambda n: (str(n), (n, n)))
    pair = st.tuples(one, one).map(sorted).map(lambda p: (f"{p[0]}-{p[1]}", (p[0], p[1])))
    return single | pair | (one.map(lambda n: (hex(n), (n, n))) if hexadecimal else single)


@st.composite
def _numbers(draw, key, numbers, values, ordered=True):
    """A condition of a number. values(flow): the known ones, any of which may be right."""
    if ordered and draw(st.booleans()):
        operator, bound = draw(st.sampled_from(["<", "<=", ">", ">=", "lt", "ge"])), draw(st.sampled_from(numbers))
        compare = {"<": int.__lt__, "<=": int.__le__, ">": int.__gt__, ">=": int.__ge__, "lt": int.__lt__}
        test = compare.get(operator, int.__ge__)
        return Filter(f"{key} {operator} {bound}", lambda flow: any(test(n, bound) for n in values(flow)))
    text, ranges = _one_of(draw, _number(numbers, True))
    operator = draw(st.sampled_from(["", "=", "==", "!=", "eq "]))

    def holds(flow):
        found = any(low <= n <= high for n in values(flow) for low, high in ranges)
        return not found if operator == "!=" else found

    return Filter(f"{key} {operator}{text}", holds)


def _tuples(name, at):
    """What a key of addresses (0, 2) or ports (1, 3) sees, by the place in the tuple."""
    tuple_of = "reply" if name.startswith("reply") else "orig"

    def values(flow):
        known = flow[tuple_of] if at[0] % 2 == 0 or flow["proto"] in WITH_PORTS else None
        return [] if known is None else [known[i] for i in at]

    return values


def _network(text):
    if "-" in text:
        low, high = map(ipaddress.ip_address, text.split("-"))
        return lambda address: low.version == address.version and low <= address <= high
    network = ipaddress.ip_network(text, strict=False)
    return lambda address: address.version == network.version and address in network


@st.composite
def _addresses(draw, key, values):
    def texts(version):
        one = st.sampled_from(ADDRESSES[version])
        network = st.tuples(one, st.sampled_from(PREFIXES[version])).map(lambda p: f"{p[0]}/{p[1]}")
        between = st.tuples(one, one).map(lambda p: "-".join(sorted(p, key=ipaddress.ip_address)))
        return one | network | between

    text, tests = _one_of(draw, (texts(4) | texts(6)).map(lambda text: (text, _network(text))))
    return Filter(
        f"{key} {text}",
        lambda flow: any(test(ipaddress.ip_address(one)) for one in values(flow) for test in tests),
    )


@st.composite
def _marks(draw):
    value, mask = draw(st.sampled_from(MARKS)), draw(st.sampled_from([1, 0x10, 0xFF, 0xFFFFFFFF]))
    return Filter(f"mark {value & mask:#x}/{mask:#x}", lambda flow: flow["mark"] & mask == value & mask)


@st.composite
def _protocols(draw):
    text, numbers = _one_of(draw, st.sampled_from([*PROTOCOLS.items()]))
    return Filter(f"proto {text}", lambda flow: flow["proto"] in numbers)


def _words():
    protocol = st.sampled_from(["tcp", "udp", "icmp"])
    family = st.sampled_from([4, 6])
    return (
        protocol.map(lambda name: Filter(name, lambda flow: flow["proto"] == PROTOCOLS[name]))
        | family.map(lambda n: Filter(f"family ipv{n}", lambda flow: flow["version"] == n))
        | family.map(lambda n: Filter("ip6" if n == 6 else "ip", lambda flow: flow["version"] == n))
        | st.tuples(family, protocol).map(
            lambda p: Filter(f"ipv{p[0]}/{p[1]}", lambda f: f["version"] == p[0] and f["proto"] == PROTOCOLS[p[1]])
        )
    )


def _owners(flow, ends):
    """Whose processes are meant: the peer's only if it is on this host."""
    known = {"owner": flow["owner"]}
    if flow["direction"] and flow["peer"]["reason"] != REMOTE:
        known["peer"] = flow["peer"]
    return [owner for end, owner in known.items() if ends in (end, "")]


def glob(text, suffix=b""):
    translated = "".join([{"*": ".*", "?": "."}.get(character, re.escape(character)) for character in text])
    expression = re.compile(translated.encode() + re.escape(suffix), re.DOTALL)
    return lambda name: expression.fullmatch(name) is not None


@st.composite
def _of_owner(draw):
    ends = draw(st.sampled_from(["", "owner", "peer"]))
    key = draw(st.sampled_from(["pid", "uid", "gid", "user", "reason", "comm", "exe", "cmdline", "unit", "container"]))
    if key == "reason":
        text, wanted = _one_of(draw, st.sampled_from([(name, number) for number, name in enumerate(REASONS)][1:]))
        return Filter(f"{ends} reason {text}", lambda f: any(one["reason"] in wanted for one in _owners(f, ends)))
    if key in ("pid", "uid", "gid", "user"):

        def values(flow):
            field = "uid" if key == "user" else key
            return [
                one[field]
                for one in _owners(flow, ends)
                if one[field] is not None and (key == "pid" or one["uid"] is not None)
            ]

        return draw(_numbers(f"{ends} {key}", IDS + [7, 300], values, ordered=key != "user"))
    letters = {"exe": "ab/*?", "cmdline": "ab*? "}.get(key, "ab*?")
    text = ("/" if key == "exe" else "") + draw(st.text(letters, min_size=1, max_size=6))
    test = glob(text, b".service" if key == "unit" and not re.search(r"[*?]", text) else b"")

    def holds(flow):
        for one in _owners(flow, ends):
            name = one[key]
            if name and (one["pid"] is not None or key in ("unit", "container")):
                if test(name.replace(b"\0", b" ") if key == "cmdline" else name):
                    return True
        return False

    return Filter(f'{ends} {key} "{text}"', holds)


@st.composite
def _first_seen(draw):
    known = {"any": 15, "*": 15, "destination": 1, "port": 2, "roaming": 4, "scanning": 8}
    text, bits = _one_of(draw, st.sampled_from([*known.items()]))
    return Filter(f"first_seen {text}", lambda flow: any(flow["first_seen"] & one for one in bits))


_ADDRESS_KEYS = {"src": (0,), "dst host": (2,), "dst": (2,), "host": (0, 2), "net": (0, 2)}
_ADDRESS_KEYS |= {f"reply {name}": at for name, at in _ADDRESS_KEYS.items() if name in ("src", "dst", "host")}
_PORT_KEYS = {"sport": (1,), "dport": (3,), "dst port": (3,), "port": (1, 3)}
_PORT_KEYS |= {f"reply {name}": at for name, at in _PORT_KEYS.items() if " " not in name}
# What the kernel sees of a message.
OF_MESSAGES = st.one_of(
    *[_addresses(name, _tuples(name, at)) for name, at in _ADDRESS_KEYS.items()],
    *[_numbers(name, PORTS, _tuples(name, at)) for name, at in _PORT_KEYS.items()],
    _numbers("zone", [0, 1, 65535], lambda flow: [flow["zone"]]),
    _numbers("mark", MARKS, lambda flow: [flow["mark"]]),
    _marks(),
    _protocols(),
    _words(),
)
OF_FLOWS = OF_MESSAGES | _numbers(
    "netns", [4026531840, 5], lambda flow: [flow["netns"]] if flow["netns"] else [], ordered=False
)
OF_OWNERS = (
    _of_owner()
    | _first_seen()
    | st.sampled_from(DIRECTIONS[1:]).map(
        lambda name: Filter(f"dir {name}", lambda flow: DIRECTIONS[flow["direction"]] == name)
    )
)


@st.composite
def _negated(draw, parts):
    part, word = draw(parts), draw(st.sampled_from(["not ", "!", "NOT not ! "]))
    return Filter(word + part.within(3), lambda flow: not part.holds(flow))


@st.composite
def _joined(draw, parts):
    some = draw(st.lists(parts, min_size=2, max_size=3))
    if draw(st.booleans()):
        word = draw(st.sampled_from([" or ", "||", " OR "]))
        return Filter(word.join([one.within(2) for one in some]), lambda flow: any([p.holds(flow) for p in some]), 1)
    word = draw(st.sampled_from([" and ", "&&", " "]))
    return Filter(word.join([one.within(2) for one in some]), lambda flow: all([p.holds(flow) for p in some]), 2)


def filters(conditions):
    return st.recursive(conditions, lambda parts: _negated(parts) | _joined(parts), max_leaves=8)


# A message as the kernel makes it, for a program that looks at messages.


def _attribute(kind, content, nested=False):
    length = len(content) + 4
    return struct.pack("=HH", length, kind | nested << 15) + content + bytes(-length % 4)


def _tuple(flow, ends):
    src, sport, dst, dport = ends
    first = 1 if flow["version"] == 4 else 3
    packed = [ipaddress.ip_address(address).packed for address in (src, dst)]
    proto = _attribute(1, bytes([flow["proto"]]))
    if flow["proto"] in WITH_PORTS:
        proto += _attribute(2, struct.pack(">H", sport)) + _attribute(3, struct.pack(">H", dport))
    addresses = _attribute(first, packed[0]) + _attribute(first + 1, packed[1])
    return _attribute(1, addresses, True) + _attribute(2, proto, True)


def message(flow, kind=0x100):
    """IPCTNL_MSG_CT_NEW (0x100) or _DELETE (0x102) of a flow."""
    body = struct.pack("=BBH", socket.AF_INET if flow["version"] == 4 else socket.AF_INET6, 0, 0)
    body += _attribute(1, _tuple(flow, flow["orig"]), True)
    if flow["reply"] is not None:
        body += _attribute(2, _tuple(flow, flow["reply"]), True)
    if flow["zone"]:
        body += _attribute(18, struct.pack(">H", flow["zone"]))
    body += _attribute(12, struct.pack(">I", flow.get("id", 77)))
    body += _attribute(3, struct.pack(">I", flow.get("status", 0x108)))
    if flow["mark"]:
        body += _attribute(8, struct.pack(">I", flow["mark"]))
    if "counters" in flow:  # CTA_COUNTERS_ORIG and _REPLY: packets and bytes
        for attribute, counts in zip((9, 10), flow["counters"]):
            both = [_attribute(i, struct.pack(">Q", n)) for i, n in enumerate(counts, 1)]
            body += _attribute(attribute, b"".join(both), True)
    if "start" in flow:  # CTA_TIMESTAMP, ns since the epoch
        times = [
            _attribute(i, struct.pack(">Q", flow[end])) for i, end in enumerate(("start", "stop"), 1) if end in flow
        ]
        body += _attribute(20, b"".join(times), True)
    if "timeout" in flow:
        body += _attribute(7, struct.pack(">I", flow["timeout"]))
    if "state" in flow:  # of TCP
        body += _attribute(4, _attribute(1, _attribute(1, bytes([flow["state"]])), True), True)
    return struct.pack("=IHHII", 16 + len(body), kind, 0x600, 0, 0) + body
