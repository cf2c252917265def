"""An alert, or a flow, that another program reports: what of it says which of our flows is meant."""

import ipaddress
import math
from datetime import datetime, timedelta
from typing import NamedTuple

from nfct_fast.events.community_id import community_id
from nfct_fast.filters.number_values import PROTOCOLS
from nfct_fast.search.time_spans import MOST_NS, NS

_ICMP, _ICMPV6 = 1, 58
_WITH_PORTS = (6, 17, 132)  # those whose ports are part of a Community ID
_WHAT_MOST = 300  # characters of a signature or message that are kept


class AlertError(ValueError):
    """A line that tells of no flow, or cannot be read."""


class Alert(NamedTuple):
    """What one line says. The ends may be either way round, and may be those after NAT."""

    line: int  # counted from 1
    source: str  # which log: "suricata alert", "zeek conn", ...
    what: str  # signature, note or message; whatever its writer chose, so not to be printed as it is
    time_ns: int | None  # since the epoch
    until_ns: int | None  # of a flow: its last packet
    proto: int
    src: str
    sport: int | None  # of ICMP: the type
    dst: str
    dport: int | None  # of ICMP: the code

    @property
    def community_id(self) -> str | None:
        """With the seed 0, whatever seed the other program has; None if ports, or an ICMP type, are missing."""
        if self.proto in (*_WITH_PORTS, _ICMP, _ICMPV6) and None in (self.sport, self.dport):
            return None
        return community_id(self.proto, self.src, self.dst, self.sport, self.dport)

    @property
    def filter(self) -> str:
        """The filter of flows between these ends, in either direction, before or after NAT."""
        ways = []
        for reply in ("", "reply "):
            for src, sport, dst, dport in (
                (self.src, self.sport, self.dst, self.dport),
                (self.dst, self.dport, self.src, self.sport),
            ):
                words = [f"{reply}src {src}", f"{reply}dst {dst}"]
                if self.proto in _WITH_PORTS:
                    words += [f"{reply}{key} {port}" for key, port in (("sport", sport), ("dport", dport)) if port]
                ways.append(f"({' and '.join(words)})")
        return f"proto {self.proto} and ({' or '.join(ways)})"


def make_alert(line, source, what, times, proto, src, sport, dst, dport) -> Alert:
    """Return an Alert of values of any types. Raises AlertError.

    times: when it was, and when the flow ended, in ns; or None.
    """
    first, second = _address(src), _address(dst)
    if first.version != second.version:
        raise AlertError("addresses of two families")
    number = _protocol(proto, first.version)
    if number in (_ICMP, _ICMPV6):
        ports = [_bounded(port, 255, "ICMP type or code") for port in (sport, dport)]
    else:
        ports = [_bounded(port, 65535, "port") for port in (sport, dport)]
    what = what[:_WHAT_MOST] if isinstance(what, str) else ""
    return Alert(line, source, what, *times, number, str(first), ports[0], str(second), ports[1])


def _address(text):
    if not isinstance(text, str) or len(text) > 60 or "%" in text:
        raise AlertError("no address where one should be")
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise AlertError("no address where one should be") from None
    return getattr(address, "ipv4_mapped", None) or address


def _protocol(text, version):
    name = str(text)[:20].lower() if isinstance(text, str | int) and not isinstance(text, bool) else ""
    if name == "icmp" and version == 6:  # as Zeek has it
        return _ICMPV6
    if name.isascii() and name.isdecimal() and int(name) < 256:
        return int(name)
    if name not in PROTOCOLS:
        raise AlertError("no protocol that is known here")
    return PROTOCOLS[name]


def _bounded(value, most, what):
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 6:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise AlertError(f"no {what} where one should be")
    return value


def time_of(value) -> int | None:
    """Return ns since the epoch of a number of seconds or an ISO 8601 text with a zone; None of None or anything else
    that is no time.
    """
    try:
        if isinstance(value, str) and len(value) < 60:
            if value.replace(".", "", 1).isdecimal() and value.isascii():
                whole, _, part = value.partition(".")
                return _within(int(whole) * NS + int((part or "0")[:9].ljust(9, "0")))
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is None:
                return None
            return _within((moment - _EPOCH) // timedelta(microseconds=1) * 1000)
        if isinstance(value, float | int) and not isinstance(value, bool) and math.isfinite(value):
            return _within(int(value) * NS + round(value % 1 * 1_000_000) * 1000)
    except (ValueError, OverflowError):
        pass
    return None


def _within(ns):
    return ns if 0 <= ns <= MOST_NS else None


_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
