"""pyarrow, polars, duckdb and chdb read a batch, and each finds in it what Batch.to_dicts() has."""

import datetime
import json

import pytest

from support.columns import reader
from support.events import saved
from support.wheel import is_source_tree

if not is_source_tree():
    pytest.importorskip("nfct_fast.testing.batch_hooks", reason="an installed wheel has no hooks for tests")

from nfct_fast.testing.batch_hooks import Rows, make_process  # noqa: E402

MESSAGES, _ = saved()
OWNERS = [
    make_process(1, comm=b"curl", exe=b"/bin/curl", cmdline=b"curl\0-s", cgroup=b"/system.slice/a.service", uid=1000),
    make_process(2, comm=b"\xff\xfe", exe=b"/\xed\xa0\x80", cmdline=b"\xff\0\xfe", cgroup=b"/system.slice/b.service"),
    None,
]
TIMES = ("time", "start", "stop")


@pytest.fixture(scope="module")
def batch():
    rows = Rows()
    rows.fill(MESSAGES * 3, OWNERS, OWNERS[::-1])
    [batch] = rows.batches()
    return batch


@pytest.fixture(scope="module")
def empty():
    rows = Rows()
    rows.lose(1)
    [batch] = rows.batches()
    return batch


def test_pyarrow(batch):
    pyarrow = reader("pyarrow")
    for taken in (pyarrow.record_batch(batch), pyarrow.table(batch).combine_chunks().to_batches()[0]):
        taken.validate(full=True)
        plain = taken.set_column(0, "time", taken["time"].cast("int64"))
        for name in TIMES:
            plain = plain.set_column(plain.schema.get_field_index(name), name, plain[name].cast("int64"))
        assert plain.to_pylist() == batch.to_dicts()
        for name, column in zip(taken.schema.names, taken.columns):
            assert column.null_count == sum(row[name] is None for row in batch.to_dicts()), name


def test_the_types(batch):
    pa = reader("pyarrow")
    schema = pa.schema(batch)
    assert schema.metadata == {b"host": b"here"} and pa.table(batch).schema.metadata == schema.metadata
    assert schema.names == batch.column_names
    texts = pa.dictionary(pa.int32(), pa.string())
    wanted = {
        **dict.fromkeys(TIMES, pa.timestamp("ns", tz="UTC")),
        **dict.fromkeys(("comm", "exe", "cmdline", "unit", "user_unit", "container", "cgroup", "proto"), texts),
        **dict.fromkeys(("peer_comm", "peer_exe", "peer_unit"), texts),
        **dict.fromkeys(("match", "reason", "type", "direction"), pa.dictionary(pa.int8(), pa.string())),
        **dict.fromkeys(("src", "dst", "reply_src", "reply_dst"), pa.string()),
        **dict.fromkeys(("src_packed", "dst_packed", "reply_src_packed", "reply_dst_packed"), pa.binary(16)),
        **dict.fromkeys(("sport", "dport", "reply_sport", "reply_dport"), pa.uint16()),
        **dict.fromkeys(("pid", "ppid", "peer_pid"), pa.int32()),
        **dict.fromkeys(("uid", "gid", "peer_uid", "mark", "status"), pa.uint32()),
        **dict.fromkeys(("original_bytes", "reply_bytes", "original_packets", "reply_packets"), pa.uint64()),
        **dict.fromkeys(("inode", "cookie", "netns", "cgroup_id"), pa.uint64()),
        "recovered": pa.bool_(),
    }
    assert {name: schema.field(name).type for name in wanted} == wanted
    never_null = [field.name for field in schema if not field.nullable]
    assert {"time", "type", "proto", "src", "dst", "mark", "zone"} <= set(never_null) and "sport" not in never_null


def test_pyarrow_joins_batches(batch):
    """Each has dictionaries of its own, and the same schema."""
    pyarrow = reader("pyarrow")
    both = pyarrow.concat_tables([pyarrow.table(batch), pyarrow.table(batch)]).unify_dictionaries()
    both.validate(full=True)
    assert both["comm"].to_pylist() == [row["comm"] for row in batch.to_dicts()] * 2


def test_no_rows(empty):
    pyarrow = reader("pyarrow")
    table = pyarrow.table(empty)
    table.validate(full=True)
    assert table.num_rows == 0 and table.schema.names == empty.column_names


def test_polars(batch):
    polars = reader("polars")
    frame = polars.DataFrame(batch)
    assert frame.columns == batch.column_names and frame.shape[0] == len(batch)
    assert frame["time"].dtype == polars.Datetime("ns", "UTC") and frame["sport"].dtype == polars.UInt16
    frame = frame.with_columns(polars.col(name).dt.epoch("ns") for name in TIMES)
    assert frame.to_dicts() == batch.to_dicts()


def test_duckdb(batch):
    duckdb = reader("duckdb")
    wanted = batch.to_dicts()
    names = [name for name in batch.column_names if name not in TIMES]
    with duckdb.connect() as connection:
        columns = ", ".join(f'"{name}"' for name in names)
        rows = connection.sql(f"select {columns} from batch").fetchall()
        assert [dict(zip(names, row)) for row in rows] == [{name: row[name] for name in names} for row in wanted]
        [(nanoseconds,)] = connection.sql("select epoch_ns(time) from batch limit 1").fetchall()
        assert abs(nanoseconds - wanted[0]["time"]) < 1000  # its time stamps with a zone are of microseconds
        sums = dict(connection.sql("select unit, sum(reply_bytes) from batch group by 1").fetchall())
    assert sums == sums_by_unit(wanted)


def sums_by_unit(rows):
    sums = {}
    for row in rows:
        one = sums.setdefault(row["unit"], None)
        if row["reply_bytes"] is not None:
            sums[row["unit"]] = (one or 0) + row["reply_bytes"]
    return sums


def test_chdb(batch):
    chdb = reader("chdb")
    wanted = batch.to_dicts()
    names = "comm, unit, reason, src, sport, dport, pid, peer_pid, uid, reply_bytes, cookie, zone, recovered"
    text = str(chdb.query(f"select {names} from Python(batch)", "JSONEachRow"))
    rows = [json.loads(line) for line in text.splitlines()]
    assert [{name: plain(value) for name, value in row.items()} for row in rows] == [
        {name: row[name] for name in names.split(", ")} for row in wanted
    ]
    text = str(chdb.query("select unit, sum(reply_bytes) from Python(batch) group by 1", "CSV"))
    assert {line.split(",")[0].strip('"') for line in text.splitlines()} == {"a.service", "b.service", "\\N"}


def plain(value):
    """It writes numbers of 64 bits as text."""
    return int(value) if isinstance(value, str) and value.isdigit() else value


def test_python_without_anything(batch):
    """What needs no package: rows as dicts, times in ns."""
    [row, *_] = batch.to_dicts()
    assert datetime.datetime.fromtimestamp(row["time"] // 10**9, datetime.UTC).year == 2023
    assert isinstance(row["src_packed"], bytes) and len(row["src_packed"]) == 16
