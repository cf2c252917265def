"""`async for`: flows in an event loop, without a thread, and without losing any to a cancellation."""

import asyncio
import contextlib
import os
import threading

import pytest

from nfct_fast import Conntrack, Stats
from support.cli import SECONDS, until
from support.flows import send

OPTIONS = {"protocol": "ipv4/udp", "attribution": "off", "probe": False}


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request, tracked, within):
    """Runs a coroutine inside a namespace, for ten seconds at most."""
    loop = pytest.importorskip(request.param)

    def limited(main):
        async def with_limit():
            async with asyncio.timeout(SECONDS):
                return await main

        return loop.run(with_limit())

    with within():
        yield limited


async def collect(conntrack, into):
    async for flow in conntrack:
        into.append(flow)


def test_a_flow_then_the_end(run):
    """stats() and close() work from the same loop, and close() ends the iteration."""

    async def main():
        with Conntrack(protocol="udp") as conntrack:
            flows = []
            task = asyncio.create_task(collect(conntrack, flows))
            await asyncio.sleep(0.05)
            with send(9) as sender:
                while not flows:
                    await asyncio.sleep(0.01)
                assert flows[0].sport == sender.getsockname()[1] and flows[0].owner.pid == os.getpid()
            assert isinstance(conntrack.stats(), Stats) and not task.done()
            conntrack.close()
            await task
            assert conntrack.stats().events >= 1
            with pytest.raises(ValueError, match="closed"):
                aiter(conntrack)

    run(asyncio.sleep(0))  # uvloop keeps what it opens first
    before = len(os.listdir("/proc/self/fd"))
    run(main())
    assert len(os.listdir("/proc/self/fd")) == before


def test_close_by_another_thread(run):
    async def main():
        conntrack = Conntrack(**OPTIONS)
        task = asyncio.create_task(collect(conntrack, []))
        await asyncio.sleep(0.05)
        thread = threading.Thread(target=conntrack.close)
        thread.start()
        await task
        thread.join(SECONDS)

    run(main())


@pytest.mark.parametrize("way", ["timeout", "wait_for"])
def test_cancellations_lose_nothing(run, flood, way):
    """Cancelled over and over while flows come: each is handed on once, and in order."""
    flows, cancelled = [], 0

    async def one_after_the_other(conntrack):
        nonlocal cancelled
        while True:
            try:
                if way == "timeout":
                    async with asyncio.timeout(0.002):
                        await collect(conntrack, flows)
                else:
                    flows.append(await asyncio.wait_for(anext(conntrack), 0.001))
            except TimeoutError:
                cancelled += 1

    async def main():
        with Conntrack(**OPTIONS) as conntrack:
            task = asyncio.create_task(one_after_the_other(conntrack))
            made = await asyncio.to_thread(flood, 5_000, 5_000)
            while len(flows) + conntrack.stats().lost < made and not task.done():
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert conntrack.stats().lost == 0
            return made

    made = run(main())
    assert cancelled > 3
    assert [flow.dport for flow in flows] == [1024 + i for i in range(made)]


def test_other_tasks_have_their_turns(run, flood):
    """With thousands of flows at hand, none of which has to be waited for."""

    async def main():
        turns = 0

        async def other():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        with Conntrack(**OPTIONS) as conntrack:
            made = flood(20_000, 0)
            until(lambda: conntrack.stats().events == made)
            task = asyncio.create_task(other())
            taken = 0
            async for _ in conntrack:
                taken += 1
                if taken == made:
                    break
            task.cancel()
            assert turns >= made // 256

    run(main())


def test_one_reader_at_a_time(run):
    async def main():
        with Conntrack(**OPTIONS) as conntrack:
            flows = []
            task = asyncio.create_task(collect(conntrack, flows))
            await asyncio.sleep(0.05)
            for second in (lambda: conntrack.read(timeout=0), lambda: next(conntrack)):
                with pytest.raises(RuntimeError, match="already reading"):
                    second()
                with pytest.raises(RuntimeError, match="already reading"):
                    await asyncio.to_thread(second)
            with pytest.raises(RuntimeError, match="already reading"):
                await anext(conntrack)
            with send(9):
                while not flows:
                    await asyncio.sleep(0.01)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert conntrack.read(timeout=0) == []

    run(main())


def test_one_loop_after_another(tracked, within):
    async def first(conntrack):
        return await asyncio.wait_for(anext(conntrack), SECONDS)

    with within(), Conntrack(**OPTIONS) as conntrack:
        for port in (1, 2, 3):
            with send(port):
                assert asyncio.run(first(conntrack)).dport == port
        with pytest.raises(RuntimeError, match="no running event loop"):
            anext(conntrack).send(None)


def test_an_iteration_that_is_left_leaves_nothing_in_the_loop(run):
    async def main():
        with Conntrack(**OPTIONS) as conntrack:
            with send(1):
                async for _ in conntrack:
                    break
            assert not asyncio.get_running_loop().remove_reader(conntrack.fileno())

    run(main())


def test_a_fork_that_drops_a_waiting_task_leaves_the_parent_alone(tracked, within):
    async def main():
        with Conntrack(**OPTIONS) as conntrack:
            waiting = anext(conntrack)
            task = asyncio.ensure_future(waiting)
            await asyncio.sleep(0.05)
            pid = os.fork()
            if pid == 0:
                try:
                    waiting.close()
                finally:
                    os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            with send(7):
                assert (await asyncio.wait_for(task, SECONDS)).dport == 7

    with within():
        asyncio.run(main())
