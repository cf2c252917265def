"""tests/examples/batches_to_clickhouse.py brings batches into ClickHouse, whatever happens on the way."""

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from nfct_fast import Conntrack
from support.cli import SECONDS
from support.columns import reader
from support.events import saved
from support.paths import ROOT
from support.recordings import flow, loss, owner, process, whole

reader("pyarrow")
reader("chdb")

from support.clickhouse import Engine  # noqa: E402

TIME = 1_700_000_000_000_000_000


class Server(HTTPServer):
    """ClickHouse's HTTP interface as far as inserts need it, which at first has a failure of each kind."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.failures = ["refuse", "hang up after inserting"]
        self.inserts = []


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        words = parse_qs(urlsplit(self.path).query)
        assert (self.headers["X-ClickHouse-User"], self.headers["X-ClickHouse-Key"]) == ("me", "a:b")
        failure = self.server.failures.pop(0) if self.server.failures else None
        if failure != "refuse":
            self.server.inserts.append((words["database"], words["query"][0], body))
        if failure is None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif failure == "refuse":
            self.send_error(500)
        else:
            self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_each_flow_is_there_once(server, tmp_path):
    messages = saved()[0]
    flows = [flow(one, owner(1), owner(reason=12), time=TIME + n) for n, one in enumerate(messages)]
    recording = tmp_path / "recording"
    recording.write_bytes(whole(process(0), *flows, loss(time=TIME + 999)))
    program = ROOT / "tests" / "examples" / "batches_to_clickhouse.py"
    url = f"http://me:a%3Ab@127.0.0.1:{server.server_port}/?database=nfct"
    done = subprocess.run(
        [sys.executable, program, url, recording], capture_output=True, text=True, timeout=SECONDS + 20
    )
    assert done.returncode == 0 and len(done.stderr.splitlines()) == 2
    assert all(database == ["nfct"] for database, *_ in server.inserts)
    engine = Engine(tmp_path / "chdb")
    try:
        tables = engine.tables()
        for number, (_, query, body) in enumerate(server.inserts):
            path = tmp_path / str(number)
            path.write_bytes(body)
            (tables.add_arrow if "nfct_batches" in query else tables.add_line_file)(path)
        assert tables.value("SELECT count() FROM nfct_flows") > len(messages)  # one insert came twice
        rows = tables.rows("SELECT host, boot_id, id, comm FROM nfct_flows FINAL ORDER BY time")
        lost = tables.rows("SELECT host, boot_id, lost, at_least FROM nfct_losses FINAL")
    finally:
        engine.close()
    with Conntrack(replay=str(recording)) as conntrack:
        wanted = [one.id for one in conntrack]
    assert [row["id"] for row in rows] == wanted and len(wanted) == len(messages)
    assert {(row["host"], row["boot_id"], row["comm"]) for row in rows} == {("box", "0" * 32, "curl")}
    assert lost == [{"host": "box", "boot_id": "0" * 32, "lost": 3, "at_least": True}]
