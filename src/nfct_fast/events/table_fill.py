"""How full a conntrack table is. When it is full, the kernel drops the packets of new connections."""

from nfct_fast.text.problem import Problem

LEVELS = (80, 95)  # percentages of the table in use at which an operator is told


def parse_usage(count: bytes, most: bytes) -> tuple[int, int]:
    """Return the entries and their limit from what nf_conntrack_count and nf_conntrack_max contain. ValueError."""
    return int(count), int(most)


def percentage(count: int, most: int) -> int:
    """Return how much of the table is in use, in per cent; 0 if it has no limit."""
    return 100 * count // most if most else 0


def full_table(count: int, most: int) -> Problem:
    """Return what an operator is told when one of LEVELS is reached."""
    return Problem(
        f"the conntrack table is {percentage(count, most)} % full, {count} of {most} entries: when it is full, the "
        "kernel drops new connections",
        "Raise the limit, which holds for all network namespaces, with",
        f"sysctl net.netfilter.nf_conntrack_max={2 * most}",
    )
