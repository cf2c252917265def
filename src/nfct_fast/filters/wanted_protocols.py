"""Find the protocols whose names, like "ipv4/tcp", match a regular expression."""

import re
from socket import AF_INET, AF_INET6

from nfct_fast.filters.expression import IPV6
from nfct_fast.text.protocol import protocol_name


def wanted_protocols(pattern: str | None) -> int:
    """Return a bit for each protocol, from 256 on of IPv6, whose name matches a regular expression.

    The expression is searched for, not anchored; None matches everything. Raises ValueError if it is not a regular
    expression or matches no protocol.
    """
    try:
        search = re.compile(pattern or "").search
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"protocol {pattern!r} is not a valid regular expression: {error}") from None
    wanted = 0
    for pair in range(2 * IPV6):
        if search(protocol_name(AF_INET6 if pair >= IPV6 else AF_INET, pair % IPV6)):
            wanted |= 1 << pair
    if not wanted:
        raise ValueError(f"protocol {pattern!r} matches no protocol; names look like ipv4/tcp, ipv6/udp, ipv4/icmp")
    return wanted
