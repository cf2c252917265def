"""What a user may write, as mypy --strict sees it; see test_types.py."""

from nfct_fast import Batch, Conntrack, Flow


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
