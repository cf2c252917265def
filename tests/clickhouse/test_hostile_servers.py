"""A server that is broken, or that lies: a sentence, no traceback, no password in it, and no memory without bounds."""

import contextlib
import itertools
import json
import os
import re
import socket
import subprocess
import threading

import pytest

from nfct_fast import ClickHouseError, ClickHouseStore
from nfct_fast.clickhouse import http_query
from nfct_fast.clickhouse.row_columns import COLUMNS, WIDTH
from nfct_fast.clickhouse.server_url import server_url
from support.cli import PROGRAM


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(http_query, "_SILENCE_S", 5.0)


HOURS = b"[1728000000,5,0]\n"
MIB = 1 << 20


class Server:
    """Answers each request with the next of some answers: bytes, or an iterable of bytes; None breaks off."""

    def __init__(self, *answers, listens=True):
        self._listens = listens
        self._answers, self.sent, self.requests = answers, 0, []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://joe:sesame@127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self):
        with contextlib.suppress(OSError):
            for answer in self._answers:
                connection, _ = self._listener.accept()
                connection.settimeout(20)
                with connection, contextlib.suppress(OSError):
                    self.requests.append(self._request(connection) if self._listens else b"")
                    for part in (answer,) if isinstance(answer, bytes) else answer:
                        connection.sendall(part)
                        self.sent += len(part)

    @staticmethod
    def _request(connection):
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65536) or b"\r\n\r\n"
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
        while len(body) < length:
            body += connection.recv(65536)
        return head + body

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._listener.close()


def answer(body, status=b"200 OK", headers=b""):
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\nConnection: close\r\n%b\r\n" % (status, len(body), headers) + body


def endless(head, part):
    yield head
    while True:
        yield part


def chunks(*bodies):
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    for body in bodies:
        yield b"%x\r\n%b\r\n" % (len(body), body)


ENDLESS = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 999999999999999\r\n\r\n"
ERROR = b"Code: 60. DB::Exception: Unknown table expression identifier 'nfct_flows'. (UNKNOWN_TABLE)\n"
IN_STREAM = b"\r\n__exception__\r\nxyzzy\r\nCode: 241. DB::Exception: Memory limit exceeded. (MEMORY)\n30 xyzzy\r\n"


def row(**changes):
    """A row that would be right, but for some of its values."""
    names = re.findall(r"toJSONString\(\[.*?\]\)|[\w`]+\([^()]*(?:\([^()]*\))*\)|`\w+`", COLUMNS)
    assert len(names) == WIDTH
    values = {
        "`host`": "h", "`machine_id`": "", "`boot_id`": "", "toUnixTimestamp64Nano(time)": 1728000000 * 10**9,
        "`type`": "NEW", "startsWith(proto, 'ipv4/')": 1, "`protonum`": 6, "hex(src)": "00" * 10 + "FFFF0A000001",
        "hex(dst)": "00" * 10 + "FFFF0A000002", "`sport`": 1, "`dport`": 2, "`has_reply`": False, "`mark`": 0,
        "`zone`": 0,
    }  # fmt: skip
    process = json.dumps([None] * 25 + ["{}", "{}"])
    found = [process if "[" in name else values.get(name) for name in names]
    for at, value in changes.items():
        found[int(at[1:])] = value
    return json.dumps(found).encode() + b"\n"


def found(*answers, **options):
    with Server(*answers) as server, ClickHouseStore(server.url) as store:
        return list(store.find(all_records=True, **options)), server


