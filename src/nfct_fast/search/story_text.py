"""A story as text for a person. What others chose, such as names and arguments, is escaped as in lines of the log."""

import time
from collections.abc import Iterator

from nfct_fast.processes.process_object import Process
from nfct_fast.records.owner import Owner
from nfct_fast.records.record import Flow, Tuple
from nfct_fast.search.life import began_ns
from nfct_fast.search.story import Story
from nfct_fast.text.text_buffer import escape

_LABEL = 12  # columns of the labels
_LISTED = 50  # flows of a list that are shown
_NS = 1_000_000_000


def safe(text: str) -> str:
    """Return a text that cannot end a line or drive a terminal."""
    return escape(text.encode("utf-8", "surrogateescape")).decode()


def clock(ns: int) -> str:
    """Return a moment in local time, to the millisecond, with its zone."""
    local = time.localtime(ns // _NS)
    return f"{time.strftime('%F %T', local)}.{ns // 1_000_000 % 1000:03} {time.strftime('%Z', local)}"


def seconds(ns: int) -> str:
    """Return how long something took: "250 ms", "12.3 s", "5 min", "2.5 h"."""
    for unit, size, most in (("ms", 1e6, 1e9), ("s", 1e9, 120e9), ("min", 60e9, 7200e9), ("h", 3600e9, 172800e9)):
        if ns < most:
            return f"{ns / size:.3g} {unit}"
    return f"{ns / 86400e9:.1f} days"


def _size(count):
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 10_000:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.0f} TiB"


def _ends(ends: Tuple) -> str:
    src, dst = (f"{address}{'' if port is None else f'/{port}'}" for address, port in (ends[:2], ends[2:4]))
    return f"{src} > {dst}"


def _line(label, text):
    return f"  {label:<{_LABEL}}{text}"


def _flow_lines(flow: Flow, with_host: bool) -> Iterator[str]:
    yield f"{flow.proto} {_ends(flow.original)}"
    if with_host:
        yield _line("host", safe(flow.host.name))
    began = began_ns(flow)
    if began is not None and flow.type != "NEW":
        yield _line("from", f"{clock(began)} to {clock(flow.time_ns)}, {seconds(flow.time_ns - began)}")
    else:
        yield _line("ended" if flow.type != "NEW" else "began", clock(flow.time_ns))
    if flow.direction is not None:
        yield _line("direction", flow.direction)
    reply = flow.reply
    if reply is not None and (reply.dst, reply.dport, reply.src, reply.sport) != flow.original[:4]:
        yield _line("after NAT", _ends(Tuple(reply.dst, reply.dport, reply.src, reply.sport)))
    if flow.outcome is not None:
        yield _line("outcome", flow.outcome.replace("_", " "))
    if (counters := flow.counters) is not None:
        yield _line("sent", f"{_size(counters.original_bytes)} in {counters.original_packets} packets")
        yield _line("received", f"{_size(counters.reply_bytes)} in {counters.reply_packets} packets")
    yield _line("community", f"{flow.community_id}{f'  {nat} after NAT' if (nat := flow.community_id_nat) else ''}")


def _owner_lines(title: str, owner: Owner, flow: Flow) -> Iterator[str]:
    process = owner.process
    if process is None:
        yield f"{title}: unknown{f' ({owner.reason})' if owner.reason else ''}"
    else:
        yield f"{title}: {safe(process.comm or '?')} ({process.pid})"
        yield from _process_lines(process, flow)
    if owner.uid is not None:
        user, group = (f" ({safe(name)})" if name else "" for name in (owner.user, owner.group))
        login = getattr(process, "login_uid", None)
        by = f", logged in as {login}" if login not in (None, owner.uid, (1 << 32) - 1) else ""
        yield _line("user", f"{owner.uid}{user}, group {owner.gid}{group}{by}")
    if owner.cgroup is not None:
        yield _line("cgroup", safe(owner.cgroup))
    if process is not None:
        for number, one in enumerate(process.ancestors):
            exe = f"  {safe(one.exe)}" if one.exe else ""
            yield _line("" if number else "ancestors", f"{safe(one.comm)} ({one.pid}){exe}")
    for other in owner.processes[1:]:
        yield _line("also", f"{safe(other.comm or '?')} ({other.pid})")


def _process_lines(process: Process, flow: Flow) -> Iterator[str]:
    for label, text in (
        ("executable", process.exe),
        ("arguments", None if process.cmdline is None else " ".join(process.cmdline)),
    ):
        if text:
            cut = "..." if label == "arguments" and process.cmdline_cut else ""
            yield _line(label, safe(text) + cut)
    began = began_ns(flow)
    start = int(process.start * _NS)
    before = flow.time_ns if began is None else began
    ago = f", {seconds(before - start)} before the flow" if before > start else ""
    if "start" in process.to_dict():  # else it is not known when its host booted
        yield _line("started", f"{clock(start)}{ago}")
    if process.entity_id is not None:
        yield _line("entity id", process.entity_id)
    for label, name in (
        ("unit", process.unit),
        ("user unit", process.user_unit),
        ("container", process.container),
    ):
        if name:
            yield _line(label, safe(name))
    claims = [name for name in (process.claimed_unit, process.claimed_container) if name]
    if claims:
        yield _line("claims", f"{safe(' '.join(claims))} (a name that others than root may have chosen)")


def _list(flows: tuple[Flow, ...]) -> Iterator[str]:
    for flow in flows[:_LISTED]:
        outcome = f"  {flow.outcome}" if flow.outcome is not None else ""
        yield f"  {clock(flow.time_ns)}  {flow.type:<7} {flow.proto} {_ends(flow.original)}{outcome}"
    if len(flows) > _LISTED:
        yield f"  ... and {len(flows) - _LISTED} more"


def story_lines(story: Story, with_host: bool = False) -> Iterator[str]:
    """Yield the lines of a story, without their ends.

    with_host: Whether to say where it was.
    """
    flow = story.flow
    yield from _flow_lines(flow, with_host)
    yield ""
    yield from _owner_lines("Process", flow.owner, flow)
    if flow.peer is not None:
        yield ""
        yield from _owner_lines("Other end", flow.peer, flow)
    when = f"from {clock(story.since_ns)} to {clock(story.until_ns)}"
    if flow.owner.process is not None:
        yield ""
        yield f"What else this process did {when}: {_count(story.others)}"
        yield from _list(story.others)
    if story.parent is not None:
        yield ""
        yield f"What its parent {safe(story.parent.comm)} ({story.parent.pid}) did: {_count(story.of_parent)}"
        yield from _list(story.of_parent)


def _count(flows):
    return "nothing" if not flows else "1 flow" if len(flows) == 1 else f"{len(flows)} flows"
