"""The values of a filter's keys that are addresses: single ones, networks, ranges, of both families."""

import ipaddress

from nfct_fast.filters.expression import Condition, Expression, any_of, merged
from nfct_fast.filters.filter_words import Word


def _range(word: Word):
    """The family and the first and last address, as numbers."""
    text = word.text.removeprefix("[").removesuffix("]") if word.text.endswith("]") else word.text
    try:
        if "%" in text:
            raise ValueError("an interface")
        first, dash, last = text.partition("-")
        if dash:
            low, high = ipaddress.ip_address(first), ipaddress.ip_address(last)
            if low.version != high.version:
                raise ValueError("two families")
        else:
            # Bits of the host are ignored, as by ss(8) and iptables(8).
            network = ipaddress.ip_network(text, strict=False)
            low, high = network.network_address, network.broadcast_address
    except ValueError:
        raise word.error(_what_is_wrong(word, text)) from None
    if low > high:
        raise word.error(f"range {word} at column {word.column} is empty; write {last}-{first}")
    if low == high and low.version == 6 and low.ipv4_mapped:
        low = high = low.ipv4_mapped
    return low.version, int(low), int(high)


def _what_is_wrong(word, text):
    message = f"{word} at column {word.column} is no address or network"
    if "%" in text:
        return f"{message}: leave out the interface after %"
    host, _, port = text.rpartition(":")
    if host and port.isdecimal():
        return f"{message}: addresses and ports are separate, as in dst {host[:40]} and dport {port[:5]}"
    if any(character.isalpha() for character in text) and ":" not in text:
        return f"{message}: names are not looked up"
    return f"{message}, such as 192.0.2.1, 192.0.2.0/24 or 2001:db8::/32"


def addresses(field: str):
    """Return a reader of lists of addresses: (operator, words, ends) -> Expression.

    field: "src", "dst", "reply_src" or "reply_dst"; its conditions are of field + "4" and field + "6".
    """

    def read(operator: str, words: list[Word], ends: int) -> Expression:
        ranges = {4: [], 6: []}
        for word in words:
            version, low, high = _range(word)
            ranges[version].append((low, high))
        return any_of([Condition(f"{field}{version}", merged(some)) for version, some in ranges.items() if some])

    return read
