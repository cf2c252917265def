"""Take flows as Python objects, or as columns, and count them: python iterate.py [ATTRIBUTION [WAY]]

WAY: "flows" or "batches", which is for, "async" or "tasks", which is the same by async for, or "read".
"""

import asyncio
import signal
import sys

from nfct_fast.conntrack import Conntrack

mode = sys.argv[1] if len(sys.argv) > 1 else "off"
way = sys.argv[2] if len(sys.argv) > 2 else "flows"


def stop(number, frame):
    raise KeyboardInterrupt


def flows(conntrack):
    count = 0
    try:
        for _flow in conntrack:
            count += 1
    except KeyboardInterrupt:
        pass
    return count


def by_async_for(conntrack):
    async def take():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, conntrack.stop)
        count = 0
        async for _flow in conntrack:
            count += 1
        return count

    return asyncio.run(take())


def by_read(conntrack):
    count = 0
    try:
        while True:
            count += len(conntrack.read())
    except KeyboardInterrupt:
        pass
    return count


def batches(conntrack):
    # Stopped, it gives what is left.
    signal.signal(signal.SIGTERM, lambda number, frame: conntrack.stop())
    return sum(len(batch) for batch in conntrack.batches())


def tasks(conntrack):
    async def count():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, conntrack.stop)
        return sum([len(batch) async for batch in conntrack.batches()])

    return asyncio.run(count())


with Conntrack(attribution=mode, probe=False) as conntrack:
    signal.signal(signal.SIGTERM, stop)
    ways = {"flows": flows, "async": by_async_for, "read": by_read, "batches": batches, "tasks": tasks}
    count = ways[way](conntrack)
    print(count, "events,", conntrack.stats().lost, "lost")
