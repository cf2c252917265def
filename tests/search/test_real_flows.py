"""The culprit is found in a store that the logger writes: real flows of a program with a hostile name."""

import json
import os
import subprocess
import tempfile
from datetime import datetime
from pathlib import Path

import pytest

from nfct_fast import Store
from support.cli import PROGRAM, Program, until
from support.culprit import SHOWN, Culprit
from support.flows import Worker, nft
from support.netns import ip
from support.users import as_user


@pytest.fixture
def directory():
    """Of the store, where the logger's user can get to, as it cannot to pytest's own."""
    with tempfile.TemporaryDirectory(prefix="nfct-fast-test-") as above:
        os.chmod(above, 0o711)
        yield Path(above, "flows")


def find(directory, *words, **options):
    command = [*PROGRAM, "find", "--store", str(directory), *words]
    return subprocess.run(command, capture_output=True, timeout=30, **options)


def await_stored(directory, culprit):
    """Wait until the flow has been committed."""

    def look():
        try:
            with Store(str(directory)) as store:
                return list(store.find(f"sport {culprit.sport}"))
        except FileNotFoundError:
            return []

    [flow] = until(look, what="the flow in the store")
    assert flow.owner.pid == culprit.pid
    return flow


@pytest.fixture
def stored(tracked, directory):
    """A culprit's flow, in a store that the logger writes."""
    with Program(tracked, "--store", directory, "-p", "udp") as program, Culprit(tracked) as culprit:
        await_stored(directory, culprit)
        yield culprit
        program.end()
        assert program.complaints == []


def test_by_port_and_time_while_the_logger_writes(stored, directory):
    now = datetime.now().strftime("%F %T")
    found = find(directory, "--around", f"{now} ±5m", "port", str(stored.sport), "-f", "{info.pid} {info.comm}")
    assert (found.returncode, found.stderr) == (0, b"")
    assert found.stdout.decode() == f"{stored.pid} {SHOWN}\n"
    line = find(directory, "dport", "53", "and", "sport", str(stored.sport)).stdout.decode()
    assert f"127.0.0.1/{stored.sport} > 127.0.0.1/53 :: {stored.pid} 0:0" in line and line.count("\n") == 1
    earlier = find(directory, "--until", "-1h", "port", str(stored.sport))
    assert (earlier.returncode, earlier.stdout) == (1, b"")


def test_json_is_that_of_the_logger(tracked, directory):
    with Program(tracked, "--store", directory, "-p", "udp", "--json") as program, Culprit(tracked) as culprit:
        await_stored(directory, culprit)
        [live] = [line for line in program.await_lines(1) if f'"sport":{culprit.sport},' in line]
    assert find(directory, "--json", "sport", str(culprit.sport)).stdout.decode() == live + "\n"


def test_by_community_id(stored, directory):
    [flow] = map(
        json.loads, find(directory, "--community-id", "0", "--json", "sport", str(stored.sport)).stdout.splitlines()
    )
    found = find(directory, "--community-id", flow["community_id"], "--json")
    assert [json.loads(line) for line in found.stdout.splitlines()] == [flow]
    for place in (5, -5):  # what is stored is the beginning of it
        others = [letter for letter in "AQ" if letter != flow["community_id"][place]]
        other = flow["community_id"][:place] + others[0] + flow["community_id"][place + 1 :]
        assert find(directory, "--community-id", other).returncode == 1


def suricata(src, sport, dst, dport, moment, **changes):
    """A line as Suricata writes one."""
    fields = {
        "timestamp": datetime.fromtimestamp(moment).astimezone().strftime("%FT%T.%f%z"),
        "flow_id": 1,
        "event_type": "alert",
        "src_ip": src,
        "src_port": sport,
        "dest_ip": dst,
        "dest_port": dport,
        "proto": "UDP",
        "alert": {"signature": "a \x1b[2J needle"},
    }
    return json.dumps(fields | changes) + "\n"


def zeek(src, sport, dst, dport, moment):
    return (
        "#separator \\x09\n#unset_field\t-\n#path\tconn\n"
        "#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tduration\n"
        f"{moment:.6f}\tC1\t{src}\t{sport}\t{dst}\t{dport}\tudp\t-\n"
    )


@pytest.mark.parametrize("line", [suricata, zeek])
def test_by_alert(stored, directory, tmp_path, line):
    ends = "127.0.0.1", stored.sport, "127.0.0.1", 53
    (tmp_path / "alerts").write_text(line(*ends, stored.time))
    found = find(directory, "--alert", tmp_path / "alerts", "-f", "{info.pid}")
    first, second = found.stdout.decode().splitlines()
    assert (found.returncode, found.stderr, second.strip()) == (0, b"", str(stored.pid))
    assert "\x1b" not in first and f"127.0.0.1/{stored.sport} > 127.0.0.1/53" in first
    answer = line(*ends[2:], *ends[:2], stored.time).encode()
    [told] = map(json.loads, find(directory, "--alert", "-", "--json", input=answer).stdout.splitlines())
    assert told["alert"]["dport"] == stored.sport and told["flows"][0]["owner"]["pid"] == stored.pid
    late = line(*ends, stored.time - 3600).encode()
    found = find(directory, "--alert", "-", input=late)
    assert (found.returncode, b"no flow" in found.stdout) == (1, True)


