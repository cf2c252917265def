"""Conntrack.batches(): when a batch is due, how it ends, and that no flow is lost in between."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from nfct_fast import Batch, Conntrack
from support.cli import until

SENDER = "import socket; socket.socket(2, 2).sendto(b'x', ('127.0.0.1', 9))"
ROOMY = {"attribution": "off", "protocol": "ipv4/udp", "probe": False}


@pytest.fixture
def conntrack(tracked, within):
    with within(), Conntrack(**ROOMY) as opened:
        yield opened


def ports(batches):
    return [row["dport"] for batch in batches for row in batch.to_dicts()]


def send(*numbers):
    for port in numbers:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"x", ("127.0.0.1", port))


def test_rows_are_in_order_and_none_is_missing(conntrack, flood):
    batches = conntrack.batches(max_rows=1000, max_wait=0.2)
    made, found = flood(20_500, 0), []
    while sum(map(len, found)) < made:
        found.append(next(batches))
    assert [len(batch) for batch in found] == [1000] * 20 + [500]
    assert ports(found) == [1024 + i for i in range(made)]


def test_a_batch_is_due_some_time_after_its_first_row(conntrack):
    batches = conntrack.batches(max_wait=0.3)
    began = time.monotonic()
    threading.Timer(0.2, send, (7,)).start()
    assert ports([next(batches)]) == [7] and time.monotonic() - began >= 0.5
    send(8)
    assert ports([next(conntrack.batches(max_wait=0))]) == [8]


def test_it_ends_when_stopped_and_gives_what_was_received(conntrack, flood):
    made = flood(3_000, 0)
    until(lambda: conntrack.stats().events == made)
    conntrack.stop()
    assert ports(conntrack.batches(max_rows=999, max_wait=3600)) == [1024 + i for i in range(made)]
    assert list(conntrack.batches()) == []


def test_close_wakes_it(conntrack):
    found = []
    thread = threading.Thread(target=lambda: found.extend(conntrack.batches(max_wait=60)))
    thread.start()
    send(5)
    until(lambda: conntrack.stats().events == 1)
    time.sleep(0.1)
    conntrack.close()
    thread.join(5)
    assert not thread.is_alive() and ports(found) == [5]
    with pytest.raises(ValueError, match="closed"):
        conntrack.batches()


def test_other_ways_of_reading_go_on_where_it_ended(conntrack):
    batches = conntrack.batches(max_rows=2)
    send(1, 2, 3, 4, 5)
    assert ports([next(batches)]) == [1, 2]
    assert next(conntrack).dport == 3
    assert ports([next(conntrack.batches(max_rows=1)), next(batches)]) == [4, 5]


def test_what_was_gathered_and_not_taken_is_undelivered(conntrack):
    async def give_up():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(conntrack.batches(max_wait=60)), 0.3)

    send(1, 2)
    asyncio.run(give_up())
    conntrack.close()
    assert conntrack.stats().undelivered == 2 and conntrack.unreported == (2, False)


@pytest.mark.parametrize(
    "wrong", [{"max_rows": 0}, {"max_rows": 1 << 25}, {"max_wait": -1}, {"max_wait": float("nan")}, {"max_wait": 1e6}]
)
def test_bad_arguments(conntrack, wrong):
    [name] = wrong
    with pytest.raises(ValueError, match=name):
        conntrack.batches(**wrong)


def test_one_reader_at_a_time(conntrack):
    thread = threading.Thread(target=lambda: list(conntrack.batches()))
    thread.start()
    time.sleep(0.2)
    with pytest.raises(RuntimeError, match="another thread"):
        next(conntrack.batches())
    conntrack.close()
    thread.join(5)


def test_it_keeps_its_conntrack(tracked, within):
    with within():
        batches = Conntrack(**ROOMY).batches(max_rows=1)
        send(6)
        assert ports([next(batches)]) == [6]


class Interrupted(Exception):
    pass


def test_interrupts_lose_nothing(conntrack, flood):
    def answer(number, frame):
        if frame.f_code is take.__code__:
            raise Interrupted

    batches, found, interrupts = conntrack.batches(max_rows=500, max_wait=0.05), [], 0

    def take():
        found.extend(batches)

    before = signal.signal(signal.SIGALRM, answer)
    try:
        thread = threading.Thread(target=flood, args=(40_000, 40_000))
        thread.start()
        signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
        deadline = time.monotonic() + 20
        while sum(map(len, found)) < 40_000 and time.monotonic() < deadline:
            try:
                take()
            except Interrupted:
                interrupts += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        thread.join()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupts > 10 and ports(found) == [1024 + i for i in range(40_000)]


def test_async_for(conntrack, flood):
    """No thread; other tasks have their turn; stats() and close() work meanwhile."""
    turns, found = [], []

    async def tick():
        while True:
            turns.append(conntrack.stats().events)
            await asyncio.sleep(0.005)

    async def main():
        before = len(os.listdir("/proc/self/task"))
        other = asyncio.create_task(tick())
        flooding = asyncio.create_task(asyncio.to_thread(flood, 20_000, 40_000))
        asyncio.get_running_loop().call_later(2, conntrack.close)
        async for batch in conntrack.batches(max_rows=3000, max_wait=0.1):
            assert isinstance(batch, Batch)
            found.append(batch)
            if sum(map(len, found)) == 20_000:
                conntrack.close()
        await flooding
        other.cancel()
        return len(os.listdir("/proc/self/task")) - before

    assert asyncio.run(main()) <= 1  # to_thread's own
    assert ports(found) == [1024 + i for i in range(20_000)] and len(turns) > 20


def test_cancellation_loses_nothing(conntrack, flood):
    async def main():
        found, cancelled = [], 0
        batches = conntrack.batches(max_rows=700, max_wait=0.05)
        flooding = asyncio.create_task(asyncio.to_thread(flood, 10_000, 10_000))
        while sum(map(len, found)) < 10_000:
            task = asyncio.ensure_future(anext(batches))
            await asyncio.sleep(0.003)
            if task.cancel():
                cancelled += 1
            try:
                found.append(await task)
            except asyncio.CancelledError:
                pass
        await flooding
        return found, cancelled

    found, cancelled = asyncio.run(asyncio.wait_for(main(), 30))
    assert cancelled > 20 and ports(found) == [1024 + i for i in range(10_000)]


@pytest.mark.parametrize("how", ["task", "thread", "stop"])
def test_a_waiting_task_is_woken(conntrack, how):
    async def main():
        waiting = asyncio.ensure_future(anext(conntrack.batches(), None))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        if how == "thread":
            threading.Thread(target=conntrack.close).start()
        elif how == "stop":
            conntrack.stop()
        else:
            conntrack.close()
        return await asyncio.wait_for(waiting, 5)

    assert asyncio.run(main()) is None


def test_descriptors_are_given_back(conntrack):
    before = len(os.listdir("/proc/self/fd"))

    async def main():
        for _ in range(3):
            send(9)
            assert ports([await anext(conntrack.batches(max_wait=0))]) == [9]

    asyncio.run(main())
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_redacted_is_in_no_column(tracked, within):
    secret = ["--password=hunter2"]
    with within(), Conntrack(protocol="ipv4/udp", probe=False, redact=["hunter."]) as conntrack:
        subprocess.run([sys.executable, "-c", SENDER, *secret], check=True)
        [row] = next(conntrack.batches(max_rows=1)).to_dicts()
    assert row["cmdline"].endswith("--password=[redacted]") and "hunter" not in str(row)


def test_memory_of_a_batch_outlives_the_conntrack(conntrack):
    send(3)
    batch = next(conntrack.batches(max_wait=0))
    conntrack.close()
    assert ports([batch]) == [3]