def test_the_row_would_be_right():
    flows, server = found(answer(HOURS), answer(row()))
    assert [(flow.src, flow.dst, flow.dport, flow.host.name) for flow in flows] == [("10.0.0.1", "10.0.0.2", 2, "h")]
    assert b"X-ClickHouse-Key: sesame" in server.requests[0]


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ((b"",), "broke off"),
        ((b"SSH-2.0-OpenSSH_9\r\n",), "answers no HTTP"),
        ((b"HTTP/1.1 200 OK\r\n\r\n[1,1,0]\n",), "without a length"),
        ((answer(b"<html>Not Found</html>", b"404 Not Found"),), "answers 404 Not Found: is that ClickHouse"),
        ((answer(b"<html>hello</html>"),), "no row: is that ClickHouse"),
        ((answer(b"", b"301 Moved", b"Location: http://evil.example/\x1b[2J\r\n"),), "redirects to http://evil.example/"),
        ((answer(ERROR, b"404 Not Found"),), "the table is not there .* (code 60)"),
        ((answer(b"Code: 516. DB::Exception: joe: \x1b[2JAuthentication failed", b"403 Forbidden"),), "_PASSWORD"),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[1728000000,5,0]\n",), "broke off"),
        ((answer(b"[1728000000"),), "cut off"),
        ((answer(b'["x",5,0]\n'),), "no hours"),
        ((answer(b"[1728000000,[],0]\n"),), "no hours"),
        ((answer(b"[1]\n"),), "no hours"),
        ((answer(b"[" * 100_000 + b"\n"),), "cannot be read"),
        ((answer(b"[\xff]\n"),), "cannot be read"),
        ((answer(b'["' + b"x" * 2 * MIB + b'"]\n'),), "more than 1,048,576 bytes"),
        ((endless(ENDLESS, b"[" * MIB),), "more than 1,048,576 bytes"),
        ((endless(ENDLESS, b"[1,2,3]\n" * 10_000),), "more rows than"),
        ((endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 100),), "answers no HTTP"),
        ((endless(b"HTTP/1.1 500 Error\r\nConnection: close\r\n\r\n", b"<" * MIB),), "answers 500 Error"),
        ((answer(HOURS), chunks(row(), IN_STREAM)), "too much memory .*Memory limit exceeded"),
        ((answer(HOURS), chunks(row())), "broke off"),
        ((answer(HOURS), answer(b'{"exception": "Code: 159. DB::Exception: Timeout exceeded"}\n')), "it took too long"),
        ((answer(HOURS), answer(row() + b"[1,2]\n")), "that no nfct-fast wrote: 2 values"),
        ((answer(HOURS), answer(b"null\n")), "no row"),
        ((answer(HOURS), answer(row(_3=1 << 80))), "that no nfct-fast wrote"),
        ((answer(HOURS), answer(row(_0=[]))), "that no nfct-fast wrote"),
        ((answer(HOURS), answer(row(_0="\ud800"))), "that no nfct-fast wrote"),
        ((answer(HOURS), answer(row(_1="not 32 digits"))), "that no nfct-fast wrote"),
        ((answer(HOURS), answer(row(_4="OLD"))), "that no nfct-fast wrote"),
        ((answer(HOURS), answer(row(_6=-1))), "that no nfct-fast wrote"),
        ((answer(HOURS), answer(row(_7="00"))), "that no nfct-fast wrote"),
        ((answer(HOURS), answer(row(_7="zz" * 16))), "that no nfct-fast wrote"),
        ((answer(HOURS), answer(row(_8=None))), "that no nfct-fast wrote"),
        ((answer(HOURS), answer(row(_8={}))), "that no nfct-fast wrote"),
        ((answer(HOURS), answer(row(_22="sideways"))), "that no nfct-fast wrote"),
    ],
    ids=itertools.count(),
)  # fmt: skip
def test_it_is_told_what_is_wrong(answers, told):
    with Server(*answers) as server, ClickHouseStore(server.url) as store:
        with pytest.raises(ClickHouseError) as caught:
            list(store.find())
        text = str(caught.value)
        assert re.search(told.replace("(code 60)", r"\(code 60\)"), text), text
        assert text.isprintable() and len(text) < 700
        assert "sesame" not in text and "joe@" not in text and text.startswith(f"http://127.0.0.1:{server.port}/: ")
        assert server.sent < 20 * MIB


PROCESS = [None] * 25 + ["{}", "{}"]


@pytest.mark.parametrize(
    "changes",
    [
        {0: "x"}, {0: "99999999999"}, {0: "7", 3: "-1"}, {0: "7", 7: "c" * 200_000}, {0: "7", 8: "a", 9: "{"},
        {0: "7", 8: "a", 9: "[1]"}, {0: "7", 13: "/" * 200_000}, {0: "7", 24: "[[]]"}, {0: "7", 24: '[{"pid":"1"}]'},
        {0: "7", 24: "[" * 100_000}, {0: "7", 25: "[]"}, {0: "7", 26: '{"comm":5}'}, {0: "7", 26: '{"comm":"a"}'},
        {0: [], 1: {}}, {0: "7", 7: 5},
    ],
    ids=itertools.count(),
)  # fmt: skip
def test_a_process_that_cannot_be(changes):
    process = [changes.get(at, one) for at, one in enumerate(PROCESS)]
    with pytest.raises(ClickHouseError, match="that no nfct-fast wrote"):
        found(answer(HOURS), answer(row(**{f"_{WIDTH - 2}": json.dumps(process)})))


@pytest.mark.parametrize("text", ["[", "5", "null", "[]", '{"0":1}', '"x"'])
def test_a_process_that_is_none(text):
    with pytest.raises(ClickHouseError, match="that no nfct-fast wrote"):
        found(answer(HOURS), answer(row(**{f"_{WIDTH - 2}": text})))


