"""What --aggregate has to make of flows, slow and obvious: from the lines of --json to its own."""

import os
import tempfile

from nfct_fast import Conntrack
from nfct_fast.output.aggregator import Aggregator
from nfct_fast.output.json_lines import JsonLines
from nfct_fast.output.sink import Sink
from nfct_fast.output.writer import Writer
from support.described_flows import record

SECOND = 1_000_000_000
_OF_ONE = ("time", "time_ns", "status", "timeout", "state", "id", "use", "start_ns", "stop_ns", "duration_ns",
           "community_id", "community_id_nat", "first_seen")  # fmt: skip
_COUNTERS = ("original_packets", "original_bytes", "reply_packets", "reply_bytes")


def common(flow):
    """What is left of a flow's JSON without what may differ in a group."""
    flow = {key: value for key, value in flow.items() if key not in (*_OF_ONE, *_COUNTERS)}
    for name, port in (("original", "sport"), ("reply", "dport")):
        if name in flow:
            flow[name] = {key: value for key, value in flow[name].items() if key not in (port, "icmp_id")}
    for name in ("owner", "peer"):
        if name in flow:
            flow[name] = {key: value for key, value in flow[name].items() if key not in ("inode", "cookie")}
    return flow


def key(flow):
    known = tuple([name in flow for name in ("original_bytes", "start_ns", "stop_ns")])
    return repr((common(flow), known))


def merged(flows):
    """The line of a group."""
    first = flows[0]
    if len(flows) == 1:
        return first
    line = {**common(first), "count": len(flows), **{name: first[name] for name in ("time", "time_ns", "id")}}
    for name in _COUNTERS:
        if name in first:
            line[name] = sum([flow[name] for flow in flows])
    if "start_ns" in first:
        line["start_ns"] = min([flow["start_ns"] for flow in flows])
    if "stop_ns" in first:
        line["stop_ns"] = max([flow["stop_ns"] for flow in flows])
    line["last_ns"] = max([flow["time_ns"] for flow in flows])
    if first["type"] in ("FLOW", "DESTROY"):
        began = [flow["time_ns"] - flow["duration_ns"] if "duration_ns" in flow else None for flow in flows]
        if None not in began:
            line["duration_ns"] = max(0, line["last_ns"] - min(began))
    begun = [flow["time_ns"] - flow["duration_ns"] for flow in flows if "duration_ns" in flow]
    line["first_ns"] = line.get("start_ns") or (min(begun) if len(begun) == len(flows) else first["time_ns"])
    marks = [mark for flow in flows for mark in flow.get("first_seen", ())]
    if marks:
        line["first_seen"] = [mark for mark in ("destination", "port", "roaming", "scanning") if mark in marks]
    for name in ("owner", "peer"):
        for of_socket in ("inode", "cookie"):
            values = {flow.get(name, {}).get(of_socket) for flow in flows}
            if len(values) == 1 and None not in values:
                line[name] = {**line[name], of_socket: values.pop()}
    return line


def model(flows, window_ns):
    """The lines of flows, in their order."""
    groups, lines = {}, []  # a dict is in the order of its insertions
    for flow in flows:
        while groups:
            oldest = next(iter(groups))
            since = flow["time_ns"] - groups[oldest][0]["time_ns"]
            if -SECOND <= since < window_ns:
                break
            lines.append(merged(groups.pop(oldest)))
        groups.setdefault(key(flow), []).append(flow)
    return lines + [merged(group) for group in groups.values()]


def write(flows, window=None, formatter=None, **options):
    """Return what described flows, or a recording of them, become, by default as JSON, and the Aggregator."""
    with tempfile.TemporaryFile() as recording, tempfile.TemporaryFile() as out:
        recording.write(flows if isinstance(flows, bytes) else record(flows))
        recording.flush()
        writer = Writer(formatter or JsonLines(), Sink(out.fileno()))
        if window is not None:
            writer = Aggregator(writer, window, 0, **options)
        with Conntrack(replay=recording.fileno()) as conntrack:
            while conntrack._write_to(writer) is not None:
                pass
        if window is not None:
            assert writer.close()
        return os.pread(out.fileno(), 1 << 30, 0), writer
