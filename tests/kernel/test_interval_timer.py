"""A descriptor that becomes readable at regular intervals."""

import select

import pytest

from nfct_fast.kernel.interval_timer import IntervalTimer


def test_expires_again_and_again():
    timer = IntervalTimer(1000)
    poll = select.poll()
    poll.register(timer, select.POLLIN)
    for _ in range(3):
        assert poll.poll(10_000)
        assert timer.expired()
    timer.close()
    timer.close()
    assert timer.fileno() == -1 and not timer.expired()


def test_not_before_its_time():
    assert not IntervalTimer(3_600_000_000).expired()


def test_no_interval():
    with pytest.raises(ValueError):
        IntervalTimer(0)
