"""The conntrack message of a row: attributes as nfnetlink has them (linux/netfilter/nfnetlink_conntrack.h)."""

import struct

_ATTRIBUTE = struct.Struct("=HH")
_NESTED = 0x8000
_ICMP, _ICMPV6 = 1, 58
_SCTP, _DCCP = 132, 33
_NEW, _DELETE = 0x100, 0x102
_CREATE_EXCL = 0x600
_AF_INET, _AF_INET6 = 2, 10


def _head(size, kind):
    return _ATTRIBUTE.pack(4 + size, kind)


def _number(kind, value, size):
    return _head(size, kind) + value.to_bytes(size, "big") + bytes(-size % 4)


def _nested(kind, content):
    return _head(len(content), kind | _NESTED) + content


# What of a tuple is the same for all of one family: CTA_TUPLE_IP with two addresses, then CTA_TUPLE_PROTO.
_IP = {
    size: (
        _head(2 * (4 + size), 1 | _NESTED) + _head(size, first),
        _head(size, first + 1),
    )
    for size, first in ((4, 1), (16, 3))
}
_PROTO = _head(1, 1)
_PORTS = (_head(3 * 8, 2 | _NESTED) + _PROTO, b"\0\0\0" + _head(2, 2), b"\0\0" + _head(2, 3), b"\0\0")
_ECHO = {
    proto: (
        _head(4 * 8, 2 | _NESTED) + _PROTO + bytes([proto]) + b"\0\0\0" + _head(2, first),
        b"\0\0" + _head(1, first + 1),
        b"\0\0\0" + _head(1, first + 2),
        b"\0\0\0",
    )
    for proto, first in ((_ICMP, 4), (_ICMPV6, 7))
}


def ends(kind: int, proto: int, src: bytes, dst: bytes, keys: tuple) -> bytes:
    """Return CTA_TUPLE_ORIG (1) or CTA_TUPLE_REPLY (2).

    src, dst: 4 or 16 bytes.
    keys: Source and destination port; or of ICMP type, code and id.
    """
    ip = _IP[len(src)]
    if proto in _ECHO:
        before, code, tail, end = _ECHO[proto]
        icmp_type, icmp_code, icmp_id = keys
        content = b"".join(
            (ip[0], src, ip[1], dst, before, icmp_id.to_bytes(2, "big"), code, bytes((icmp_type,)), tail,
             bytes((icmp_code,)), end)
        )  # fmt: skip
    else:
        sport, dport = keys
        content = b"".join(
            (ip[0], src, ip[1], dst, _PORTS[0], bytes((proto,)), _PORTS[1], sport.to_bytes(2, "big"), _PORTS[2],
             dport.to_bytes(2, "big"), _PORTS[3])
        )  # fmt: skip
    return _nested(kind, content)


def message(
    is_v4, proto, original, reply, has_ended, zone, status, timeout, counters, start, stop, state, mark, id, use
) -> bytes:
    """Return the message of an entry. What is None is left out.

    original, reply: What ends() returned; an empty reply is none.
    counters: Packets and bytes of both directions.
    """
    family = _AF_INET if is_v4 else _AF_INET6
    parts = [bytes((family, 0, 0, 0)), original, reply]
    if zone:
        parts.append(_number(18, zone, 2))
    if status is not None:
        parts.append(_number(3, status, 4))
    if timeout is not None:
        parts.append(_number(7, timeout, 4))
    if counters[0] is not None:
        for kind, (packets, octets) in ((9, counters[:2]), (10, counters[2:])):
            parts.append(_nested(kind, _number(1, packets, 8) + _number(2, octets, 8)))
    times = [_number(kind, time, 8) for kind, time in ((1, start), (2, stop)) if time is not None]
    if times:
        parts.append(_nested(20, b"".join(times)))
    if state is not None:
        which = 3 if proto == _SCTP else 2 if proto == _DCCP else 1
        parts.append(_nested(4, _nested(which, _number(1, state, 1))))
    for kind, value in ((8, mark or None), (12, id), (11, use)):
        if value is not None:
            parts.append(_number(kind, value, 4))
    content = b"".join(parts)
    return (
        struct.pack("=IHHII", 16 + len(content), _DELETE if has_ended else _NEW, 0 if has_ended else _CREATE_EXCL, 0, 0)
        + content
    )
