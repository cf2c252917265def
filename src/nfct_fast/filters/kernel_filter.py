"""A socket filter: the part of an expression that conntrack's messages decide, for the kernel to run.

Classic BPF over the message (linux/netfilter/nfnetlink_conntrack.h). Events it refuses are never queued: they take no
buffer and wake nobody. It refuses only what the whole expression would: what it cannot read it accepts, and what does
not fit into it is left to the reading thread.
"""

import struct
from socket import AF_INET, AF_INET6

from nfct_fast.filters import classic_bpf as bpf
from nfct_fast.filters.classic_bpf import ACCEPT, REFUSE, Assembler
from nfct_fast.filters.expression import (
    ALL_BITS,
    FALSE,
    IPV6,
    TRUE,
    WITH_PORTS,
    AllOf,
    Condition,
    Expression,
    pair_condition,
    possible_pairs,
    relaxed,
    widened,
)

_FAMILY = 16  # offset of nfgen_family
_ATTRIBUTES = 20
_HEADER = 4  # of an attribute
_TUPLES = {"": 1, "reply_": 2}  # CTA_TUPLE_ORIG, CTA_TUPLE_REPLY
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_PROTO_NUM, _SRC_PORT, _DST_PORT = 1, 2, 3
_ADDRESSES = {"src": (1, 3), "dst": (2, 4)}  # CTA_IP_V4_SRC, CTA_IP_V6_SRC, ...
_NUMBERS = {"zone": (18, 2), "mark": (8, 4)}  # CTA_ZONE, CTA_MARK, and their sizes
_NO_PORT = 1 << 16
# The most ranges of one condition: if a program is too long, it takes what is between listed values for listed, too.
_LIST_LIMITS = (1 << 16, 1024, 256, 64, 16, 4)
_IN_MESSAGES = ("pair", "zone", "mark", "sport", "dport", "src4", "dst4", "src6", "dst6")
FIELDS = frozenset([*_IN_MESSAGES, *[f"reply_{name}" for name in _IN_MESSAGES[3:]]])


def socket_filter(expression: Expression, fields: frozenset[str] = FIELDS) -> tuple[bytes | None, Expression]:
    """Compile what a classic BPF program can decide.

    Args:
        expression: What is wanted.
        fields: Those of FIELDS that may be used.

    Returns:
        The program, an array of struct sock_filter, and the expression that it stands for, true of everything that is
        wanted; None if that is true of every flow.
    """
    decided = relaxed(expression, lambda condition: condition.field in fields)
    if decided == TRUE:
        return None, TRUE
    for limit in _LIST_LIMITS:
        part = widened(decided, limit)
        if (program := _Compiler(part).assemble()) is not None:
            return program, part
    part = pair_condition(possible_pairs(expression))
    return (None, TRUE) if part == TRUE else (_Compiler(part).assemble(), part)


def _conditions(expression):
    if isinstance(expression, Condition):
        yield expression
    else:
        for part in expression.parts:
            yield from _conditions(part)


