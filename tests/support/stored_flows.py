"""Flows and filters for property tests of what is found where flows are kept."""

from hypothesis import strategies as st

from support import filters

HOUR = 3600 * 10**9
BASE = 480_000 * HOUR  # an hour in 2024
ID = "0123456789abcdef" * 4
CGROUPS = [
    b"/system.slice/a.service",
    b"/system.slice/ab.service",
    b"/system.slice/docker-%b.scope" % ID.encode(),
    b"/user.slice/user-1000.slice/user@1000.service/app.slice/a.service",
]
TYPES = ["NEW", "UPDATE", "DESTROY", "FLOW"]


@st.composite
def stored_flows(draw):
    flow = draw(filters.flows())
    for end in ("owner", "peer"):
        flow[end] = flow[end] | {"cgroup": draw(st.none() | st.sampled_from(CGROUPS)), "start_ns": 10**9}
    flow["time"] = BASE + draw(st.integers(0, 3 * HOUR))
    flow["type"] = draw(st.sampled_from(TYPES))
    if flow["type"] == "FLOW":
        flow["began"] = flow["time"] - draw(st.integers(0, 2 * HOUR))
    return flow


CONDITIONS = (
    filters.OF_FLOWS
    | filters.OF_OWNERS
    | st.sampled_from(
        ["unit a", "unit ab.service", "unit 'a*'", "container 0123456789ab", "container '*cdef'", "peer unit a"]
    ).map(lambda text: filters.Filter(text, lambda flow: True))
)


def own_words(flow):
    """Filters that each are true of a flow, of every key that it has a value for."""
    src, sport, dst, dport = flow["orig"]
    yield from (f"src {src}", f"dst {dst}", f"host {dst}", f"src {src}/25", f"dst {dst}-{dst}")
    ported = flow["proto"] in filters.WITH_PORTS
    if ported:
        yield from (f"sport {sport}", f"dport {dport}", f"port >= {sport}", f"sport {sport} and dst {dst}")
    if flow["reply"]:
        src, sport, dst, dport = flow["reply"]
        yield from (f"reply src {src}", f"reply dst {dst}", f"reply host {src}/31", f"src 0.0.0.9 or reply dst {dst}")
        if ported:
            yield from (f"reply sport {sport}", f"reply dport {dport}", f"reply port {sport}")
    yield from (
        f"proto {flow['proto']}",
        f"family ipv{flow['version']}",
        f"zone {flow['zone']}",
        f"mark {flow['mark']}",
    )
    for end in ("owner", "peer"):
        known = flow[end]
        if known["pid"] is not None:
            yield from (f"{end} pid {known['pid']}", f"pid {known['pid']} and dst {flow['orig'][2]}")
            for key in ("comm", "exe", "cmdline"):
                if text := (known[key] or b"").replace(b"\0", b" ").decode().strip():
                    yield from (f"{end} {key} '*{text}*'", f"{key} '{text[:-1]}?'", f"not {key} '{text}'")
        for name in ("unit a", "unit ab.service", "container 0123456789ab"):
            yield f"{end} {name}"


# One with NAT.
FLOW = {
    "version": 4,
    "proto": 6,
    "orig": ("10.0.0.5", 40000, "203.0.113.7", 443),
    "reply": ("203.0.113.7", 443, "198.51.100.9", 50000),
    "zone": 0,
    "mark": 0,
    "netns": 4026531840,
    "direction": 1,
    "owner": {"pid": 7, "uid": 1000, "comm": b"curl", "start_ns": 10**9, "cgroup": CGROUPS[0]},
    "peer": {"reason": 12},
    "time": BASE,
}
