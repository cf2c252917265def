"""Join the alerts and flows of a real Suricata with our records by Community ID: `make suricata`, as root.

Suricata comes from Debian into a tree of its own in the user's cache. It watches the far end of a veth, as an IDS at
the border does: half of the flows it sees after source NAT. Every alert and flow in its eve.json has to be that of
exactly one record, of the process that made it. SURICATA_FLOWS: connections of each kind (50).
"""

import collections
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "wheels")]

from nfct_fast import Conntrack  # noqa: E402
from roots import Root, command_in  # noqa: E402
from support.flows import Worker, nft  # noqa: E402
from support.netns import ip, ip6_address, made  # noqa: E402

COUNT = int(os.environ.get("SURICATA_FLOWS", "50"))
ROOT = Root("trixie", "3.13", ("suricata",))
INET, INET6, STREAM, DGRAM = socket.AF_INET, socket.AF_INET6, socket.SOCK_STREAM, socket.SOCK_DGRAM
OURS = {INET: "10.96.0.1", INET6: "fd96::1"}
NATTED = {INET: "10.96.0.3", INET6: "fd96::3"}  # the source after NAT of what goes to the port PORT_NAT
THEIRS = {INET: "10.96.0.2", INET6: "fd96::2"}
PORT, PORT_NAT = 7000, 7001
# Not connections: conntrack has no entries of neighbour discovery and multicast listener reports.
UNTRACKED_ICMPV6 = {130, 131, 132, 133, 134, 135, 136, 137, 143}
RULES = "\n".join(
    f'alert {proto} any any -> any any (msg:"{proto} with a needle"; content:"needle"; sid:{number}; rev:1;)'
    for number, proto in enumerate(("tcp", "udp", "icmp"), 1)
)
CONFIG = """%YAML 1.1
---
default-log-dir: /mnt/log
default-rule-path: /mnt/log
rule-files: [needle.rules]
classification-file: /etc/suricata/classification.config
reference-config-file: /etc/suricata/reference.config
af-packet:
  - interface: far
    cluster-id: 99
    cluster-type: cluster_flow
    checksum-checks: no     # the sums of a veth are left to whoever takes the packet
outputs:
  - eve-log:
      enabled: yes
      filetype: regular
      filename: eve.json
      community-id: true
      community-id-seed: 0
      types: [alert, flow]
app-layer:
  protocols:
    tls: {enabled: no}
"""


@contextlib.contextmanager
def wired():
    """Two namespaces with a veth between them: the names of ours and theirs."""
    with made() as ours, made() as theirs:
        ip("link", "add", "near", "netns", ours, "type", "veth", "peer", "name", "far", "netns", theirs)
        for name, device in ((ours, "near"), (theirs, "far")):
            ip("link", "set", device, "up", netns=name)
        for address in (OURS, NATTED):
            ip("addr", "add", f"{address[INET]}/24", "dev", "near", netns=ours)
            ip6_address(address[INET6], 64, "near", ours)
        ip("addr", "add", f"{THEIRS[INET]}/24", "dev", "far", netns=theirs)
        ip6_address(THEIRS[INET6], 64, "far", theirs)
        nft(
            "table inet border { chain post { type nat hook postrouting priority srcnat;"
            f" meta l4proto {{ tcp, udp }} th dport {PORT_NAT} meta nfproto ipv4 snat ip to {NATTED[INET]};"
            f" meta l4proto {{ tcp, udp }} th dport {PORT_NAT} meta nfproto ipv6 snat ip6 to {NATTED[INET6]}; }}; }}",
            ours,
        )
        yield ours, theirs


def in_netns(name, command):
    return ["nsenter", f"--net=/run/netns/{name}", *command]


SERVER = f"""
import selectors, socket
waiting = selectors.DefaultSelector()
for family in (socket.AF_INET, socket.AF_INET6):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        for port in ({PORT}, {PORT_NAT}):
            sock = socket.socket(family, kind)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(("", port))
            if kind == socket.SOCK_STREAM:
                sock.listen(100)
            waiting.register(sock, selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in waiting.select():
        if key.fileobj.type == socket.SOCK_STREAM:
            with key.fileobj.accept()[0] as client:
                client.sendall(client.recv(100))
        else:
            data, source = key.fileobj.recvfrom(100)
            key.fileobj.sendto(data, source)
"""
CLIENT = f"""
import socket, sys, time
source, address = sys.argv[1:3]
kind, port, first = map(int, sys.argv[3:])
for number in range({COUNT}):
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as sock:
        sock.settimeout(5)
        sock.bind((source, first + number))
        sock.connect((address, port))
        sock.send(b"a needle in a haystack")
        sock.recv(100)
    time.sleep(0.005)
"""


