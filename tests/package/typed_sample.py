"""What a user may write, as mypy --strict sees it; see test_types.py."""

import io
import pickle
from datetime import datetime

from nfct_fast import (
    DEFAULT_REDACTIONS,
    Batch,
    CheckReport,
    CheckState,
    ClickHouseStore,
    Conntrack,
    Flow,
    Match,
    Process,
    Reason,
    Store,
)
from nfct_fast.search.alert_lines import read_alerts


def names(limit: int) -> list[tuple[str, int | None]]:
    found: list[tuple[str, int | None]] = []
    with Conntrack(events=("NEW", "DESTROY"), protocol="udp") as conntrack:
        flow: Flow
        for flow in conntrack:
            owner = flow.owner
            process = owner.process
            if process is not None and process.cmdline is not None:
                found.append((process.cmdline[0], owner.pid))
            if len(found) == limit or conntrack.stats().lost:
                break
    return found


async def rows(conntrack: Conntrack) -> int:
    count = 0
    batch: Batch
    for batch in conntrack.batches(max_rows=1000):
        count += len(batch) + batch.lost
    async for batch in conntrack.batches(max_wait=0.5):
        count += len(batch.to_dicts())
    return count


def described(flow: Flow) -> str:
    identity: str | None = None
    match flow.owner.process:
        case Process(pid, uid, entity_id=identity):
            return f"{pid} {uid} {identity} {flow.community_id} {flow.to_dict()['owner']}"
    reason: Reason | None = flow.owner.reason
    loaded: Flow = pickle.loads(pickle.dumps(flow))
    port: int | None = loaded.original.sport
    return f"{reason} {port} {flow.owner.match is Match.BPF} {hash(flow) == hash(loaded)}"


def redacted() -> Conntrack:
    return Conntrack(redact=[*DEFAULT_REDACTIONS, "x"], community_id=1)


def checked() -> dict[str, str | None]:
    report: CheckReport = Conntrack.check(netns="web", track=True)
    if report.state is CheckState.OK and report.flows[0].milliseconds is not None:
        return {}
    return {item.name: item.remedy for item in report.items if item.state != CheckState.OK}


def culprits(line: bytes) -> list[str | None]:
    found: list[str | None] = []
    with Store("/var/lib/nfct-fast") as store, io.BytesIO(line) as file:
        for alert in read_alerts(file, print):
            found += [life.flow.owner.user for life in store.find_alert(alert)]
        for flow in store.find("dport 443", since="yesterday", until=datetime.now(), limit=10):
            found += [other.owner.user for other in store.story(flow).others]
    with ClickHouseStore("http://127.0.0.1:8123", hosts=("web*",)) as table:
        found += [flow.host.name for flow in table.find("dport 443", since="yesterday")]
    return found
