"""A Conntrack whose receive buffer is too small for a flood."""

import contextlib
import time

from nfct_fast.conntrack import Conntrack
from support.cli import SECONDS, until
from support.stopwatch import Stopwatch

TINY = {"rcvbuf": 4096, "rcvbuf_limit": 4096, "attribution": "off", "probe": False, "protocol": "ipv4/udp"}


@contextlib.contextmanager
def listening(flood, **options):
    """A Conntrack that has read the conntrack table already: entries found at its start count as known."""
    with Conntrack(**{**TINY, **options}) as conntrack:
        if "NEW" in options.get("events", ("NEW",)):
            how = "tcp" if "tcp" in options.get("protocol", "") else "one"
            assert flood(1, 0, how=how, address="10.99.99.99") == 1
            assert until(lambda: conntrack.read(timeout=0.1))[0].dst == "10.99.99.99"
        yield conntrack


def read_until_quiet(conntrack, first=0.5):
    """Return all flows that come before half a second passes without any; the first may take longer."""
    flows, deadline = [], time.monotonic() + SECONDS
    with Stopwatch() as watch:
        quiet = watch.clock() + first
        while watch.clock() < quiet:
            if more := conntrack.read(timeout=0.1):
                flows += more
                quiet = watch.clock() + 0.5
            assert time.monotonic() < deadline
    return flows
