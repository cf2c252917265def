"""Documents of --schema ecs have the fields, types and values that the Elastic Common Schema publishes."""

import ipaddress
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import communityid
import pytest
from sigma.backends.sqlite import sqliteBackend
from sigma.collection import SigmaCollection
from sigma.processing.pipeline import ProcessingPipeline

from nfct_fast.output.ecs_lines import ECS_VERSION
from support.cli import Program, inside, until
from support.netns import ip
from support.paths import ROOT
from support.whole_flows import count_entries

HEAD, *LINES = (Path(__file__).parent / "ecs_fields.txt").read_text().splitlines()
FIELDS = dict(line.split() for line in LINES)
DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.(\d\d|\d{9})Z")
CHECKS = {
    "keyword": lambda value: type(value) is str and value,
    "wildcard": lambda value: type(value) is str and value,
    "match_only_text": lambda value: type(value) is str and value,
    "long": lambda value: type(value) is int and 0 <= value < 1 << 63,
    "date": lambda value: DATE.fullmatch(value),
    "ip": lambda value: ipaddress.ip_address(value),
    "boolean": lambda value: type(value) is bool,
}
# As the schema's documents allow for network events.
VALUES = {
    "event.kind": {"event", "state"},
    "event.category": {"network"},
    "event.type": {"connection", "start", "end", "info"},
    "event.outcome": {"success", "failure", "unknown"},
    "network.direction": {"ingress", "egress", "unknown"},
    "network.type": {"ipv4", "ipv6"},
}
ALWAYS = {
    *("@timestamp", "ecs.version", "event.kind", "event.category", "event.type", "event.action", "event.module"),
    *("event.dataset", "event.id", "event.created", "network.type", "network.transport", "network.iana_number"),
    *("network.direction", "network.community_id", "source.ip", "destination.ip", "host.name", "host.hostname"),
    *("host.os.type", "related.ip"),
}


def flat(value, name=""):
    """{dotted name: value} of a document, without what is ours."""
    if not isinstance(value, dict):
        return {name: value}
    found = {}
    for key, inner in value.items():
        if name or key != "nfct":
            found |= flat(inner, f"{name}.{key}" if name else key)
    return found


def checked(line):
    """The document of a line, after every field of it was looked up in the published list."""
    assert len(line.encode()) < 32 << 10
    document = json.loads(line)
    for name, value in flat(document).items():
        kind = FIELDS[name]  # a KeyError: there is no such field
        assert kind.endswith("[]") == isinstance(value, list), name
        for one in value if isinstance(value, list) else [value]:
            assert CHECKS[kind.removesuffix("[]")](one) or name == "process.args" and one == "", (name, one)
            assert one in VALUES.get(name, {one}), (name, one)
    assert document["nfct"]["type"] == "LOST" or flat(document).keys() >= ALWAYS
    return document


SEND = """
import socket, sys
family, port, source = map(int, sys.argv[1:4])
with socket.socket(family, socket.SOCK_DGRAM) as sock:
    sock.bind(("" if family == 10 else "127.0.0.1", source))
    sock.sendto(b"x" * 100, ("::1" if family == 10 else "127.0.0.1", port))
"""


def send(netns, port, source, family=socket.AF_INET, arguments=(), **options):
    command = [sys.executable, "-c", SEND, str(int(family)), str(port), str(source), *arguments]
    subprocess.run(inside(netns, command), check=True, **options)


@pytest.fixture
def counted(tracked, within):
    with within():
        count_entries()
    return tracked


def test_the_list_is_of_the_version_that_is_written():
    assert HEAD.split()[4].rstrip(",") == ECS_VERSION


def test_new_and_ended_connections(counted, within):
    with within(), Program(counted, "--schema", "ecs", "-e", "new,destroy", "dport 4321") as program:
        send(counted, 4321, 5001)
        send(counted, 4321, 5002, socket.AF_INET6)
        program.await_lines(2)
        subprocess.run(["conntrack", "-F"], check=True, capture_output=True)
        subprocess.run(["conntrack", "-F", "-f", "ipv6"], check=True, capture_output=True)
        program.await_lines(4)
        assert program.end()[0] == 0 and program.complaints == []
    documents = [checked(line) for line in program.lines]
    new = {one["source"]["port"]: one for one in documents if one["event"]["action"] == "connection_attempted"}
    ended = {one["source"]["port"]: one for one in documents if one["event"]["action"] == "connection_ended"}
    assert new.keys() == ended.keys() == {5001, 5002}
    assert len({one["event"]["id"] for one in documents}) == 4
    for one in documents:
        tuple_ = communityid.FlowTuple.make_udp(
            one["source"]["ip"], one["destination"]["ip"], one["source"]["port"], one["destination"]["port"]
        )
        assert one["network"]["community_id"] == communityid.CommunityID().calc(tuple_)
        assert one["network"]["transport"] == "udp" and one["network"]["iana_number"] == "17"
        assert one["host"]["hostname"] == os.uname().nodename
        assert one["process"]["executable"] == os.readlink("/proc/self/exe") or one in ended.values()
    process = new[5001]["process"]
    assert process["args"][1:3] == ["-c", SEND] and process["args_count"] == len(process["args"]) == 6
    assert process["command_line"] == " ".join(process["args"])
    assert new[5001]["user"]["name"] == "root" and new[5001]["related"]["user"] == ["root"]
    assert process["parent"]["pid"] == os.getpid() and process["parent"]["entity_id"]
    assert new[5001]["event"]["type"] == ["connection", "start"] and ended[5001]["event"]["type"][1] == "end"
    assert ended[5001]["source"]["bytes"] == 128 == ended[5001]["network"]["bytes"]
    assert ended[5001]["event"]["duration"] > 0 and ended[5001]["event"]["outcome"] == "unknown"


