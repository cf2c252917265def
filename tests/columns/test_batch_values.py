"""What a batch holds is what the `Flow` objects of the same events say, whatever processes are called."""

import os
import socket
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfct_fast import Batch, Conntrack
from nfct_fast.records.presentation import Presentation
from support.cli import until
from support.columns import columns_of, owner_columns, valid_text
from support.events import make_ping, make_tcp, make_udp, nft, saved
from support.wheel import is_source_tree

if not is_source_tree():
    pytest.importorskip("nfct_fast.testing.batch_hooks", reason="an installed wheel has no hooks for tests")

from nfct_fast.testing.batch_hooks import Rows, make_process  # noqa: E402

MESSAGES, _ = saved()
# One whose reply direction the kernel did not tell: its CTA_TUPLE_REPLY has a number that none has.
MESSAGES.append(MESSAGES[0].replace(b"\x34\x00\x02\x80", b"\x34\x00\x1e\x80"))
NAMES = [b"curl", b"\xff\xfe\xfd", b"", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"a\0b", b'"\n\x1b']
NAMES.append("\xe9\U0001f600\ufffe".encode())


def rows_and_batches(owners=(None,), peers=(None,), most=65536, messages=MESSAGES):
    """The rows that the flows of the saved messages have to be, and batches of the same."""
    one, other = Rows(), Rows()
    assert one.fill(messages, owners, peers) == other.fill(messages, owners, peers)
    return [columns_of(flow) for flow in one.flows()], other.batches(most)


def hostile(name, number=0):
    return make_process(
        100 + number,
        comm=name[:15],
        exe=b"/" + name,
        cmdline=name.replace(b"\0", b" ") + b"\0" + name,
        cgroup=b"/system.slice/" + name.replace(b"/", b"") + b".service",
        uid=number,
    )


def test_saved_events():
    owners = [hostile(name, number) for number, name in enumerate(NAMES)]
    wanted, [batch] = rows_and_batches([*owners, None], [None, *reversed(owners)])
    assert len(batch) == len(wanted) > 20
    assert batch.to_dicts() == wanted
    assert batch.column_names == list(batch.to_dicts()[0])
    # What makes this worth comparing.
    for name in ("sport", "icmp_id", "original_bytes", "start", "stop", "state", "reply_src", "pid", "peer_inode"):
        values = [row[name] for row in wanted]
        assert None in values and any(values), name
    assert {row["zone"] for row in wanted} == {0, 7} and 0xDEADBEEF in {row["mark"] for row in wanted}


@pytest.mark.parametrize("most", [1, 2, 7, 63, 64, 65])
def test_a_batch_has_at_most_so_many_rows(most):
    wanted, batches = rows_and_batches([make_process(7, comm=b"one")], most=most)
    assert all(len(batch) == most for batch in batches[:-1]) and 0 < len(batches[-1]) <= most
    assert [row for batch in batches for row in batch.to_dicts()] == wanted


def test_many_rows_and_many_processes():
    """Columns grow, and so does what tells processes and texts apart."""
    owners = [make_process(1 + i, comm=b"worker-%d" % (i % 700), exe=b"/bin/%d" % i) for i in range(3_000)]
    wanted, batches = rows_and_batches(owners, owners[::-1], messages=MESSAGES * 120)
    assert sum(map(len, batches)) > 3_000
    assert [row for batch in batches for row in batch.to_dicts()] == wanted


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=6))
@settings(max_examples=200, deadline=None)
def test_any_name(names):
    wanted, [batch] = rows_and_batches([hostile(name, number) for number, name in enumerate(names)])
    assert batch.to_dicts() == wanted
    repr(batch)


@given(st.text())
def test_valid_text_stays(text):
    rows = Rows()
    rows.fill(MESSAGES[:1], [make_process(1, comm=text.encode("utf-8", "replace"))])
    [batch] = rows.batches()
    assert batch.to_dicts()[0]["comm"] == valid_text(text.encode("utf-8", "replace").decode())


def test_known_to_be_empty_is_not_unknown():
    rows = Rows()
    rows.fill(MESSAGES[:2], [make_process(1, comm=b"", cmdline=b""), make_process(2)])
    [batch] = rows.batches()
    empty, unknown = batch.to_dicts()
    assert (empty["comm"], empty["cmdline"], empty["exe"]) == ("", "", None)
    assert (unknown["comm"], unknown["cmdline"], unknown["exe"]) == (None, None, None)


def test_a_batch_ends_before_its_texts_grow_without_bounds():
    """1 MiB for each of 200 processes: some 64 MiB are in one batch, and nothing is lost."""
    rows = Rows()
    owners = [make_process(i, cmdline=b"%d" % i * (1 << 18)) for i in range(1000, 1200)]
    made = rows.fill(MESSAGES[:1] * 200, owners)
    batches = rows.batches()
    assert made == sum(map(len, batches)) == 200 and len(batches) == 4
    assert all(batch.nbytes < 70 << 20 for batch in batches)
    assert [row["pid"] for row in batches[1].to_dicts()] == list(range(1064, 1128))


