"""`--metrics`: the process that serves metrics, and the thread that tells it."""

import contextlib
import os
import socket
import time
from _thread import allocate_lock, start_new_thread

from nfct_fast.command.standard_error import warn
from nfct_fast.metrics.exposition import Exposition
from nfct_fast.metrics.scrape_channel import answer_requests

_REAP_S = 0.1  # until a process that closed its sockets as it ended can be reaped
_BACKLOG = 64  # connections that wait to be accepted


def _prepare():
    # In the process: what only that needs is imported there, so that the program does not have it.
    from nfct_fast.metrics import scrape_server

    return scrape_server.prepare()


class _NoMetrics:
    """Nobody asked for metrics."""

    def start(self, *sources):
        pass

    def close(self):
        pass


def serve_metrics(where, rights):
    """Return a context manager of a MetricsService, or if `where` is None of something that does nothing."""
    return contextlib.closing(_NoMetrics() if where is None else MetricsService(where, rights))


class MetricsService:
    """Metrics served over HTTP by a process of their own. Make it while there is one thread, before rights are dropped.

    Args:
        where: A ListenAddress.
        rights: The Rights of the program.

    Raises:
        OSError: The address cannot be used.
    """

    def __init__(self, where, rights):
        try:
            listener = where.listen(_BACKLOG)
        except OSError as error:
            raise OSError(error.errno, f"metrics cannot be served at {where}: {os.strerror(error.errno)}") from None
        self._any_port = where.port == 0
        with listener:
            self.where = where._replace(port=listener.getsockname()[1])
            self._pid, fd = rights.spawn_server("nfct-metrics", _prepare, listener.fileno())
        self._program = socket.socket(fileno=fd)
        self._closing = False
        self._ended = None

    def _notices(self):
        if self.where.is_loopback:
            return [f"metrics are served at http://{self.where}/metrics"] if self._any_port else []
        return [f"metrics are served at http://{self.where}/metrics to everybody who can connect, without a password"]

    def start(self, *sources) -> None:
        """Answer from now on, and say what the operator should know.

        sources: objects whose _add_metrics() adds theirs to an Exposition.
        """
        warn(*self._notices())

        def texts(openmetrics):
            exposition = Exposition(openmetrics)
            for source in sources:
                source._add_metrics(exposition)
            return exposition.text()

        self._ended = allocate_lock()
        self._ended.acquire()
        start_new_thread(self._run, (texts,))

    def _run(self, texts):
        try:
            with contextlib.suppress(OSError):
                answer_requests(self._program, texts)
            if not self._closing:
                warn("metrics are not served any more: their process has ended")
                time.sleep(_REAP_S)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(self._pid, os.WNOHANG)  # never to be waited for, as others can stop it
        finally:
            self._ended.release()

    def close(self) -> None:
        """End the thread and the process."""
        self._closing = True
        with contextlib.suppress(OSError):
            self._program.shutdown(socket.SHUT_RDWR)
        if self._ended is not None:
            with self._ended:
                pass
        self._program.close()
