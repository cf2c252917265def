"""Name the process behind each alert of an IDS: python alerts.py EVE_JSON [SEED]

Follows a file of Suricata's, or of another IDS that writes JSON lines with a community_id (in suricata.yaml:
community-id: yes). An alert may come before or after its flow is reported; where NAT changes addresses, it bears those
of either side.
"""

import asyncio
import json
import sys
from collections import OrderedDict
from typing import Any, TextIO

from nfct_fast import Conntrack, Flow

FLOWS, ALERTS = 100_000, 10_000  # remembered, at most


class Matcher:
    def __init__(self) -> None:
        self.flows: OrderedDict[str, Flow] = OrderedDict()
        self.alerts: OrderedDict[str, list[dict[str, Any]]] = OrderedDict()

    def add_flow(self, flow: Flow) -> None:
        for community_id in {flow.community_id, flow.community_id_nat} - {None}:
            assert community_id is not None
            self.flows[community_id] = flow
            for alert in self.alerts.pop(community_id, ()):
                report(alert, flow)
        while len(self.flows) > FLOWS:
            self.flows.popitem(last=False)

    def add_alert(self, alert: dict[str, Any]) -> None:
        community_id = str(alert["community_id"])
        if (flow := self.flows.get(community_id)) is not None:
            report(alert, flow)
            return
        self.alerts.setdefault(community_id, []).append(alert)
        while len(self.alerts) > ALERTS:
            self.alerts.popitem(last=False)


def report(alert: dict[str, Any], flow: Flow) -> None:
    owner = flow.owner
    what = (alert.get("alert") or {}).get("signature", "?")
    print(ascii(what), flow.src, flow.dst, owner.process or owner.reason, owner.uid, flush=True)


async def follow(file: TextIO, matcher: Matcher) -> None:
    """Take the alerts that are added to a file."""
    rest = ""
    while True:
        rest += file.readline()
        if not rest.endswith("\n"):  # nothing new, or half a line
            await asyncio.sleep(0.1)
            continue
        record, rest = json.loads(rest), ""
        if record.get("event_type") == "alert" and "community_id" in record:
            matcher.add_alert(record)


async def main(path: str, seed: int) -> None:
    matcher = Matcher()
    with open(path) as file, Conntrack(community_id=seed) as conntrack:
        file.seek(0, 2)  # from now on
        following = asyncio.create_task(follow(file, matcher))
        print("ready", flush=True)
        async for flow in conntrack:
            matcher.add_flow(flow)
            if following.done():
                following.result()  # what ended it


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0))
