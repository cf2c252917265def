"""What a store holds is what was delivered: rows become a recording again that says the same."""

import contextlib
import ipaddress
import os
import random
import sqlite3

import pytest

from nfct_fast import Conntrack, Lost, RecordingError
from nfct_fast.events.community_id import community_id
from nfct_fast.replay.recording_host import read_identity
from nfct_fast.store.hour_file import connect
from nfct_fast.store.rebuild import rebuild
from nfct_fast.store.schema import StoreError, community_key, open_file, store_files
from nfct_fast.store.store_writer import store_recording
from support.events import saved
from support.recordings import flow, loss, owner, process, whole

HOUR = 3600 * 10**9
BEGAN = 10**18 - 10**18 % HOUR


def packed(address):
    return ipaddress.ip_address(address).packed


def play(recording):
    with Conntrack(replay=recording, on_loss="yield") as conntrack:
        return [item if isinstance(item, Lost) else item.to_json() for item in conntrack]


def stored(directory, size=10_000):
    """All that a store holds, played again."""
    found = []
    for file in store_files(directory):
        with contextlib.closing(open_file(file.path)) as connection:
            for table in ("flow", "loss"):
                rows = [row[0] for row in connection.execute(f"SELECT record FROM {table} ORDER BY id")]
                for at in range(0, len(rows), size):
                    fd = rebuild(connection, 1, rows[at : at + size])
                    assert read_identity(fd)[0].name == "box"
                    found += play(fd)
                    os.close(fd)
    return found


@pytest.fixture
def put(tmp_path):
    """Puts a recording into a new store; the recording's path and the store's."""

    def made(*chunks):
        (tmp_path / "recording").write_bytes(whole(*chunks))
        (tmp_path / "store").mkdir()
        writer = store_recording(tmp_path / "recording", tmp_path / "store")
        assert writer.unstored == 0
        return tmp_path / "recording", tmp_path / "store"

    return made


def sample():
    messages, _ = saved()
    chunks = [process(0), process(1, comm=b"\xff\n", ancestors=[(9, b"sh"), (8, b"sshd")]), process(2, pid=0)]
    for number, message in enumerate(messages):
        others = [2, 1] if number % 3 == 0 else []
        chunks.append(flow(message, owner(1 + number % 3, others), owner(reason=12), time=BEGAN + number))
    return chunks


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_the_same_flows(put, size):
    recording, store = put(*sample(), loss(BEGAN + HOUR - 1))
    assert stored(store, size) == play(recording)


def test_many_processes(put):
    """More than a recording has slots, and slots that are used again."""
    message, chance, chunks = saved()[0][0], random.Random(1), []
    for number in range(6000):
        chunks.append(process(number % 2048, comm=b"p%d" % number))
        slots = [1 + max(0, number - back) % 2048 for back in chance.sample(range(min(number + 1, 500)), 1)]
        chunks.append(flow(message, owner(*slots, [1 + number % 2048]), owner(), time=BEGAN + number))
    recording, store = put(*chunks)
    assert stored(store) == play(recording)


def test_columns(put):
    recording, store = put(*sample())
    [file] = store_files(store)
    with contextlib.closing(open_file(file.path)) as connection:
        connection.row_factory = sqlite3.Row
        rows = connection.execute("SELECT * FROM flow ORDER BY id").fetchall()
        processes = {row["id"]: row for row in connection.execute("SELECT * FROM process")}
        meta = dict(connection.execute("SELECT key, value FROM meta WHERE key NOT LIKE 'boot:%'").fetchall())
    assert meta == {"earliest": BEGAN, "latest": BEGAN + len(rows) - 1, "finished": 1}
    assert len(rows) == len(play(recording)) and len(processes) == 3
    names = {(row["comm"], row["pid"], row["unit"], row["cmdline"]) for row in processes.values()}
    rest = ("a.service", "curl -s")
    assert names == {("curl", 4000, *rest), ("\ufffd\n", 4001, *rest), ("curl", None, *rest)}
    with Conntrack(replay=recording) as conntrack:
        for row, one in zip(rows, conntrack, strict=True):
            assert (row["type"], row["proto"], row["time"]) == (one.type, one.proto, one.time_ns)
            assert (row["src"], row["dst"]) == (packed(one.original.src), packed(one.original.dst))
            assert (row["sport"], row["dport"]) == (one.original.sport, one.original.dport)
            assert row["community"] == community_key(one.community_id)
            assert row["community_nat"] == (one.community_id_nat and community_key(one.community_id_nat))
            has_nat = row["nat_src"] is not None
            assert has_nat == (
                (one.reply.src, one.reply.dst) != (one.dst, one.src)
                or (one.sport is not None and (one.reply.sport, one.reply.dport) != (one.dport, one.sport))
            )
            if has_nat:
                assert (row["nat_src"], row["nat_dst"]) == (packed(one.reply.dst), packed(one.reply.src))
                assert (row["nat_sport"], row["nat_dport"]) == (one.reply.dport, one.reply.sport)
            assert processes[row["owner"]]["pid"] == (one.owner.process.pid or None) and row["peer"] is None


