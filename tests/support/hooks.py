"""nfct_fast.testing.hooks, which no wheel has: tests that need it are skipped if a wheel is installed."""

import pytest

from support.wheel import is_source_tree

if not is_source_tree():
    pytest.importorskip("nfct_fast.testing.hooks", reason="an installed wheel has no hooks for tests")

from nfct_fast.testing.diag_client import SockDiag, parse_reply  # noqa: E402, F401
from nfct_fast.testing.filtered import verdicts  # noqa: E402, F401
from nfct_fast.testing.hooks import (  # noqa: E402, F401
    decode_by_library,
    decode_directly,
    find_flow,
    find_sockets,
    may_come_from,
    refresh_addresses,
)


def find_socket(*arguments, **options):
    """The only one of find_sockets(), or None."""
    found = find_sockets(*arguments, **options)
    assert len(found) < 2
    return found[0] if found else None
