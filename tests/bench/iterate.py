"""Take flows as Python objects and count them: python iterate.py [ATTRIBUTION]"""

import signal
import sys

from nfct_fast.conntrack import Conntrack

mode = sys.argv[1] if len(sys.argv) > 1 else "off"


def stop(number, frame):
    raise KeyboardInterrupt


count = 0
with Conntrack(attribution=mode, probe=False) as conntrack:
    signal.signal(signal.SIGTERM, stop)
    try:
        for _flow in conntrack:
            count += 1
    except KeyboardInterrupt:
        pass
    print(count, "events,", conntrack.stats().lost, "lost")