def test_bad_lines_are_told_of_and_the_others_found(stored, directory):
    bad = b"\x00\xff\n" + b"[" * 100_000 + b'\n{"src_ip": 1}\n' + b"x" * 2_000_000 + b"\n"
    good = suricata("127.0.0.1", stored.sport, "127.0.0.1", 53, stored.time).encode()
    found = find(directory, "--alert", "-", "-f", "{info.pid}", input=bad + good)
    assert found.returncode == 0 and found.stdout.splitlines()[-1].strip() == str(stored.pid).encode()
    assert [line.split(b":")[2].strip() for line in found.stderr.splitlines()] == [b"line %d" % n for n in (1, 2, 3, 4)]


def test_through_source_nat(tracked, directory):
    ip("link", "add", "out", "type", "veth", "peer", "name", "far", netns=tracked)
    for name in ("out", "far"):
        ip("link", "set", name, "up", netns=tracked)
    ip("addr", "add", "10.98.0.1/16", "dev", "out", netns=tracked)
    ip("addr", "add", "10.98.0.9/16", "dev", "out", netns=tracked)
    nft(
        "table ip border { chain post { type nat hook postrouting priority srcnat;"
        " ip protocol udp snat to 10.98.0.9:7000-7100; }; }",
        tracked,
    )
    with Program(tracked, "--store", directory, "-p", "udp"), Culprit(tracked, "10.98.1.1", 9999) as culprit:
        flow = await_stored(directory, culprit)
        after = flow.reply.dst, flow.reply.dport, "10.98.1.1", 9999
        assert after[0] == "10.98.0.9" and after[1] != culprit.sport
        for ends in (after, after[2:] + after[:2]):
            line = suricata(*ends, culprit.time).encode()
            found = find(directory, "--alert", "-", "-f", "{info.pid}", input=line)
            assert found.stdout.decode().split()[-1] == str(culprit.pid)
        found = find(directory, "--community-id", flow.community_id_nat, "-f", "{info.pid}")
        assert found.stdout.decode().split() == [str(culprit.pid)]
        found = find(directory, "reply", "dst", "10.98.0.9", "-f", "{info.pid}")
        assert found.stdout.decode().split() == [str(culprit.pid)]


def test_story(stored, directory):
    found = find(directory, "--story", "sport", str(stored.sport))
    text = found.stdout.decode()
    assert (found.returncode, found.stderr) == (0, b"")
    assert f"Process: {SHOWN} ({stored.pid})" in text and "\x1b" not in text
    for word in ("executable", "arguments", "started", "user", "ancestors", "What else this process did"):
        assert word in text
    [told] = map(json.loads, find(directory, "--story", "--json", "sport", str(stored.sport)).stdout.splitlines())
    assert told["flow"]["owner"]["pid"] == stored.pid and told["others"] == []


def test_a_user_who_may_only_read(tracked, directory):
    """While the logger writes and after it has ended; a user to whom the files are not open is told so."""

    def look(worker):
        worker.hear()
        as_user(12345)
        found = []
        with Store(str(directory)) as store:
            try:
                found = [flow.owner.pid for flow in store.find("dport 53")]
            except PermissionError:
                return "denied"
            return found, store.complaints

    def open_files():
        os.chmod(directory, 0o755)
        for name in os.listdir(directory):
            os.chmod(directory / name, 0o644)

    with Program(tracked, "--store", directory, "-p", "udp") as program, Culprit(tracked) as culprit:
        await_stored(directory, culprit)
        with Worker(look) as denied, Worker(look) as reader, Worker(look) as later:
            denied.say("go")
            assert denied.hear() == "denied"
            open_files()
            reader.say("go")
            assert reader.hear() == ([culprit.pid], [])
            program.end()
            open_files()
            later.say("go")
            assert later.hear() == ([culprit.pid], [])


def test_times_that_are_no_times(directory):
    for words in (
        ["--since", "yesterdya"],
        ["--around", "03:12 ±x"],
        ["--since", "now", "--until", "-1h"],
        ["dprt", "1"],
    ):
        found = find(directory, *words)
        assert found.returncode == 2 and found.stderr.count(b"\n") == 1 and b"Traceback" not in found.stderr


def test_no_store(directory, tmp_path):
    found = find(directory)
    assert found.returncode == 2 and str(directory).encode() in found.stderr
    found = find(tmp_path)
    assert found.returncode == 2 and b"no flows are stored there" in found.stderr
    found = find(tmp_path, "--alert", "-", input=b"nothing\n")
    assert found.returncode == 2 and found.stderr.count(b"\n") == 1
