"""Serve the bytes that each systemd unit sent and received, as Prometheus text: python bytes_per_unit.py [PORT]

Needs net.netfilter.nf_conntrack_acct=1. Bytes are counted when their flow ends.
"""

import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, HTTPServer

from nfct_fast import Conntrack, Flow

SENT, RECEIVED = "sent", "received"
totals: Counter[tuple[str, str]] = Counter()


def count(flow: Flow) -> None:
    """Add a flow that has ended to its owner's unit; what nobody here owns is of no unit."""
    counters, process = flow.counters, flow.owner.process
    if counters is None:
        return
    unit = (process.unit if process is not None else None) or ""
    outward, inward = counters.original_bytes, counters.reply_bytes
    if flow.direction == "in":  # the owner is the one that answers
        outward, inward = inward, outward
    totals[unit, SENT] += outward
    totals[unit, RECEIVED] += inward


def quoted(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def exposition() -> str:
    lines = ["# HELP unit_bytes_total Bytes of flows that have ended.", "# TYPE unit_bytes_total counter"]
    for (unit, way), value in sorted(totals.copy().items()):
        lines.append(f'unit_bytes_total{{unit="{quoted(unit)}",direction="{way}"}} {value}')
    return "\n".join(lines) + "\n"


class Metrics(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = exposition().encode(errors="backslashreplace")
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def main(port: int) -> None:
    with Conntrack(events="DESTROY") as conntrack, HTTPServer(("127.0.0.1", port), Metrics) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(f"http://127.0.0.1:{server.server_port}/metrics", flush=True)
        for flow in conntrack:
            count(flow)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9101)
