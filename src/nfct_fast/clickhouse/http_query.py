"""Ask a ClickHouse over HTTP, and read its answer in bounded memory, whatever it is.

Values are bound to the query as parameters ({p0:Type}), each in a part of a form of its own: none is ever part of the
query's text, and none stands in the log of a proxy. Redirects are not followed, as user and password would be.
"""

import http.client
import json
import os
import re
import ssl
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from nfct_fast.clickhouse.clickhouse_error import ClickHouseError
from nfct_fast.clickhouse.server_url import ServerUrl
from nfct_fast.text.printable import printable

LINE_MOST = 1 << 20  # bytes of a row
_CONNECT_S = 10.0
_SILENCE_S = 120.0  # without a byte of an answer
_BLOCK = 1 << 18  # bytes read at once, at most
_ERROR_MOST = 1 << 14  # bytes of an error that are read
_TOLD_MOST = 400  # characters of it that are told
_IDLE_MOST = 4  # connections kept
# The server is asked to refuse what changes anything, and to give up when nobody reads any more.
_SETTINGS = (
    "readonly=2&max_execution_time=600&cancel_http_readonly_queries_on_client_close=1"
    "&http_write_exception_in_output_format=0"
)
_NO_SETTINGS = ("115", "164", "452")  # UNKNOWN_SETTING, READONLY, SETTING_CONSTRAINT_VIOLATION
_SAID = re.compile(rb"Code: (\d+)\. (?:DB::Exception: )?(.*)", re.DOTALL)
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": "\\0"})


class Bound(NamedTuple):
    """A value of a query, as text, with its type of ClickHouse."""

    type: str
    value: str


class _Refused(Exception):
    """The server does not take settings from this user."""


def _form(fields):
    """The body of a form, and its boundary, which is in none of the fields."""
    boundary = f"nfct-fast-{os.urandom(16).hex()}"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields
    ]
    return "".join([*parts, f"--{boundary}--\r\n"]).encode("utf-8", "surrogateescape"), boundary


