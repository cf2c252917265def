"""What a user may write, as mypy --strict sees it; see test_types.py."""

from nfct_fast import Conntrack, Flow


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
