"""Decides which flows are wanted: a regular expression over protocols becomes a filter that runs in the kernel.

The socket filter is classic BPF over the conntrack message (linux/filter.h, linux/netfilter/nfnetlink_conntrack.h).
Events it rejects are never queued: they take no buffer and wake nobody.
"""

import re
import struct

from nfct_fast.text.protocol import FAMILIES, protocol_name

_LD_ABS_B = 0x30  # BPF_LD | BPF_B | BPF_ABS
_LD_IND_B = 0x50  # BPF_LD | BPF_B | BPF_IND
_LD_ABS_W = 0x20  # BPF_LD | BPF_W | BPF_ABS
_LD_IMM = 0x00
_LDX_IMM = 0x01
_TAX = 0x07
_JEQ = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JA = 0x05
_RET = 0x06
_SKF_AD_NLATTR = 0xFFFFF000 + 12
_SKF_AD_NLATTR_NEST = 0xFFFFF000 + 16
_ACCEPT = 0xFFFFFFFF
_NLMSG_HEADER = 16  # offset of nfgenmsg, whose first byte is the address family
_ATTRIBUTES = _NLMSG_HEADER + 4
_CTA_TUPLE_ORIG = 1
_CTA_TUPLE_PROTO = 2
_CTA_PROTO_NUM = 1
_NLA_HEADER = 4


def wanted_protocols(pattern: str | None) -> frozenset[tuple[int, int]]:
    """Return the (address family, protocol number) pairs whose name, like "ipv4/tcp", matches a regular expression.

    The expression is searched for, not anchored; None matches everything. Raises ValueError if it is not a regular
    expression or matches no protocol.
    """
    pairs = [(family, proto) for family in FAMILIES.values() for proto in range(256)]
    if pattern is None:
        return frozenset(pairs)
    try:
        search = re.compile(pattern).search
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"protocol {pattern!r} is not a valid regular expression: {error}") from None
    wanted = frozenset(pair for pair in pairs if search(protocol_name(*pair)))
    if not wanted:
        raise ValueError(f"protocol {pattern!r} matches no protocol; names look like ipv4/tcp, ipv6/udp, ipv4/icmp")
    return wanted


def _instruction(code, k, jump_true=0, jump_false=0):
    return struct.pack("=HBBI", code, jump_true, jump_false, k)


def _verdict(protocols):
    """Return instructions that accept or reject by the protocol number in the accumulator."""
    if len(protocols) == 256:
        return [_instruction(_RET, _ACCEPT)]
    result = []
    # List whichever is shorter: the wanted protocols, or the unwanted ones.
    listed, otherwise = (protocols, 0) if len(protocols) <= 128 else (set(range(256)) - protocols, _ACCEPT)
    for proto in sorted(listed):
        result += [_instruction(_JEQ, proto, 0, 1), _instruction(_RET, _ACCEPT ^ otherwise)]
    return [*result, _instruction(_RET, otherwise)]


def socket_filter(wanted: frozenset[tuple[int, int]]) -> bytes | None:
    """Return a classic BPF program (an array of struct sock_filter) that accepts wanted flows; None if all are wanted.

    It accepts messages it cannot parse: these are filtered after decoding.
    """
    if len(wanted) == 256 * len(FAMILIES):
        return None
    program = [_instruction(_LD_IMM, _ATTRIBUTES)]
    for attribute, load in (
        (_CTA_TUPLE_ORIG, _SKF_AD_NLATTR),
        (_CTA_TUPLE_PROTO, _SKF_AD_NLATTR_NEST),
        (_CTA_PROTO_NUM, _SKF_AD_NLATTR_NEST),
    ):
        program += [
            _instruction(_LDX_IMM, attribute),
            _instruction(_LD_ABS_W, load),
            _instruction(_JEQ, 0, 0, 1),
            _instruction(_RET, _ACCEPT),
        ]
    program += [_instruction(_TAX, 0)]
    for family in FAMILIES.values():
        verdict = _verdict({proto for known, proto in wanted if known == family})
        program += [
            _instruction(_LD_ABS_B, _NLMSG_HEADER),
            _instruction(_JEQ, family, 1, 0),
            _instruction(_JA, len(verdict) + 1),
            _instruction(_LD_IND_B, _NLA_HEADER),
            *verdict,
        ]
    return b"".join([*program, _instruction(_RET, _ACCEPT)])