def test_flows_come_before_the_answer_ends():
    go = threading.Event()

    def slowly():
        yield from chunks(row())
        assert go.wait(20)
        yield b"0\r\n\r\n"

    with Server(answer(HOURS), slowly()) as server, ClickHouseStore(server.url) as store:
        flows = store.find(all_records=True)
        assert next(flows).dport == 2
        go.set()
        assert list(flows) == []


def test_a_user_for_whom_settings_are_fixed():
    refusal = answer(
        b"Code: 164. DB::Exception: Cannot modify 'readonly' setting in readonly mode. (READONLY)", b"500 E"
    )
    flows, server = found(refusal, answer(HOURS), answer(row()))
    assert len(flows) == 1
    assert [b"readonly=" in request.partition(b"\r\n")[0] for request in server.requests] == [True, False, False]


def test_a_connection_that_the_server_has_closed_is_made_anew():
    kept = answer(HOURS).replace(b"Connection: close\r\n", b"")
    assert len(found(kept, answer(row()))[0]) == 1


@pytest.mark.parametrize(
    ("before", "listens"), [(b"", True), (ENDLESS, True), (ENDLESS + b"[1728000000", True), (b"", False)]
)
def test_one_who_says_nothing_more(monkeypatch, before, listens):
    monkeypatch.setattr(http_query, "_SILENCE_S", 0.5)
    end = threading.Event()

    def silent():
        yield before
        end.wait(20)

    with Server(silent(), listens=listens) as server, ClickHouseStore(server.url) as store:
        with pytest.raises(ClickHouseError, match="no answer for"):
            list(store.find())
        end.set()


def test_nobody_is_there():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with (
        ClickHouseStore(f"http://127.0.0.1:{port}") as store,
        pytest.raises(ClickHouseError, match="refused: is Click"),
    ):
        list(store.find())


def test_no_tls_there():
    with Server(b"HTTP/1.1 400 Bad Request\r\n\r\n", listens=False) as server:
        with (
            ClickHouseStore(f"https://127.0.0.1:{server.port}") as store,
            pytest.raises(ClickHouseError, match="no TLS"),
        ):
            list(store.find())


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1", "ftp://joe:sesame@h", "http://joe:sesame@h:x", "http://joe:sesame@", "http://joe:sesame@h?secret=1",
        "http://joe:ses%0aame@h", "http://joe:sesame@h\r\nX: y/", "http://joe:sesame@h/ x", "http://joe:sesame@[::1",
        "http://joe:sesame@h/#sesame", "", "http://joe:%ff@h",
    ],
)  # fmt: skip
def test_urls_that_are_none(url):
    with pytest.raises(ValueError, match="ClickHouse") as caught:
        ClickHouseStore(url)
    assert "ses" not in str(caught.value)


def test_urls():
    environment = {"CLICKHOUSE_USER": "u", "CLICKHOUSE_PASSWORD": "p", "CLICKHOUSE_DATABASE": "d"}
    url = server_url("https://db.example", environment)
    assert (
        url == (True, "db.example", 8443, "/", "d", "nfct_flows", "u", "p") and url.shown == "https://db.example:8443/"
    )
    url = server_url("http://a%40b:c%2Fd@[2001:db8::1]:80/ch?database=x&table=y_flows", environment)
    assert url == (False, "2001:db8::1", 80, "/ch", "x", "y_flows", "a@b", "c/d")
    assert url.shown == "http://[2001:db8::1]:80/ch"


def test_the_command_line():
    """No traceback, no password, status 2; and what was found before is printed."""
    with Server(answer(HOURS), chunks(row(), IN_STREAM)) as server:
        environment = os.environ | {"CLICKHOUSE_USER": "joe", "CLICKHOUSE_PASSWORD": "sesame"}
        command = [*PROGRAM, "find", "--clickhouse", f"http://127.0.0.1:{server.port}", "--events", "-f", "{ev.dport}"]
        result = subprocess.run(command, capture_output=True, timeout=30, env=environment)
    assert (result.returncode, result.stdout) == (2, b"2\n")
    assert result.stderr.count(b"\n") == 1 and b"Memory limit" in result.stderr and b"sesame" not in result.stderr
    assert b"X-ClickHouse-Key: sesame" in server.requests[0]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--clickhouse", "http://joe:sesame@h:x"), b"cannot be read"),
        (("--clickhouse", "http://h", "--store", "/tmp"), b"do not go together"),
        (("--host", "web1"), b"--clickhouse"),
    ],
)
def test_arguments_that_do_not_go_together(words, told):
    result = subprocess.run([*PROGRAM, "find", *words], capture_output=True, timeout=30)
    assert result.returncode == 2 and told in result.stderr and b"Traceback" not in result.stderr
    assert b"sesame" not in result.stderr and result.stderr.count(b"\n") == 1