class HttpQuery:
    """Asks a server, over connections that are kept for the next query. One thread uses it.

    Blocks until the server answers, at most two minutes at a time.
    """

    def __init__(self, url: ServerUrl) -> None:
        self.url = url
        self._idle: list[http.client.HTTPConnection] = []
        self._settings = f"?{_SETTINGS}"
        # Made here, as certificates may be readable for root alone, whose rights are given up later.
        self._tls = ssl.create_default_context() if url.is_tls else None

    def close(self) -> None:
        """Close the connections. It can be used again."""
        while self._idle:
            self._idle.pop().close()

    def lines(self, query: str, values: Sequence[Bound]) -> Iterator[list[bytes]]:
        """Yield the lines of the answer to a query with a FORMAT of one row a line, as they come: some at a time.

        query: With a "?" for each of the values, and none otherwise.

        Raises ClickHouseError.
        """
        texts = query.split("?")
        sql = texts[0] + "".join(
            [f"{{p{i}:{one.type}}}{text}" for i, (one, text) in enumerate(zip(values, texts[1:], strict=True))]
        )
        fields = [("query", sql), *[(f"param_p{i}", one.value.translate(_ESCAPES)) for i, one in enumerate(values)]]
        body, boundary = _form(fields)
        while True:
            try:
                yield from self._told(body, boundary)
                return
            except _Refused:
                self._settings = ""

    def _told(self, body, boundary):
        connection, response = None, None
        is_whole = False
        try:
            connection, response = self._answer(body, boundary)
            yield from self._blocks(response)
            is_whole = not response.will_close
        except (_Refused, ClickHouseError):
            raise
        except (OSError, http.client.HTTPException) as error:
            raise ClickHouseError(f"{self.url.shown}: {_why(error, self.url)}") from None
        finally:
            # One whose answer was not read to its end cannot be used for another.
            if response is not None:
                response.close()
            if connection is not None:
                if is_whole and len(self._idle) < _IDLE_MOST:
                    self._idle.append(connection)
                else:
                    connection.close()

    def _answer(self, body, boundary):
        """A connection, and the response on it. The server may have closed one that was idle: then it is a new one."""
        while True:
            is_old = bool(self._idle)
            connection = self._idle.pop() if is_old else self._connect()
            try:
                connection.request("POST", self.url.path + self._settings, body, self._headers(boundary))
                response = connection.getresponse()
                self._check(response)
                return connection, response
            except (ConnectionError, http.client.RemoteDisconnected):
                connection.close()
                if not is_old:
                    raise
            except BaseException:
                connection.close()
                raise

    def _connect(self):
        kind = http.client.HTTPSConnection if self._tls else http.client.HTTPConnection
        options = {"context": self._tls} if self._tls else {}
        connection = kind(self.url.host, self.url.port, timeout=_CONNECT_S, **options)
        try:
            connection.connect()
        except TimeoutError:
            connection.close()
            raise ClickHouseError(
                f"{self.url.shown}: no connection in {_CONNECT_S:.0f} s: are host and port right?"
            ) from None
        except BaseException:
            connection.close()
            raise
        connection.sock.settimeout(_SILENCE_S)
        return connection

    def _headers(self, boundary):
        headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Accept-Encoding": "identity",
            "User-Agent": "nfct-fast",
        }
        for name, value in (
            ("X-ClickHouse-User", self.url.user),
            ("X-ClickHouse-Key", self.url.password),
            ("X-ClickHouse-Database", self.url.database),
        ):
            if value is not None:
                headers[name] = value.encode("utf-8", "surrogateescape")
        if "X-ClickHouse-Key" in headers and "X-ClickHouse-User" not in headers:
            headers["X-ClickHouse-User"] = b"default"
        return headers

    def _check(self, response):
        if response.status == 200:
            if not response.chunked and response.length is None:
                raise ClickHouseError(f"{self.url.shown}: answers without a length, so that its end cannot be told")
            return
        if 300 <= response.status < 400:
            where = printable(response.headers.get("Location", "elsewhere"))[:_TOLD_MOST]
            raise ClickHouseError(f"{self.url.shown}: redirects to {where}, which is not followed: give that URL")
        self._refuse(response.read(_ERROR_MOST), f"answers {response.status} {printable(response.reason)[:80]}")

    def _refuse(self, text, otherwise):
        """Raise what a server says instead of an answer."""
        said = _SAID.search(text)
        if said is None:
            raise ClickHouseError(f"{self.url.shown}: {otherwise}: is that ClickHouse's HTTP interface?")
        code, what = said[1].decode(), said[2].decode("utf-8", "replace").strip()
        if code in _NO_SETTINGS and self._settings:
            raise _Refused
        what = " ".join(what.split("__exception__")[0].split())
        raise ClickHouseError(f"{self.url.shown}: {_HINTS.get(code, '')}{printable(what)[:_TOLD_MOST]} (code {code})")

    def _blocks(self, response):
        rest = b""
        while block := response.read1(_BLOCK):
            *lines, rest = (rest + block).split(b"\n")
            if len(rest) > LINE_MOST or any(len(line) > LINE_MOST for line in lines):
                raise ClickHouseError(f"{self.url.shown}: answers a row of more than {LINE_MOST:,} bytes")
            # An error after the first rows stands where the next one would be.
            for number, line in enumerate(lines):
                if not line.startswith(b"["):
                    if number:
                        yield lines[:number]
                    tail = b"\n".join([*lines[number:], rest])[:_ERROR_MOST]
                    self._refuse(tail + self._more(response, len(tail)), "answers what is no row")
            if lines:
                yield lines
        if response.length:  # read1() does not tell that this many bytes are missing
            raise http.client.IncompleteRead(rest, response.length)
        if rest.strip():
            is_row = rest.startswith(b"[")
            self._refuse(rest[:_ERROR_MOST], "answers a row that is cut off" if is_row else "answers what is no row")

    def _more(self, response, size):
        try:
            return response.read(max(0, _ERROR_MOST - size))
        except (OSError, http.client.HTTPException):  # the server breaks the connection off after an error
            return b""


_HINTS = {
    "516": "user or password are wrong (CLICKHOUSE_USER, CLICKHOUSE_PASSWORD): ",
    "60": "the table is not there (?database=NAME&table=NAME): ",
    "47": "the table is not as clickhouse.sql of this version makes it: ",
    "159": "it took too long (--since, --until and a filter make it less): ",
    "241": "it takes too much memory (--since, --until and a filter make it less): ",
    "497": "this user may not read it (GRANT SELECT): ",
}


def _why(error, url):
    if isinstance(error, TimeoutError):
        return f"no answer for {_SILENCE_S:.0f} s: --since, --until and a filter make it less to search"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message} (SSL_CERT_FILE names further authorities)"
    if isinstance(error, ssl.SSLError):
        return f"no TLS: {error.reason or error}; is this the port of https?"
    if isinstance(error, ConnectionRefusedError):
        return f"connection refused: is ClickHouse's HTTP interface there, on port {url.port}?"
    if isinstance(error, http.client.IncompleteRead | ConnectionError):
        return "the connection broke off before the end of the answer"
    if isinstance(error, http.client.HTTPException):
        return f"answers no HTTP ({type(error).__name__}): is that ClickHouse's HTTP interface?"
    return error.strerror or str(error)


def row(line: bytes) -> list:
    """Return the values of a line of JSONCompactEachRow. ValueError if it is none."""
    try:
        values = json.loads(line.decode("utf-8", "surrogateescape"))
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(values, list):
        raise ValueError("no list")
    return values
