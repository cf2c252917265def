"""The account: what was made, what was written, what is stored, how often, and what is said to be lost."""

import collections
import json
from typing import NamedTuple

from host import Record


class Account(NamedTuple):
    """Of one host. rows: that came to ClickHouse; twice: rows that had come before; stored: after deduplication."""

    host: str
    made: int
    written: int
    rows: int
    twice: int
    stored: int
    missing: int
    lost: int
    faults: list

    @property
    def is_right(self):
        return not self.faults and not self.missing and self.stored + self.lost == self.made


def arrived(centre):
    """{host: {Record: [arguments of each row]}} of all that came, and {host: number of LOST records}."""
    rows, losses = collections.defaultdict(dict), collections.Counter()
    for host, *name, cmdline in centre.ask("SELECT host, time_ns, type, src, sport, dst, dport, cmdline FROM arrivals"):
        name[0] = int(name[0])
        if name[1] == "LOST":
            losses[host] += 1
            continue
        name[2], name[4] = name[2].removeprefix("::ffff:"), name[4].removeprefix("::ffff:")
        rows[host].setdefault(Record(*name), []).append(cmdline)
    return rows, losses


def progress(centre):
    """How many records are there, each counted once."""
    return centre.ask("SELECT uniqExact(host, time_ns, type, src, sport, dst, dport) FROM arrivals")[0][0]


def accounts(hosts, centre):
    """The account of each host, with what is not as it should be."""
    rows, _ = arrived(centre)
    stored = {
        host: int(count) for host, count in centre.ask("SELECT host, sum(count) FROM nfct_flows FINAL GROUP BY host")
    }
    lost = {host: int(sum_) for host, sum_ in centre.ask("SELECT host, sum(lost) FROM nfct_losses FINAL GROUP BY host")}
    unreadable = centre.ask("SELECT host, error, line FROM nfct_unreadable FINAL LIMIT 10")
    for host in hosts:
        faults = [f"unreadable: {what}" for what in unreadable if what[0] == host.name]
        made, (written, said_lost) = host.made(), host.records()
        came = rows[host.name]
        # Each flow that was made has one record, or is among those said to be lost; and no record is of anything else.
        flows = collections.Counter((str(name.sport), name.dst, str(name.dport)) for name in came)
        if len(set(made)) != len(made):
            faults.append("the sender made a flow twice")
        if strange := flows.keys() - set(made):
            faults.append(f"{len(strange)} flows that nobody made, such as {min(strange)}")
        if again := [flow for flow, count in flows.items() if count > 1]:
            faults.append(f"{len(again)} flows with two records, such as {again[0]}")
        if not said_lost == lost.get(host.name, 0):
            faults.append(f"{said_lost} are lost by the file, {lost.get(host.name, 0)} by the table")
        if stored.get(host.name, 0) != len(came):
            faults.append(f"{stored.get(host.name, 0)} rows after deduplication, not {len(came)}")
        other = [
            name for name, all_ in came.items() for said in all_ if json.loads(said or "null") != written.get(name)
        ]
        if other:
            faults.append(f"{len(other)} rows that do not say what was written, such as {other[0]}")
        count = sum(map(len, came.values()))
        missing = sorted(written.keys() - came.keys())
        if missing:
            first = min(name.time_ns for name in written)
            faults.append(f"missing since {[round((name.time_ns - first) / 1e9, 2) for name in missing[:20]]} s")
        numbers = len(made), len(written), count, count - len(came), stored.get(host.name, 0), len(missing)
        yield Account(host.name, *numbers, lost.get(host.name, 0), faults)
