"""An expression over a flow: conditions joined by "all of" and "any of". "not" stands at the conditions only.

Where a condition cannot be decided yet, relaxed() takes it for true. As "not" is gone, the result is true of every flow
of which the expression may be true: what refuses by it never refuses too much.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from socket import AF_INET, AF_INET6

OWNER, PEER, EITHER = 1, 2, 3  # Condition.ends
WITH_PORTS = (6, 17, 33, 132, 136)  # TCP, UDP, DCCP, SCTP, UDP-Lite: see tuple_has_ports()
ALL_BITS = (1 << 64) - 1
IPV6 = 256  # added to the protocol in the values of the field "pair"
PAIRS = (1 << 2 * IPV6) - 1  # a bit for each of them
_PORTS = ("sport", "dport", "reply_sport", "reply_dport")
_WITH_PORTS = sum(1 << proto | 1 << proto + IPV6 for proto in WITH_PORTS)


@dataclass(frozen=True, slots=True)
class Condition:
    """A field has one of some values. It is false where the field is unknown, and with `negated` the opposite."""

    field: str  # one of flow_program.FIELDS
    ranges: tuple[tuple[int, int], ...] = ()  # of numbers: first and last, in order, without overlaps
    patterns: tuple[tuple[bytes, ...], ...] = ()  # of names: the pieces between the "*" of each; NUL is any one byte
    mask: int = ALL_BITS  # of the number, before it is compared
    ends: int = EITHER  # whose: the owner's, the peer's, or either's
    negated: bool = False


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every part is true."""

    parts: tuple["Expression", ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one part is true."""

    parts: tuple["Expression", ...]


Expression = Condition | AllOf | AnyOf
TRUE = AllOf(())
FALSE = AnyOf(())


def all_of(parts) -> Expression:
    """Join by "and"."""
    return _join(AllOf, parts, FALSE)


def any_of(parts) -> Expression:
    """Join by "or"."""
    return _join(AnyOf, parts, TRUE)


def _join(kind, parts, decisive):
    flat = []
    for part in parts:
        if part == decisive:
            return decisive
        flat += part.parts if isinstance(part, kind) else [part]
    flat = _united(flat, kind is AllOf)
    return flat[0] if len(flat) == 1 else kind(tuple(flat))


def _united(parts, negated):
    """Make one condition of those of the same field: "a or b" is one list, and so is "not a and not b"."""
    result, places = [], {}
    for part in parts:
        if not isinstance(part, Condition) or part.negated != negated:
            result.append(part)
            continue
        key = part.field, part.ends, part.mask
        if key not in places:
            places[key] = len(result), [], {}
            result.append(part)
        _, ranges, patterns = places[key]
        ranges += part.ranges
        patterns.update(dict.fromkeys(part.patterns))
    for (field, ends, mask), (place, ranges, patterns) in places.items():
        result[place] = Condition(field, merged(ranges), tuple(patterns), mask, ends, negated)
    return result


def negate(expression: Expression) -> Expression:
    """Return "not" of it."""
    if isinstance(expression, Condition):
        return replace(expression, negated=not expression.negated)
    join = any_of if isinstance(expression, AllOf) else all_of
    return join(map(negate, expression.parts))


def conditions(expression: Expression) -> Iterator[Condition]:
    """Return every condition in it."""
    if isinstance(expression, Condition):
        yield expression
        return
    for part in expression.parts:
        yield from conditions(part)


def relaxed(expression: Expression, decided: Callable[[Condition], bool]) -> Expression:
    """Return what must be true for the expression to be true, by the conditions that `decided` picks alone."""
    if isinstance(expression, Condition):
        return expression if decided(expression) else TRUE
    join = all_of if isinstance(expression, AllOf) else any_of
    return join([relaxed(part, decided) for part in expression.parts])


def widened(expression: Expression, most: int) -> Expression:
    """Return an expression that is true wherever this one is, and whose conditions have at most so many ranges."""
    if not isinstance(expression, Condition):
        join = all_of if isinstance(expression, AllOf) else any_of
        return join([widened(part, most) for part in expression.parts])
    ranges = expression.ranges
    if len(ranges) <= most:
        return expression
    if expression.negated:
        largest = sorted(ranges, key=lambda one: one[0] - one[1])[:most]
        return replace(expression, ranges=tuple(sorted(largest)))
    # Keep the widest gaps.
    gaps = sorted(range(1, len(ranges)), key=lambda i: ranges[i - 1][1] - ranges[i][0])[: most - 1]
    begins = [0, *sorted(gaps)]
    ends = [*begins[1:], len(ranges)]
    return replace(expression, ranges=tuple([(ranges[a][0], ranges[b - 1][1]) for a, b in zip(begins, ends)]))


def merged(ranges) -> tuple[tuple[int, int], ...]:
    """Return ranges in order, those that overlap or touch joined."""
    result = []
    for low, high in sorted(ranges):
        if result and low <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(high, result[-1][1]))
        elif low <= high:
            result.append((low, high))
    return tuple(result)


def possible_pairs(expression: Expression) -> int:
    """Return a bit for each protocol, from 256 on of IPv6, of which the expression may be true."""
    if isinstance(expression, Condition):
        return _condition_pairs(expression)
    every = isinstance(expression, AllOf)
    pairs = PAIRS if every else 0
    for part in expression.parts:
        pairs = pairs & possible_pairs(part) if every else pairs | possible_pairs(part)
    return pairs


def _condition_pairs(condition):
    if condition.field == "pair":
        bits = sum((1 << high + 1) - (1 << low) for low, high in condition.ranges)
        return PAIRS & ~bits if condition.negated else bits
    if condition.negated:
        return PAIRS
    if condition.field in _PORTS:
        return _WITH_PORTS
    if condition.field.endswith("4"):
        return (1 << IPV6) - 1
    return PAIRS ^ ((1 << IPV6) - 1) if condition.field.endswith("6") else PAIRS


def pair_set(bits: int) -> frozenset[tuple[int, int]]:
    """Return (address family, protocol number) for each bit of possible_pairs()."""
    return frozenset(
        (AF_INET6 if pair >= IPV6 else AF_INET, pair % IPV6) for pair in range(2 * IPV6) if bits >> pair & 1
    )


def pair_condition(bits: int) -> Expression:
    """Return the condition that the flow's protocol is one of those bits."""
    if bits == PAIRS:
        return TRUE
    ranges = merged([(pair, pair) for pair in range(2 * IPV6) if bits >> pair & 1])
    return Condition("pair", ranges) if ranges else FALSE
