"""The HTTP server that collectors ask for metrics: a process of its own, which has no rights and asks the program.

Whoever can connect may be hostile: send half a request, or none, keep thousands of connections, or never read. So a
few connections are held, each for a few seconds; when one more comes, the oldest without an answer is closed. The
program is asked at most twice a second, whoever asks how often; and a tenth of one processor, at a lower priority, is
all that is spent. The program waits for nothing here.
"""

import collections
import contextlib
import fcntl
import http.server
import io
import os
import selectors
import socket
import time

from nfct_fast.metrics.exposition import OPENMETRICS, TEXT
from nfct_fast.metrics.scrape_channel import FORMATS, LENGTH

MOST = 16  # connections at once
SECONDS = 5  # how long one may take
REQUEST = 8192  # bytes of the longest request
FRESH = 0.5  # seconds for which an answer of the program serves everybody
NICENESS = 10
_IDLE_FOR_WORK = 9  # seconds of sleep for each second of work: a tenth of a processor
_MAXIMUM_REST = 1.0


class Request(http.server.BaseHTTPRequestHandler):
    """One whole request: `format` is the number of the format in FORMATS that is asked for, or None, and then
    `answer` is already what to send."""

    protocol_version = "HTTP/1.1"

    def __init__(self, data):
        # Not the base's, which reads from a socket and dispatches.
        self.rfile, self.wfile = io.BytesIO(data), io.BytesIO()
        self.client_address = ("", 0)
        self.close_connection = True
        self.raw_requestline = self.rfile.readline(REQUEST)
        self.format = None
        if self.parse_request():
            self._choose()

    def _choose(self):
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404, explain="metrics are at /metrics")
        elif self.command not in ("GET", "HEAD"):
            self._allow = True
            self.send_error(405)
        else:
            wanted = [one.partition(";")[0].strip() for one in self.headers.get("Accept", "").split(",")]
            self.format = FORMATS.index(OPENMETRICS if "application/openmetrics-text" in wanted else TEXT)

    _allow = False

    @property
    def answer(self) -> bytes:
        return self.wfile.getvalue()

    def answer_with(self, text) -> bytes:
        """Return the whole answer with this body, or only its head for HEAD."""
        self.send_response(200)
        self.send_header("Content-Type", FORMATS[self.format])
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        return self.answer + (text if self.command == "GET" else b"")

    def end_headers(self):
        if self._allow:
            self.send_header("Allow", "GET, HEAD")
        super().end_headers()

    def version_string(self):
        return "nfct-fast"

    def log_message(self, *arguments):
        pass


def _make_nonblocking(sock):
    # Not setblocking(), which calls ioctl(2).
    fcntl.fcntl(sock, fcntl.F_SETFL, fcntl.fcntl(sock, fcntl.F_GETFL) | os.O_NONBLOCK)


class _Client:
    """One connection: it is read from until `request` is whole, and then written to until `left` is empty."""

    def __init__(self, sock):
        self.sock = sock
        self.until = time.monotonic() + SECONDS
        self.data = bytearray()
        self.request = None
        self.left = memoryview(b"")


class ScrapeServer:
    """A server of metrics, which run() serves until the program is gone.

    Args:
        program: A socket at whose other end answer_requests() runs; non-blocking.
        listener: The listening socket; non-blocking.
    """

    def __init__(self, program, listener):
        self._program, self._listener = program, listener
        self._selector = selectors.DefaultSelector()
        self._selector.register(program, selectors.EVENT_READ, self._hear)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._clients = collections.OrderedDict()  # by socket, the oldest first
        self._asked = None  # the format that the program was asked for and has not answered yet
        self._heard = bytearray()
        self._fresh = {}  # format -> when it was heard, and the text
        self.gone = False

    def run(self) -> None:
        while not self.gone:
            now = time.monotonic()
            until = min((client.until for client in self._clients.values()), default=None)
            ready = self._selector.select(None if until is None else max(0, until - now))
            began = time.thread_time()
            for key, _ in ready:
                if key.fileobj.fileno() >= 0:  # not closed meanwhile
                    key.data(*([] if key.fileobj in (self._program, self._listener) else [key.fileobj]))
            now = time.monotonic()
            for client in [client for client in self._clients.values() if client.until <= now]:
                self._close(client)
            time.sleep(min(_MAXIMUM_REST, (time.thread_time() - began) * _IDLE_FOR_WORK))

    def _accept(self):
        for _ in range(MOST):
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            _make_nonblocking(sock)
            if len(self._clients) >= MOST:
                unanswered = [client for client in self._clients.values() if client.request is None]
                self._close((unanswered or list(self._clients.values()))[0])
            self._clients[sock] = _Client(sock)
            self._selector.register(sock, selectors.EVENT_READ, self._read)
            self._read(sock)  # who means it has sent the request by now

    def _close(self, client):
        self._selector.unregister(client.sock)
        del self._clients[client.sock]
        client.sock.close()

    def _read(self, sock):
        client = self._clients[sock]
        try:
            data = sock.recv(REQUEST + 1)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or client.request is not None:  # gone, or it says more than one request
            self._close(client)
            return
        client.data += data
        if b"\r\n\r\n" not in client.data and b"\n\n" not in client.data and len(client.data) <= REQUEST:
            return
        client.request = Request(bytes(client.data))
        client.data.clear()
        if client.request.format is None:
            self._answer(client, client.request.answer)
        else:
            self._serve()

    def _serve(self):
        """Answer whoever waits for what is fresh, and have the program asked for what is not."""
        for client in list(self._clients.values()):
            if client.request is None or client.left or client.request.format is None:
                continue
            when, text = self._fresh.get(client.request.format, (0, b""))
            if text and time.monotonic() - when < FRESH:
                self._answer(client, client.request.answer_with(text))
            elif self._asked is None:
                self._asked = client.request.format
                try:
                    self._program.send(bytes([self._asked]))
                except OSError:
                    self.gone = True

    def _hear(self):
        try:
            data = self._program.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.gone = True
            return
        self._heard += data
        if len(self._heard) < LENGTH.size:
            return
        end = LENGTH.size + LENGTH.unpack_from(self._heard)[0]
        if self._asked is not None and len(self._heard) >= end:
            self._fresh[self._asked] = time.monotonic(), bytes(self._heard[LENGTH.size : end])
            self._asked = None
            self._heard.clear()
            self._serve()

    def _answer(self, client, data):
        client.left = memoryview(data)
        self._selector.modify(client.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, self._write)
        self._write(client.sock)

    def _write(self, sock):
        client = self._clients[sock]
        try:
            client.left = client.left[sock.send(client.left) :]
        except BlockingIOError:
            return
        except OSError:
            client.left = memoryview(b"")
        if not client.left:
            self._close(client)


def prepare():
    """Return the work of the process, which is called with the descriptors of both sockets."""
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    # What Python loads when it is first used is loaded now, as no file can be read later.
    Request(b"GET /metrics HTTP/1.1\r\nAccept: text/plain\r\n\r\n").answer_with(b"")
    Request(b"POST /metrics HTTP/1.1\r\n\r\n")

    def work(program, listener):
        with socket.socket(fileno=program) as program, socket.socket(fileno=listener) as listener:
            _make_nonblocking(program)
            _make_nonblocking(listener)
            ScrapeServer(program, listener).run()

    return work
