"""Take flows as Python objects and count them: python iterate.py [ATTRIBUTION [for|async|read]]"""

import asyncio
import signal
import sys

from nfct_fast.conntrack import Conntrack

mode = sys.argv[1] if len(sys.argv) > 1 else "off"
way = sys.argv[2] if len(sys.argv) > 2 else "for"
count = 0


def stop(number, frame):
    raise KeyboardInterrupt


async def iterate(conntrack):
    global count
    async for _flow in conntrack:
        count += 1


with Conntrack(attribution=mode, probe=False) as conntrack:
    signal.signal(signal.SIGTERM, stop)
    try:
        if way == "async":
            asyncio.run(iterate(conntrack))
        elif way == "read":
            while True:
                count += len(conntrack.read())
        else:
            for _flow in conntrack:
                count += 1
    except KeyboardInterrupt:
        pass
    print(count, "events,", conntrack.stats().lost, "lost")
