"""A part of ClickHouse's HTTP interface before chdb, which is its engine as a library: `python -m`, prints a port.

ClickHouse's server is no package of Python's, so tests have no real one. What this takes is as the server's manual has
it: a form (multipart/form-data) with `query` and `param_NAME`, settings in the URL, user, password and database in
headers. All else, from the types of parameters to unknown settings, is the engine's own doing. It answers in chunks,
and an error with its status and in its words. INSERT takes rows as the body, with the query in the URL.
"""

import contextlib
import re
import sys
import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from urllib.parse import parse_qsl, urlsplit

from chdb.session import Session

from nfct_fast.command import fleet
from support.clickhouse import LONG, RETENTION, statements
from support.clickhouse_server import PASSWORD, USER

_PART = re.compile(rb'Content-Disposition: form-data; name="(\w+)"\r\n\r\n(.*)\r\n', re.DOTALL)
_CHUNK = 1 << 16
_CODE = re.compile(r"Code: (\d+)")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    session: Session
    lock = Lock()
    needs_password = False

    def log_message(self, *arguments):
        pass

    def do_POST(self):  # noqa: N802 -- its name is the base's
        body = self.rfile.read(int(self.headers["Content-Length"]))
        options = dict(parse_qsl(urlsplit(self.path).query))
        given = self.headers.get("X-ClickHouse-User"), self.headers.get("X-ClickHouse-Key")
        if self.needs_password and given != (USER, PASSWORD):
            self._answer(403, b"Code: 516. DB::Exception: reader: Authentication failed. (AUTHENTICATION_FAILED)", 516)
            return
        try:
            if "query" in options:
                with tempfile.NamedTemporaryFile() as file:
                    file.write(body)
                    file.flush()
                    table = options["query"].split()[2]
                    self._ask(f"INSERT INTO {table} SELECT * FROM file('{file.name}', JSONEachRow)", {}, {})
                self._answer(200, b"")
                return
            boundary = self.headers["Content-Type"].partition("boundary=")[2].encode()
            found = [_PART.fullmatch(part.removeprefix(b"\r\n")) for part in body.split(b"--" + boundary)[1:-1]]
            fields = {match[1].decode(): match[2].decode("utf-8", "surrogateescape") for match in found}
            parameters = {name[6:]: value for name, value in fields.items() if name.startswith("param_")}
            self._answer(200, self._ask(fields["query"], parameters, options))
        except Exception as error:  # what the engine refuses, as the server puts it
            text = str(error).split("DB::Exception: Code:")[0]
            code = int(_CODE.search(text)[1]) if _CODE.search(text) else 1000
            self._answer(400, text.encode(), code)

    def _ask(self, query, parameters, settings):
        if settings:
            query += " SETTINGS " + ", ".join([f"{name} = {value}" for name, value in settings.items()])
        with self.lock:
            return self.session.query(query, "JSONCompactEachRow", params=parameters).bytes()

    def _answer(self, status, body, code=None):
        self.send_response(status)
        self.send_header("Transfer-Encoding", "chunked")
        if code is not None:
            self.send_header("X-ClickHouse-Exception-Code", str(code))
        self.end_headers()
        with contextlib.suppress(OSError):
            for at in range(0, len(body), _CHUNK):
                part = body[at : at + _CHUNK]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
            self.wfile.write(b"0\r\n\r\n")


def main(needs_password):
    """Serve a database with the tables until standard input ends."""
    _Handler.session, _Handler.needs_password = Session(), needs_password
    for statement in statements(fleet.text("clickhouse.sql").replace(RETENTION, LONG)):
        _Handler.session.query(statement)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    print(server.server_port, flush=True)
    Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main("--password" in sys.argv)