def test_whole_flows_and_hours(put):
    message = saved()[0][0]
    times = [BEGAN + hour * HOUR for hour in (0, 1, 0, 7, 1)]
    recording, store = put(*[flow(message, owner(), owner(), time=time, kind=5, began=BEGAN - 5) for time in times])
    files = store_files(store)
    # Hour 7 displaced the file of hour 1, which is gone on with unless it has been finished by then.
    assert [file.hour - files[0].hour for file in files] in ([0, 1, 7], [0, 1, 1, 7])
    assert files == sorted(files, key=lambda file: (file.hour, file.number))
    found = []
    for file in files:
        with contextlib.closing(open_file(file.path)) as connection:
            rows = connection.execute("SELECT time, began, type FROM flow").fetchall()
        found += [time for time, began, kind in rows if (began, kind) == (BEGAN - 5, "FLOW")]
        assert {time // HOUR for time, _, _ in rows} == {file.hour}
    assert sorted(found) == sorted(times)
    assert sorted(stored(store)) == sorted(play(recording))


@pytest.mark.parametrize("table", ["flow", "process"])
def test_rows_that_were_tampered_with(put, table):
    """Nothing but a refusal comes of it."""
    _, store = put(*sample())
    [file] = store_files(store)
    chance = random.Random(3)
    with contextlib.closing(connect(file.path)) as connection:
        rows = connection.execute(f"SELECT id, record FROM {table}").fetchall()
        records = [row[0] for row in connection.execute("SELECT record FROM flow")]
        refused = 0
        for _ in range(200):
            number, record = chance.choice(rows)
            mutant = bytearray(record)
            at = chance.randrange(len(mutant))
            mutant[at : at + chance.choice((1, 4))] = chance.choice((b"", b"\xff", bytes(4), chance.randbytes(4)))
            value = chance.choice((bytes(mutant), bytes(mutant), mutant[:at], None, "text", 5))
            connection.execute(f"UPDATE {table} SET record = ? WHERE id = ?", (value, number))
            if table == "flow":
                records = [value]
            try:
                fd = rebuild(connection, 1, records)
                try:
                    play(fd)
                finally:
                    os.close(fd)
            except (StoreError, RecordingError):
                refused += 1
            connection.execute(f"UPDATE {table} SET record = ? WHERE id = ?", (record, number))
        assert refused > 30
        for boot, wanted in ((2, records), (None, records)):
            with pytest.raises(StoreError, match="who recorded"):
                rebuild(connection, boot, wanted)
        connection.execute("DELETE FROM process")
        with pytest.raises(StoreError, match="without a record"):
            rebuild(connection, 1, [row[0] for row in connection.execute("SELECT record FROM flow WHERE owner > 0")])


def test_a_community_id():
    text = community_id(6, "192.0.2.1", "192.0.2.2", 1, 2)
    assert -(2**63) <= community_key(text) < 2**63
    for wrong in ("", "1:", "2:" + text[2:], text[:-1], text + "=", "1:ä"):
        with pytest.raises(ValueError, match="Community ID"):
            community_key(wrong)


def test_files_of_others(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "a")) as connection:
        connection.execute("CREATE TABLE flow(id)")
    (tmp_path / "b").write_text("text " * 100)
    for name, reason in (("a", "not a file of nfct-fast"), ("b", "not a database"), ("c", "unable to open")):
        with pytest.raises(StoreError, match=reason):
            open_file(str(tmp_path / name))
    with contextlib.closing(sqlite3.connect(tmp_path / "a")) as connection:
        connection.execute("PRAGMA application_id = 0x6e666374")
        connection.execute("PRAGMA user_version = 2")
    with pytest.raises(StoreError, match="format 2"):
        open_file(str(tmp_path / "a"))