def test_whole_flows_and_nat(counted, within):
    ip("addr", "add", "127.0.0.9/8", "dev", "lo", netns=counted)
    rules = "table ip n { chain o { type nat hook output priority -100; udp dport 4321 dnat to 127.0.0.9:4322; }; }"
    subprocess.run(inside(counted, ["nft", rules]), check=True)
    with within(), Program(counted, "--schema", "ecs", "--flows", "dport 4321") as program:
        send(counted, 4321, 5001)
        until(lambda: subprocess.run(["conntrack", "-D", "-p", "udp"], capture_output=True).returncode == 0)
        [line] = program.await_lines(1)
    document = checked(line)
    assert document["event"]["action"] == "network_flow"
    assert document["destination"]["ip"] == "127.0.0.1" and document["destination"]["port"] == 4321
    assert document["destination"]["nat"] == {"ip": "127.0.0.9", "port": 4322} and "nat" not in document["source"]
    assert set(document["related"]["ip"]) == {"127.0.0.1", "127.0.0.9"}
    assert document["nfct"]["community_id_nat"] != document["network"]["community_id"]
    assert document["event"]["end"] >= document["event"]["start"]


def test_hostile_names_are_valid_text_and_short(counted):
    """Whatever a program is called: with arguments that are no text, or that take six times their size."""
    with Program(counted, "--schema", "ecs", "dport 4321") as program:
        for number, word in enumerate(("\x01" * 4000, b"\xff" * 4000, '"\\\n\u202e\ufdd0', "", "a\tb")):
            send(counted, 4321, 5001 + number, arguments=[word])
        lines = program.await_lines(5)
    documents = [checked(line) for line in lines]
    assert documents[2]["process"]["args"][-1] == '"\\\n\u202e\ufffd'
    assert documents[3]["process"]["args"][-1] == "" and documents[4]["process"]["args"][-1] == "a\tb"


def test_a_listed_table_and_icmp(counted):
    subprocess.run(inside(counted, [sys.executable, "-c", PING]), check=True)
    done = subprocess.run(
        inside(counted, [sys.executable, "-m", "nfct_fast", "-L", "--schema", "ecs"]), capture_output=True, text=True
    )
    documents = [checked(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and {one["event"]["kind"] for one in documents} == {"state"}
    assert {one["network"]["transport"] for one in documents} >= {"icmp"}


PING = """
import socket, struct
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
    sock.sendto(struct.pack("!BBHHH", 8, 0, 0xf7fe - 1, 1, 0), ("127.0.0.1", 0))
"""


# Sigma's fields as README.md maps them.
PIPELINE = """
name: nfct-fast --schema ecs
priority: 20
transformations:
  - type: map_string
    mapping: {"true": egress, "false": ingress}
    field_name_conditions: [{type: include_fields, fields: [Initiated]}]
  - type: field_name_mapping
    mapping: {MAPPING}
"""
# Of the form of those for Linux in SigmaHQ's repository.
RULE = """
title: A shell that connects to the outside
logsource: {product: linux, category: network_connection}
detection:
  selection: {Image|endswith: /SHELL, Initiated: 'true', DestinationPort: [PORT, 4444], User: root}
  filter: {DestinationIp: [10.0.0.1, 0.0.0.0]}
  near: {DestinationIp|cidr: 127.0.0.0/8}
  condition: selection and near and not filter
level: high
"""


def sigma_mapping():
    rows = re.findall(
        r"^\| `(\w+)` \| `([\w.]+)` \|", (ROOT / "README.md").read_text().split("Sigma's field |")[1], re.M
    )
    assert len(rows) > 8
    return dict(rows)


@pytest.mark.skipif(not (ROOT / "README.md").exists(), reason="README.md is not here")
def test_sigma_rules_match_as_they_are(counted):
    """A rule for Linux network connections, converted by pySigma, finds the one flow that it is about."""
    with Program(counted, "--schema", "ecs", "udp") as program:
        send(counted, 4321, 5001)
        send(counted, 4323, 5002)
        lines = program.await_lines(2)
    rows = [flat(checked(line)) for line in lines]
    names = sorted(set().union(*rows))
    pipeline = PIPELINE.replace("{MAPPING}", json.dumps(sigma_mapping()))
    shell = Path(os.readlink("/proc/self/exe")).name
    rules = SigmaCollection.from_yaml(RULE.replace("SHELL", shell).replace("PORT", "4321"))
    [query] = sqliteBackend(ProcessingPipeline.from_yaml(pipeline)).convert(rules)
    with sqlite3.connect(":memory:") as database:
        columns = ", ".join(f"`{name}`" for name in names)
        database.execute(f"create table logs ({columns})")
        for row in rows:
            values = [json.dumps(row[name]) if isinstance(row.get(name), list) else row.get(name) for name in names]
            database.execute(f"insert into logs values ({','.join('?' * len(names))})", values)
        port = names.index("destination.port")
        assert [row[port] for row in database.execute(query)] == [4321]
    database.close()
