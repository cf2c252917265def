"""The values of a filter's keys that are numbers: ports, ids, marks, and words that stand for a number."""

import difflib
import fnmatch
import pwd
import re
import socket

from nfct_fast.filters.expression import ALL_BITS, FALSE, IPV6, Condition, Expression, any_of, merged
from nfct_fast.filters.filter_words import Word
from nfct_fast.filters.flow_program import DIRECTIONS, MARKS, REASONS
from nfct_fast.kernel import netns
from nfct_fast.text.protocol import protocol_name

_NUMBER = re.compile(r"0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20}", re.ASCII)
_RANGE = re.compile(rf"({_NUMBER.pattern})-({_NUMBER.pattern})", re.ASCII)
FAMILIES = {"ipv4": 0, "ip": 0, "ip4": 0, "inet": 0, "4": 0, "ipv6": IPV6, "ip6": IPV6, "inet6": IPV6, "6": IPV6}
_LONGEST = 40  # characters of a reason's pattern that are looked at; the names are shorter
_NAMED = [(protocol_name(socket.AF_INET, number).removeprefix("ipv4/"), number) for number in range(256)]
PROTOCOLS = {name: number for name, number in _NAMED if not name.isdecimal()} | {"icmp6": 58, "ipv6-icmp": 58}


def did_you_mean(word: str, known) -> str:
    """Return " (did you mean X?)" if a known word resembles it, else ""."""
    close = difflib.get_close_matches(word[:40].lower(), list(known), 1, 0.65)
    return f" (did you mean {close[0]}?)" if close else ""


def _one(word: Word, text, most, what):
    number = int(text, 0 if text[:2] in ("0x", "0X") else 10)
    if number > most:
        raise word.error(f"{what} {word} at column {word.column} is more than {most}")
    return number


def number_range(word: Word, most: int, what: str, named=lambda word: None) -> tuple[int, int]:
    """Return the first and last number of a word like "80", "0x50" or "80-90".

    most: The largest number there can be. named: Returns the number that another word stands for, or None.
    """
    if match := _RANGE.fullmatch(word.text):
        low, high = (_one(word, text, most, what) for text in match.groups())
        if low > high:
            raise word.error(f"{what} range {word} at column {word.column} is empty; write {match[2]}-{match[1]}")
        return low, high
    if _NUMBER.fullmatch(word.text):
        number = _one(word, word.text, most, what)
    elif (number := named(word)) is None:
        raise word.error(f"{word} at column {word.column} is no {what}: a number such as 80, or a range such as 80-90")
    return number, number


def compared(operator: str, low: int, high: int, most: int, word: Word) -> tuple[int, int]:
    """Return the range that an operator such as "<" makes of a number; (1, 0) if there is nothing in it."""
    if operator in ("=", "!="):
        return low, high
    if low != high:
        raise word.error(f"{operator} at column {word.column} needs a single number, not {word}")
    if operator in ("<", "<="):
        high -= operator == "<"
        return (0, high) if high >= 0 else (1, 0)
    low += operator == ">"
    return (low, most) if low <= most else (1, 0)


def numbers(field: str, most: int, what: str, named=lambda word: None):
    """Return a reader of lists of numbers: (operator, words, ends) -> Expression."""

    def read(operator: str, words: list[Word], ends: int) -> Expression:
        ranges = merged([compared(operator, *number_range(word, most, what, named), most, word) for word in words])
        return Condition(field, ranges, ends=ends) if ranges else FALSE

    return read


def ports(field: str):
    """Return a reader of ports: numbers, ranges, names of /etc/services, with or without ss(8)'s colon before them."""

    def named(word):
        try:
            return socket.getservbyname(word.text)
        except (OSError, UnicodeError, ValueError):
            raise word.error(f"unknown port {word} at column {word.column}; write its number") from None

    read = numbers(field, 65535, "port", named)
    return lambda operator, words, ends: read(
        operator, [word._replace(text=word.text.removeprefix(":")) for word in words], ends
    )


