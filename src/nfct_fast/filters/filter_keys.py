"""The keys of the filter language: what each looks at, and how its values are read."""

from collections.abc import Callable
from typing import NamedTuple

from nfct_fast.filters import number_values as of_numbers
from nfct_fast.filters.address_values import addresses
from nfct_fast.filters.expression import EITHER, OWNER, PEER, Expression, any_of
from nfct_fast.filters.filter_words import Word
from nfct_fast.filters.name_values import names

Reader = Callable[[str, list[Word], int], Expression]
ENDS = {"owner": OWNER, "peer": PEER}


class Key(NamedTuple):
    """One key: any of the readers' conditions may be true."""

    readers: tuple[Reader, ...]
    is_ordered: bool = False  # "<" and its like have a meaning
    of_owner: bool = False  # "owner" and "peer" may stand before it


_ID = (1 << 32) - 1
_SRC, _DST = Key((addresses("src"),)), Key((addresses("dst"),))
_REPLY_SRC, _REPLY_DST = Key((addresses("reply_src"),)), Key((addresses("reply_dst"),))
_HOST = Key((addresses("src"), addresses("dst")))
_REPLY_HOST = Key((addresses("reply_src"), addresses("reply_dst")))
_SPORT, _DPORT = Key((of_numbers.ports("sport"),), True), Key((of_numbers.ports("dport"),), True)
_REPLY_SPORT = Key((of_numbers.ports("reply_sport"),), True)
_REPLY_DPORT = Key((of_numbers.ports("reply_dport"),), True)
_PORT = Key((of_numbers.ports("sport"), of_numbers.ports("dport")), True)
_REPLY_PORT = Key((of_numbers.ports("reply_sport"), of_numbers.ports("reply_dport")), True)

# By the words of tcpdump (src host, dst port, portrange) as well, which may be two or three.
KEYS = {
    "src": _SRC, "src host": _SRC, "src net": _SRC,
    "dst": _DST, "dst host": _DST, "dst net": _DST,
    "host": _HOST, "net": _HOST,
    "sport": _SPORT, "src port": _SPORT, "src portrange": _SPORT,
    "dport": _DPORT, "dst port": _DPORT, "dst portrange": _DPORT,
    "port": _PORT, "portrange": _PORT,
    "reply src": _REPLY_SRC, "reply dst": _REPLY_DST, "reply host": _REPLY_HOST,
    "reply sport": _REPLY_SPORT, "reply dport": _REPLY_DPORT, "reply port": _REPLY_PORT,
    "proto": Key((of_numbers.protocols,)),
    "family": Key((of_numbers.families,)),
    "first_seen": Key((of_numbers.first_seen,)),
    "dir": Key((of_numbers.directions,)),
    "zone": Key((of_numbers.numbers("zone", 65535, "zone"),), True),
    "mark": Key((of_numbers.marks,), True),
    "netns": Key((of_numbers.namespaces,)),
    "pid": Key((of_numbers.numbers("pid", _ID, "pid"),), True, True),
    "uid": Key((of_numbers.numbers("uid", _ID, "uid"),), True, True),
    "gid": Key((of_numbers.numbers("gid", _ID, "gid"),), True, True),
    "user": Key((of_numbers.users,), False, True),
    **{name: Key((names(name),), False, True) for name in ("comm", "exe", "cmdline", "unit", "container")},
    "reason": Key((of_numbers.reasons,), False, True),
}  # fmt: skip


def condition(key: Key, operator: str, values: list[Word], ends: int = EITHER) -> Expression:
    """Return the expression that a key has one of these values. Raises FilterError."""
    return any_of([read(operator, values, ends) for read in key.readers])