def test_losses_are_counted_and_are_no_rows():
    rows = Rows()
    rows.lose(0)
    assert rows.batches() == []
    rows.fill(MESSAGES[:1])
    rows.lose(3, since=20, until=30)
    rows.fill(MESSAGES[:1])
    rows.lose(4, at_least=True, since=10, until=40)
    rows.lose(0, since=1, until=99)
    [batch] = rows.batches()
    assert (len(batch), batch.lost, batch.lost_at_least, repr(batch)) == (2, 7, True, "<Batch of 2 rows, 7 lost>")
    assert (batch.lost_since, batch.lost_until) == (10, 40)
    rows.lose(5, since=7, until=8)
    rows.lose(1, until=9)
    [batch] = rows.batches()
    assert (batch.lost_since, batch.lost_until) == (None, 9)
    assert (len(batch), batch.lost, batch.lost_at_least, batch.to_dicts()) == (0, 6, False, [])


def test_community_ids_where_they_are_asked_for():
    one, other = (Rows(presentation=Presentation(community_id=7)) for _ in range(2))
    assert one.fill(MESSAGES) == other.fill(MESSAGES)
    wanted = [columns_of(flow, True) for flow in one.flows()]
    [batch] = other.batches()
    assert batch.to_dicts() == wanted and all(row["community_id"].startswith("1:") for row in wanted)


def test_a_batch_is_immutable():
    rows = Rows()
    rows.fill(MESSAGES[:1])
    [batch] = rows.batches()
    for name in ("lost", "column_names", "new"):
        with pytest.raises(AttributeError):
            setattr(batch, name, 1)
    with pytest.raises(TypeError):
        Batch()


SENDER = """
import ctypes, socket, sys
ctypes.CDLL(None).prctl(15, b"\\xff\\xe2\\x82 \\"'\\n", 0, 0, 0)
for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect((address, 5353))
        sock.send(b"x")
"""


def in_order(row):
    """Events of two CPUs may reach two sockets in different order."""
    return [str(row[name]) for name in ("id", "type", "status", "state", "timeout", "original_bytes")]


@pytest.mark.parametrize("mode", ["auto", "off"])
def test_live_flows(tracked, within, mode):
    """Both families, NAT, ICMP, counters, a process with hostile names, ends without a process."""
    with within():
        nft(
            "table inet nat { chain out { type nat hook output priority -100; udp dport 5353 redirect to :9; };"
            " chain marking { type filter hook output priority 0; udp dport 9 ct mark set 7; }; }"
        )
        for name in ("acct", "timestamp"):
            with open(f"/proc/sys/net/netfilter/nf_conntrack_{name}", "w") as file:
                file.write("1")
        events = ("NEW", "UPDATE", "DESTROY")
        with (
            Conntrack(events=events, attribution=mode, probe=False) as one,
            Conntrack(events=events, attribution=mode, probe=False) as other,
        ):
            for version in (4, 6):
                make_udp(version)
                make_tcp(version)
                make_ping(version, 77)
            subprocess.run([b"\xc3\x28 \xff", "-c", SENDER, "", "x\ty"], executable=sys.executable, check=True)
            subprocess.run(["conntrack", "-F"], check=True, capture_output=True)
            until(lambda: one.stats().events == other.stats().events >= 24)
            time.sleep(0.1)
            wanted = sorted(map(columns_of, one.read(timeout=0.1)), key=in_order)
            rows = sorted(next(other.batches(len(wanted), 5)).to_dicts(), key=in_order)
    whole = 0
    for one, row in zip(wanted, rows, strict=True):
        del one["time"]
        # Each looked for itself, one later than the other: of an end that is no more it may know less.
        for end in ("", "peer_"):
            if any(one[end + name] != row[end + name] for name in ("pid", "match", "reason", "cmdline", "cookie")):
                for name in owner_columns(None, end):
                    one.pop(name, None)
            else:
                whole += 1
        assert {name: row[name] for name in one} == one
    assert whole > len(rows)
    redirected = [row for row in rows if row["dport"] == 5353]
    assert {(row["reply_sport"], row["mark"]) for row in redirected} == {(9, 7)}
    if mode == "off":
        assert {row["reason"] for row in rows} == {"off"} and not any(row["pid"] for row in rows)
    else:
        assert {row["comm"] for row in redirected} == {"\ufffd\ufffd\ufffd \"'\n"}
        assert {row["cmdline"].split(" -c ")[0] for row in redirected} == {"\ufffd( \ufffd"}
        assert os.getpid() in {row["pid"] for row in rows} and None in {row["peer_pid"] for row in rows}


def test_owners_that_are_no_process():
    """Of the far end of a flow nothing is known, not even a reason."""
    assert not any(owner_columns(None, "").values())
    rows = Rows()
    rows.fill(MESSAGES[:1])
    [batch] = rows.batches()
    [row] = batch.to_dicts()
    assert (row["reason"], row["pid"], row["peer_reason"]) == ("closed", None, "closed")


def test_ipv6_addresses_that_look_like_ipv4():
    """::ffff:10.0.0.1 over IPv6 and 10.0.0.1 over IPv4 have the same bytes, and each its own text."""
    messages = [message for message in MESSAGES if len(message) > 100]
    rows, batches = rows_and_batches(messages=[_mapped(message) for message in messages])
    assert batches[0].to_dicts() == rows
    texts = {(row["src"], row["src_packed"]) for row in rows}
    assert len({text for text, _ in texts}) == 2 and len({packed for _, packed in texts}) == 1


def _mapped(message):
    v4, v6 = socket.inet_aton("127.0.0.1"), socket.inet_pton(socket.AF_INET6, "::1")
    return message.replace(v6, bytes(10) + b"\xff\xff" + socket.inet_aton("10.0.0.1")).replace(
        v4, socket.inet_aton("10.0.0.1")
    )
