"""Flow, Owner and Process are values: equal, hashable, immutable, and the same in another process."""

import copy
import json
import multiprocessing
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nfct_fast import Conntrack, Direction, EventType, Flow, Match, Owner, Process, Reason, Status
from nfct_fast.output.json_lines import JsonLines
from nfct_fast.output.sink import Sink
from nfct_fast.output.writer import Writer
from nfct_fast.processes.process_object import process
from nfct_fast.records.messages import MessageDecoder
from nfct_fast.records.presentation import Presentation
from support.cli import until
from support.events import saved

PROPERTIES = {
    cls: [name for name in dir(cls) if name[0] != "_" and not callable(getattr(cls, name))]
    for cls in (Flow, Owner, Process)
}


def facts(value):
    """Every attribute of a Flow, an Owner or a Process, and of what is in it."""
    if isinstance(value, (Flow, Owner, Process)):
        return {name: facts(getattr(value, name)) for name in PROPERTIES[type(value)]}
    if isinstance(value, tuple) and any(isinstance(one, Process) for one in value):
        return [facts(one) for one in value]
    return value


def send(port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", port))
        sock.sendto(b"x", ("127.0.0.1", 9))


def send_and_read(conntrack):
    send(4001)
    return conntrack.read(timeout=5)


@pytest.fixture(scope="module")
def decoded():
    decoder = MessageDecoder()
    return [flow for message in saved()[0] for flow in decoder.decode(message, 123)]


@pytest.fixture
def flow(tracked, within):
    """With both owners, an answer, and a name that is not UTF-8."""
    with within(), Conntrack(protocol="udp", probe=False, community_id=5) as conntrack:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind(("127.0.0.1", 0))
            port = server.getsockname()[1]
            code = f"import socket; socket.socket(2, 2).sendto(b'x', ('127.0.0.1', {port}))"
            subprocess.run([os.fsencode(sys.executable), "-c", code, b"caf\xe9"], check=True)
            [flow] = conntrack.read(timeout=5)
        yield flow


def test_words(decoded):
    flow = decoded[0]
    assert flow.type is EventType.NEW and flow.type == "NEW" and f"{flow.type}" == "NEW"
    assert flow.owner.reason is Reason.OFF and flow.owner.match is None and flow.direction is None
    assert json.dumps(flow.owner.reason) == '"off"'
    assert Direction.FORWARD == "forward" and Match("bpf") is Match.BPF


def test_unknown_is_none(decoded):
    pings = [flow for flow in decoded if flow.proto.endswith(("icmp", "icmpv6"))]
    assert pings
    for flow in pings:
        assert (flow.sport, flow.dport, flow.original.sport, flow.reply.dport) == (None,) * 4
    for flow in decoded:
        assert (flow.original.icmp_type is None) == (flow not in pings)


def test_equality_and_hash(decoded):
    decoder = MessageDecoder()
    again = [flow for message in saved()[0] for flow in decoder.decode(message, 123)]
    assert again == decoded and len({*again, *decoded}) == len(set(decoded)) > 10
    assert decoded[0] != decoded[1] and decoded[0] != "NEW" and decoded[0].owner == decoded[1].owner
    assert decoder.decode(saved()[0][0], 124)[0] != decoded[0]


def test_nothing_can_be_changed(flow):
    for value in (flow, flow.owner, flow.owner.process):
        for name in PROPERTIES[type(value)]:
            with pytest.raises(AttributeError):
                setattr(value, name, None)
        with pytest.raises(AttributeError):
            value.other = 1
        with pytest.raises(TypeError):
            type(value)()


def test_copies_are_the_same(flow):
    for value in (flow, flow.owner, flow.owner.process):
        assert copy.copy(value) is value and copy.deepcopy([value])[0] is value


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickles(flow, protocol):
    assert flow.owner.process.cmdline[-1] == os.fsdecode(b"caf\xe9") and flow.peer.pid == os.getpid()
    for value in (flow, flow.owner, flow.owner.process):
        loaded = pickle.loads(pickle.dumps(value, protocol))
        assert loaded == value and hash(loaded) == hash(value) and facts(loaded) == facts(value)
        assert repr(loaded) == repr(value)


def test_pickles_without_owners(decoded):
    assert pickle.loads(pickle.dumps(decoded)) == decoded


def test_json_is_what_the_program_writes(tracked, within, tmp_path):
    with within(), Conntrack(protocol="udp", probe=False, community_id=5) as conntrack:
        [first] = send_and_read(conntrack)
        with open(tmp_path / "lines", "w+b") as out:
            send(4002)
            writer = Writer(JsonLines(Presentation(5)), Sink(out.fileno()))
            assert until(lambda: conntrack._write_to(writer)) == 1
            [line] = Path(out.name).read_text().splitlines()
    record, written = first.to_dict(), json.loads(line)
    assert list(record) == list(written) and list(record["owner"]) == list(written["owner"])
    for name in ("time", "time_ns", "id", "original", "reply", "community_id"):
        assert record.pop(name) != written.pop(name)
    for one in (record, written):
        one["owner"].pop("cookie"), one["peer"].pop("reason"), one.pop("timeout", None)
    assert record == written


def test_json_of_each(flow):
    text = flow.to_json()
    assert json.loads(text) == flow.to_dict() and "\n" not in text and '"community_id":"1:' in text
    assert flow.owner.to_dict() == flow.to_dict()["owner"] and flow.peer.to_dict() == flow.to_dict()["peer"]
    of_process = flow.owner.process.to_dict()
    assert of_process.items() <= flow.to_dict()["owner"].items() and of_process["cmdline_base64"]
    assert pickle.loads(pickle.dumps(flow)).to_json() == text


def test_json_without_owners(decoded):
    for one in decoded:
        assert one.to_dict()["owner"] == {"pid": None, "reason": "off"} == one.owner.to_dict()
        assert "community_id" not in one.to_dict() and one.to_dict()["type"] == one.type


def told(flow):
    return facts(flow)


def test_a_worker_gets_the_same(flow):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(told, [flow]) == facts(flow)


def test_a_pickle_tells_of_its_own_host(flow, monkeypatch):
    """Loaded elsewhere it has the identity and names of where it came from, and is not equal to a flow of there."""
    restore, (state, (seed, (host, boot, names))) = flow.__reduce__()
    other = restore(state, (seed, (host._replace(boot_id="0" * 32), boot, (b"caesar:x:0:\n", b"cohort:x:0:\n"))))
    assert other != flow and other.owner != flow.owner and other.owner.process != flow.owner.process
    assert (other.owner.user, other.owner.group) == ("caesar", "cohort")
    assert other.owner.process.entity_id != flow.owner.process.entity_id


def test_a_pickle_of_another_version_is_refused(flow):
    restore, ((event, *rest), saved) = flow.__reduce__()
    with pytest.raises(ValueError, match="version"):
        restore((event + b"x", *rest), saved)


def test_patterns(flow):
    match flow:
        case Flow("NEW", "ipv4/udp", "127.0.0.1", sport, _, dport, owner=Owner(pid, uid, Match.BPF | Match.SOCKET)):
            assert (sport, dport, pid, uid) == (flow.sport, flow.dport, flow.owner.pid, 0)
        case _:
            pytest.fail("no match")
    match flow.owner.process:
        case Process(pid=pid, cmdline=(program, "-c", *_)):
            assert pid == flow.owner.pid and program == sys.executable


def test_a_process_is_equal_to_itself_read_another_time(flow):
    one, other = process(os.getpid()), process(os.getpid())
    assert one == other == flow.peer.process and hash(one) == hash(other) and one is not other
    assert one != process(1)


def test_status_is_a_flag(decoded):
    assert all(isinstance(flow.status, Status) for flow in decoded if flow.status is not None)
