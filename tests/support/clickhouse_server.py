"""A ClickHouse in tests, with the tables of this package: see clickhouse_front.py for what it is."""

import contextlib
import http.client
import os
import subprocess
import sys
from urllib.parse import quote

from support.paths import ROOT

USER, PASSWORD = "reader", "pass word"  # with --password


class ClickHouse:
    """A database that is empty at first. `url` is what --clickhouse takes."""

    def __init__(self, port):
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def insert(self, lines, table="nfct_lines"):
        """Insert lines of JSON, a str or bytes each."""
        body = b"".join([(line if isinstance(line, bytes) else line.encode()).rstrip(b"\n") + b"\n" for line in lines])
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request("POST", f"/?query={quote(f'INSERT INTO {table} FORMAT JSONEachRow')}", body)
            response = connection.getresponse()
            answer = response.read()
            assert response.status == 200, answer

    def ask(self, query):
        """The answer to a query."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        body = f'--x\r\nContent-Disposition: form-data; name="query"\r\n\r\n{query}\r\n--x--\r\n'
        with contextlib.closing(connection):
            connection.request("POST", "/", body, {"Content-Type": "multipart/form-data; boundary=x"})
            return connection.getresponse().read()


@contextlib.contextmanager
def clickhouse(*options):
    """Start one, and end it afterwards."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT / "tests"), *sys.path]))}
    command = [sys.executable, "-m", "support.clickhouse_front", *options]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    with process:
        try:
            yield ClickHouse(int(process.stdout.readline()))
        finally:
            process.kill()