class _Compiler:
    """A compiler of one expression. Memory has 16 words, and all names of slots together are 16."""

    def __init__(self, expression):
        self._code = Assembler()
        self._slots = {}  # memory, by what it holds
        self._prepare({condition.field for condition in _conditions(expression)})
        self._expression(expression, ACCEPT, REFUSE)

    def assemble(self):
        return self._code.assemble()

    def _slot(self, name):
        return self._slots.setdefault(name, len(self._slots))

    def _store(self, name):
        self._code.add(bpf.ST, self._slot(name))

    # What the conditions look at is found once, at the start.

    def _prepare(self, fields):
        code = self._code
        known = object()
        code.add(bpf.LD_ABS_B, _FAMILY)
        code.jump(bpf.JEQ, AF_INET, known, None)
        code.jump(bpf.JEQ, AF_INET6, None, ACCEPT)
        code.place(known)
        reply = {field for field in fields if field.startswith("reply_")}
        if fields - set(_NUMBERS):
            self._prepare_tuple("", fields - reply)
        if reply:
            self._prepare_tuple("reply_", {field.removeprefix("reply_") for field in reply})

    def _prepare_tuple(self, prefix, fields):
        self._code.add(bpf.LD_IMM, _ATTRIBUTES)
        self._find(_TUPLES[prefix], bpf.NLATTR)
        self._store(f"{prefix}tuple")
        self._within(f"{prefix}tuple", _TUPLE_PROTO)
        self._store(f"{prefix}proto")
        if not prefix:
            self._prepare_pair()
        if ports := sorted(fields & {"sport", "dport"}):
            self._prepare_ports(prefix, ports)
        if addresses := [end for end in _ADDRESSES if {f"{end}4", f"{end}6"} & fields]:
            self._prepare_addresses(prefix, addresses)

    def _prepare_pair(self):
        code, of_ipv4 = self._code, object()
        self._within("proto", _PROTO_NUM)
        self._load(bpf.LD_IND_B, 1)
        self._store("number")
        self._store("pair")
        code.add(bpf.LD_ABS_B, _FAMILY)
        code.jump(bpf.JEQ, AF_INET, of_ipv4, None)
        code.add(bpf.LD_MEM, self._slot("pair"))
        code.add(bpf.ADD, IPV6)
        self._store("pair")
        code.place(of_ipv4)

    def _prepare_ports(self, prefix, ports):
        code, some, done = self._code, object(), object()
        code.add(bpf.LD_IMM, _NO_PORT)
        for port in ports:
            self._store(prefix + port)
        code.add(bpf.LD_MEM, self._slot("number"))
        for proto in WITH_PORTS:
            code.jump(bpf.JEQ, proto, some, None)
        code.go(done)
        code.place(some)
        for port in ports:
            self._within(f"{prefix}proto", _SRC_PORT if port == "sport" else _DST_PORT)
            self._load(bpf.LD_IND_H, 2)
            self._store(prefix + port)
        code.place(done)

    def _prepare_addresses(self, prefix, ends):
        """Keep IPv4 addresses themselves, of IPv6 ones the offset."""
        code, of_ipv6, done = self._code, object(), object()
        self._within(f"{prefix}tuple", _TUPLE_IP)
        self._store(f"{prefix}ip")
        for end in ends:
            self._store(
                prefix + end
            )  # on every way: the kernel insists, as it does not know that they exclude each other
        code.add(bpf.LD_ABS_B, _FAMILY)
        code.jump(bpf.JEQ, AF_INET, None, of_ipv6)
        for end in ends:
            self._within(f"{prefix}ip", _ADDRESSES[end][0])
            self._load(bpf.LD_IND_W, 4)
            self._store(prefix + end)
        code.go(done)
        code.place(of_ipv6)
        for end in ends:
            self._within(f"{prefix}ip", _ADDRESSES[end][1])
            self._check_size(16)
            code.add(bpf.STX, self._slot(prefix + end))
        code.place(done)

    def _within(self, name, attribute):
        """Have A be the offset of an attribute in the one whose offset is kept under a name."""
        self._code.add(bpf.LD_MEM, self._slot(name))
        self._find(attribute, bpf.NLATTR_NEST)

    def _find(self, attribute, how):
        """Have A be the offset of an attribute after, or within, the one at A; accept a message without it."""
        self._code.add(bpf.LDX_IMM, attribute)
        self._code.add(bpf.LD_ABS_W, how)
        self._code.jump(bpf.JEQ, 0, ACCEPT, None)

    def _check_size(self, size):
        """Accept a message if the attribute at A is not of this size: a read beyond the end would refuse it. X = A."""
        length = struct.unpack(">H", struct.pack("=H", _HEADER + size))[0]  # in the host's order, read as big-endian
        self._code.add(bpf.TAX)
        self._code.add(bpf.LD_IND_H, 0)
        self._code.jump(bpf.JEQ, length, None, ACCEPT)

    def _load(self, code, size):
        self._check_size(size)
        self._code.add(code, _HEADER)

    # Conditions: each ends in jumps to one of two labels.

    def _expression(self, expression, yes, no):
        if isinstance(expression, Condition):
            self._condition(expression, *((no, yes) if expression.negated else (yes, no)))
            return
        every = isinstance(expression, AllOf)
        for i, part in enumerate(expression.parts):
            following = object() if i < len(expression.parts) - 1 else yes if every else no
            self._expression(part, *((following, no) if every else (yes, following)))
            if i < len(expression.parts) - 1:
                self._code.place(following)
        if expression in (TRUE, FALSE):
            self._code.go(yes if every else no)

    def _condition(self, condition, yes, no):
        field, code = condition.field, self._code
        if field in _NUMBERS:
            self._load_number(field, condition.mask)
        elif field[-1] in "46":
            code.add(bpf.LD_ABS_B, _FAMILY)
            code.jump(bpf.JEQ, AF_INET if field[-1] == "4" else AF_INET6, None, no)
            code.add(bpf.LDX_MEM if field[-1] == "6" else bpf.LD_MEM, self._slot(field[:-1]))
        else:
            code.add(bpf.LD_MEM, self._slot(field))
        words = 4 if field[-1] == "6" else 1
        bounds = [bound for low, high in condition.ranges for bound in (low, high + 1)]
        if bounds and bounds[-1] >> 32 * words:
            bounds.pop()  # nothing is above it
        if bounds:
            self._within_bounds(bounds, 0, words, yes, no)
        else:
            code.go(no)

    def _load_number(self, field, mask):
        """Have A be the zone or the mark; the kernel leaves 0 out."""
        code, there, done = self._code, object(), object()
        attribute, size = _NUMBERS[field]
        code.add(bpf.LD_IMM, _ATTRIBUTES)
        code.add(bpf.LDX_IMM, attribute)
        code.add(bpf.LD_ABS_W, bpf.NLATTR)
        code.jump(bpf.JEQ, 0, done, there)
        code.place(there)
        self._load(bpf.LD_IND_H if size == 2 else bpf.LD_IND_W, size)
        if mask != ALL_BITS:
            code.add(bpf.AND, mask)
        code.place(done)

    def _within_bounds(self, bounds, below, words, yes, no):
        """Jump to `yes` if the number of bounds that are not above the value is odd, counting `below` more of them.

        The bounds are the firsts of ranges and the numbers after their lasts, in turn. The search halves them.
        """
        if len(bounds) == 2 and not below % 2 and words == 1 and bounds[1] == bounds[0] + 1:
            self._code.jump(bpf.JEQ, bounds[0], yes, no)
            return
        half = len(bounds) // 2
        sides = [(bounds[:half], below), (bounds[half + 1 :], below + half + 1)]
        less, more = (object() if side else yes if count % 2 else no for side, count in sides)
        self._not_above(bounds[half], words, more, less)
        for label, (side, count) in zip((less, more), sides):
            if side:
                self._code.place(label)
                self._within_bounds(side, count, words, yes, no)

    def _not_above(self, bound, words, yes, no):
        """Jump to `yes` if the value, in A or in the words at X, is at least `bound`."""
        code = self._code
        if words == 1:
            code.jump(bpf.JGE, bound, yes, no)
            return
        parts = struct.unpack(">4I", bound.to_bytes(16, "big"))
        while len(parts) > 1 and parts[-1] == 0:
            parts = parts[:-1]
        for i, part in enumerate(parts):
            code.add(bpf.LD_IND_W, _HEADER + 4 * i)
            following = object()
            if i < len(parts) - 1:
                code.jump(bpf.JEQ, part, following, None)
            code.jump(bpf.JGE, part, yes, no)
            code.place(following)
