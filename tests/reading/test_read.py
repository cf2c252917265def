"""read(): as many flows as wanted, in as much time as there is."""

import time

import pytest

from nfct_fast import Conntrack
from support.cli import until


@pytest.fixture
def conntrack(tracked, within):
    with within(), Conntrack(protocol="ipv4/udp", attribution="off", probe=False) as opened:
        yield opened


def test_a_limit_leaves_the_rest(conntrack, flood):
    made = flood(1_000, 0)
    until(lambda: conntrack.stats().max_queued == made)
    flows = conntrack.read(limit=300)
    flows += [next(conntrack)]
    flows += conntrack.read(limit=1)
    assert len(flows) == 302
    flows += conntrack.read(limit=made, timeout=0)
    assert [flow.dport for flow in flows] == [1024 + i for i in range(made)]
    assert conntrack.read(limit=1, timeout=0) == []


def test_it_returns_what_is_at_hand_without_waiting_for_more(conntrack, flood):
    flood(5, 0)
    began = time.monotonic()
    until(lambda: conntrack.read(limit=100, timeout=60))
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("limit", [0, -1])
def test_no_flow_at_all_is_no_limit(conntrack, limit):
    with pytest.raises(ValueError, match="at least 1"):
        conntrack.read(limit=limit)


def test_arguments_have_names(conntrack):
    with pytest.raises(TypeError):
        conntrack.read(1)


@pytest.mark.parametrize("timeout", [0, -1, 1e-9])
def test_no_time_at_all(conntrack, timeout):
    assert conntrack.read(timeout=timeout) == []