def make_traffic(ours):
    """Run a program for each kind of flow, up to 5,000 of each; return {(protocol number, family, port): pid}."""
    made_by = {}
    for family in (INET, INET6):
        for kind, proto in ((STREAM, 6), (DGRAM, 17)):
            for port in (PORT, PORT_NAT):
                # No port twice: two connections of the same addresses and ports have one Community ID.
                numbers = int(kind), port, 20_000 + 5_000 * len(made_by)
                command = [sys.executable, "-c", CLIENT, OURS[family], THEIRS[family], *map(str, numbers)]
                with subprocess.Popen(in_netns(ours, command)) as client:
                    made_by[proto, family, port] = client.pid
                    if client.wait(120):
                        raise SystemExit(f"no answer from {THEIRS[family]} port {port}")
        ping = ["ping", "-c", "3", "-i", "0.2", "-p", b"needle".hex(), "-I", OURS[family], THEIRS[family]]
        with subprocess.Popen(in_netns(ours, ping), stdout=subprocess.DEVNULL) as client:
            made_by[1 if family == INET else 58, family, None] = client.pid
            if client.wait(30):
                raise SystemExit(f"no echo from {THEIRS[family]}")
    return made_by


def read_flows(worker, ours):
    """In a process of its own: the records, until the test says that all was made."""
    with Conntrack(netns=ours, track=True, probe=False, community_id=0) as conntrack:
        worker.say("ready")
        worker.hear()
        time.sleep(1)
        return [
            (flow.community_id, flow.community_id_nat, flow.protonum, flow.src, flow.dport, flow.owner.pid)
            for flow in conntrack.read(timeout=0)
        ]


def start(theirs, log):
    (log / "needle.rules").write_text(RULES + "\n")
    (log / "suricata.yaml").write_text(CONFIG)
    suricata = ["suricata", "-c", "/mnt/log/suricata.yaml", "--af-packet=far", "-l", "/mnt/log", "-k", "none"]
    with open(log / "output", "wb") as output:
        process = subprocess.Popen(
            in_netns(theirs, command_in(ROOT.path, suricata, [(log, "/mnt/log")])),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    deadline = time.monotonic() + 60
    while b"started" not in (log / "output").read_bytes().lower():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"suricata did not start:\n{(log / 'output').read_text()}")
        time.sleep(0.1)
    return process


def compare(records, made_by, events):
    """Print how each kind of event joined; return whether each joined exactly one record of who made it."""
    by_id = collections.defaultdict(list)
    for record in records:
        for community_id in {record[0], record[1]} - {None}:
            by_id[community_id].append(record)
    joined, wrong = collections.Counter(), []
    for event in events:
        if event["proto"] == "IPv6-ICMP" and event.get("icmp_type") in UNTRACKED_ICMPV6:
            continue
        found = by_id[event["community_id"]]
        natted = len(found) == 1 and event["community_id"] == found[0][1]
        maker = None
        if len(found) == 1:
            _, _, proto, src, dport, pid = found[0]
            maker = made_by.get((proto, INET6 if ":" in src else INET, dport)) == pid
        joined[event["event_type"], event["proto"], "after NAT" if natted else "as sent"] += 1
        if not maker:
            wrong.append((len(found), found, event))
    for (kind, proto, side), count in sorted(joined.items()):
        print(f"{kind:6} {proto:10} {side:9} {count:5}")
    for count, found, event in wrong[:10]:
        print(f"joined {count} records {found}: {json.dumps(event)}")
    print(f"{sum(joined.values())} events, {len(wrong)} of them not joined with exactly one record of who made them")
    sides = collections.Counter()
    for (_, proto, side), count in joined.items():
        sides[proto in ("TCP", "UDP") and side] += count
    if sides["after NAT"] != sides["as sent"]:
        raise SystemExit("half of the TCP and UDP events should be of flows after NAT")
    return not wrong


def main():
    if os.geteuid() != 0:
        raise SystemExit("needs root, for network namespaces and conntrack events")
    ROOT.ensure()
    with wired() as (ours, theirs), tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        log = Path(folder)
        server = stack.enter_context(
            subprocess.Popen(in_netns(theirs, [sys.executable, "-c", SERVER]), stdout=subprocess.PIPE)
        )
        stack.callback(server.kill)
        server.stdout.readline()
        suricata = start(theirs, log)
        stack.callback(suricata.wait)
        stack.callback(suricata.kill)
        reader = stack.enter_context(Worker(lambda worker: read_flows(worker, ours)))
        reader.hear()
        made_by = make_traffic(ours)
        records = reader.result()
        time.sleep(2)
        suricata.send_signal(signal.SIGINT)  # writes the flows that have not ended
        suricata.wait(60)
        events = [json.loads(line) for line in (log / "eve.json").read_text().splitlines()]
    alerts = collections.Counter(event["event_type"] for event in events)
    if alerts["alert"] < 8 * COUNT or alerts["flow"] < 8 * COUNT:
        raise SystemExit(f"suricata saw only {dict(alerts)}")
    return 0 if compare(records, made_by, [event for event in events if event["event_type"] in alerts]) else 1


if __name__ == "__main__":
    sys.exit(main())