def marks(operator: str, words: list[Word], ends: int) -> Expression:
    """Read marks as conntrack(8) does: a number, a range, or VALUE/MASK."""
    most = (1 << 32) - 1
    plain, masked = [], []
    for word in words:
        value, slash, mask = word.text.partition("/")
        if not slash:
            plain.append(compared(operator, *number_range(word, most, "mark"), most, word))
            continue
        (low, high), (bits, last) = (number_range(word._replace(text=text), most, "mark") for text in (value, mask))
        if operator not in ("=", "!=") or low != high or bits != last or low & ~bits:
            raise word.error(f"mark {word} at column {word.column} is no VALUE/MASK with VALUE within MASK")
        masked.append(Condition("mark", ((low, low),), mask=bits))
    ranges = merged(plain)
    return any_of([*masked, *([Condition("mark", ranges)] if ranges else [])])


def protocols(operator: str, words: list[Word], ends: int) -> Expression:
    """Read protocols: names and numbers, "ipv4/tcp" as well."""
    ranges = []
    for word in words:
        family, slash, name = word.text.lower().rpartition("/")
        if slash and family not in FAMILIES:
            raise word.error(f"unknown family in {word} at column {word.column}: ipv4/ or ipv6/")

        def named(word, name=name):
            if name not in PROTOCOLS:
                raise word.error(f"unknown protocol {word} at column {word.column}{did_you_mean(name, PROTOCOLS)}")
            return PROTOCOLS[name]

        low, high = number_range(word._replace(text=name), 255, "protocol", named)
        ranges += [(low + base, high + base) for base in ([FAMILIES[family]] if slash else (0, IPV6))]
    return Condition("pair", merged(ranges))


def families(operator: str, words: list[Word], ends: int) -> Expression:
    """Read address families."""
    bases = [_known(word, FAMILIES, "family", "ipv4 or ipv6") for word in words]
    return Condition("pair", merged([(base, base + IPV6 - 1) for base in bases]))


def directions(operator: str, words: list[Word], ends: int) -> Expression:
    """Read directions."""
    numbers = [_known(word, DIRECTIONS, "direction", ", ".join(DIRECTIONS)) for word in words]
    return Condition("dir", merged([(number, number) for number in numbers]))


def first_seen(operator: str, words: list[Word], ends: int) -> Expression:
    """Read the marks of what was never seen before; "any" or "*" is any of them."""
    every = {"any": 0, "*": 0}
    bits = [_known(word, MARKS | every, "mark of first_seen", f"any, {', '.join(MARKS)}") for word in words]
    if 0 in bits:
        return Condition("first_seen", ((1, ALL_BITS),))
    return any_of([Condition("first_seen", ((bit, bit),), mask=bit) for bit in bits])


def _known(word, known, what, all_of_them):
    if word.text.lower() not in known:
        raise word.error(f"unknown {what} {word} at column {word.column}: one of {all_of_them}")
    return known[word.text.lower()]


def reasons(operator: str, words: list[Word], ends: int) -> Expression:
    """Read reasons why there is no process; "*" is any of them."""
    found = []
    for word in words:
        pattern = word.text.lower()[:_LONGEST]
        matching = [number for number, name in enumerate(REASONS, 1) if fnmatch.fnmatchcase(name, pattern)]
        if not matching:
            raise word.error(f"unknown reason {word} at column {word.column}: one of {', '.join(REASONS)}")
        found += [(number, number) for number in matching]
    return Condition("reason", merged(found), ends=ends)


def _user(word):
    try:
        return pwd.getpwnam(word.text).pw_uid
    except (KeyError, ValueError):
        raise word.error(f"no user {word} on this host, at column {word.column}") from None


users = numbers("uid", (1 << 32) - 1, "user", _user)


def _namespace(word):
    if word.text == "all":
        raise word.error(f"{word} at column {word.column} is every network namespace, so leave it out")
    try:
        [space] = netns.resolve(word.text)
    except (OSError, ValueError) as error:
        what = (getattr(error, "strerror", None) or str(error)).partition(";")[0]
        raise word.error(f"{word} at column {word.column}: {what}") from None
    with space:
        return space.inode


namespaces = numbers("netns", ALL_BITS, "network namespace", _namespace)
