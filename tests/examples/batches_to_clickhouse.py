"""Insert flows into ClickHouse as columns: python batches_to_clickhouse.py URL [RECORDING]

URL is that of ClickHouse's HTTP interface, such as "http://user:password@clickhouse:8123/?database=nfct", where the
tables of `nfct-fast fleet clickhouse.sql` are. Flows of a RECORDING are inserted instead of new ones. What could not
be inserted is sent again, perhaps twice, which the tables allow for.
"""

import io
import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import pyarrow  # type: ignore[import-not-found, import-untyped, unused-ignore]

from nfct_fast import Batch, Conntrack

HOST = ("host", "machine_id", "boot_id")


def send(url: str, query: str, data: bytes) -> None:
    """Insert data, however long it takes."""
    place = urllib.parse.urlsplit(url)
    words = f"{place.query}&query={urllib.parse.quote(query)}".lstrip("&")
    address = place._replace(netloc=place.netloc.rpartition("@")[2], query=words).geturl()
    request = urllib.request.Request(address, data)
    if place.username is not None:
        request.add_header("X-ClickHouse-User", urllib.parse.unquote(place.username))
        request.add_header("X-ClickHouse-Key", urllib.parse.unquote(place.password or ""))
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60):
                return
        except urllib.error.HTTPError as error:
            print(f"{place.hostname}: {error.code}: {error.read(300)!r}", file=sys.stderr)
        except OSError as error:
            print(f"{place.hostname}: {error}", file=sys.stderr)
        time.sleep(1)  # flows wait in memory meanwhile, and what finds no room there is counted


def insert(url: str, batch: Batch) -> None:
    table = pyarrow.table(batch)
    known = table.schema.metadata
    host = {name: known.get(name.encode(), b"").decode() for name in HOST}
    if len(batch):
        for name, value in host.items():
            table = table.append_column(name, pyarrow.repeat(value, len(batch)).dictionary_encode())
        out = io.BytesIO()
        with pyarrow.ipc.new_stream(out, table.schema) as stream:
            stream.write_table(table)
        send(url, "INSERT INTO nfct_batches FORMAT ArrowStream", out.getvalue())
    if batch.lost or batch.lost_at_least:
        loss = {"type": "LOST", "time_ns": batch.lost_until, "lost": batch.lost, "at_least": batch.lost_at_least}
        send(url, "INSERT INTO nfct_lines FORMAT JSONEachRow", json.dumps(loss | host).encode())


def main(url: str, recording: str | None = None) -> None:
    port = urllib.parse.urlsplit(url).port or 80
    # Without the filter, each batch that is sent would make a flow of the next one.
    with Conntrack(replay=recording) if recording else Conntrack(filter=f"not dport {port}", flows=True) as conntrack:
        for batch in conntrack.batches(max_wait=5):
            insert(url, batch)


if __name__ == "__main__":
    main(*sys.argv[1:])
