"""Where the logger writes: to standard output alone, or to several outputs, none of which delays the others."""

import errno
import select
import signal
import socket
import time

from nfct_fast.command.formats import PLAIN, terminal_of
from nfct_fast.command.output_options import (
    STANDARD_OUTPUT,
    is_standard_output_alone,
    journal_socket,
    syslog_server,
)
from nfct_fast.command.standard_error import warn
from nfct_fast.command.stop import is_reader_gone
from nfct_fast.metrics.exposition import label_text
from nfct_fast.monitoring.notices import Notices
from nfct_fast.output.buffered_output import BufferedOutput
from nfct_fast.output.connection import connector, resolve
from nfct_fast.output.datagram_target import DatagramTarget
from nfct_fast.output.distributor import Distributor
from nfct_fast.output.journal_entry import JournalEntry
from nfct_fast.output.log_file import log_opener
from nfct_fast.output.remote_opener import RemoteOpener
from nfct_fast.output.sink import Sink
from nfct_fast.output.stream_target import StreamTarget
from nfct_fast.output.syslog_message import SyslogMessage
from nfct_fast.output.writer import Writer

_STDOUT = 1
_IDLE_S = 0.005
_REPORT_S = 60.0  # how often it is said again that an output takes less than comes


class StandardOutput:
    """Standard output alone: a slow reader slows the logger, so that nothing is left out."""

    reopens = False

    def __init__(self, formats, arguments):
        terminal = terminal_of(_STDOUT, arguments.color)
        self._formatter, self._header = formats.formatter(terminal), formats.header(terminal)

    def begin(self, conntrack, stop):
        """Return the RecordWriter, and have `conntrack` wake up when there is something to do."""
        conntrack._watch(stop.fd, select.EPOLLIN | select.EPOLLONESHOT)
        try:
            conntrack._watch(_STDOUT, select.EPOLLERR)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EEXIST):  # a regular file cannot be waited for
                raise
        sink = Sink(_STDOUT, stop.fd)
        sink.write(self._header)
        return Writer(self._formatter, sink)

    def start(self) -> None:
        """Call once rights are given up."""

    def _add_metrics(self, exposition):
        """Nothing is left out, so there is nothing to count."""

    def check(self, stop) -> tuple[str, ...]:
        """Do what signals ask for, and return sentences for the operator. Call between two writes."""
        return ()

    def is_over(self) -> bool:
        """Return whether nothing can be written any more."""
        return is_reader_gone(_STDOUT)

    def finish(self, stop) -> tuple[str, ...]:
        """Write what is left, and return how much was not written."""
        return ()


class SeveralOutputs:
    """Files, the journal, syslog and standard output side by side, each with a buffer and a thread.

    Everything is opened here, before rights are given up and while there is one thread. OSError, ValueError.
    """

    def __init__(self, formats, arguments, presentation, rights):
        self._formats, self._rights = formats, rights
        self._notices, self._openers = Notices(), []
        # A recording and a table can wait, which events cannot.
        self._patient = arguments.replay is not None or arguments.list
        self.reopens = any(path != STANDARD_OUTPUT for path in arguments.output)
        if self.reopens:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it can be done
        if len(set(arguments.output)) < len(arguments.output):
            raise ValueError("-o names the same file twice")
        self._outputs = [
            self._standard_output(arguments) if path == STANDARD_OUTPUT else self._file(path)
            for path in arguments.output
        ]
        if arguments.journal is not None:
            self._outputs.append(self._journal(arguments.journal, presentation))
        if arguments.syslog is not None:
            self._outputs.append(self._syslog(syslog_server(arguments.syslog), presentation))
        self._distributor = None
        self._reported, self._report_at = {}, 0.0

    def _standard_output(self, arguments):
        terminal = terminal_of(_STDOUT, arguments.color)
        output = BufferedOutput(
            self._formats.formatter(terminal),
            lambda stop: StreamTarget("standard output", stop, fd=_STDOUT),
            self._notices,
        )
        output.put(self._formats.header(terminal))
        return output

    def _opener(self, prepare):
        """Return the function that prepare() returns, or one that a helper process has by the same way."""
        if not self._rights.confine_files:
            return prepare()
        self._openers.append(RemoteOpener(self._rights.spawn_opener, prepare))
        return self._openers[-1]

    def _file(self, path):
        trusted = self._rights.trusted_users
        # The first time by this process, which can say best what is wrong.
        first, later = log_opener(path, trusted), self._opener(lambda: log_opener(path, trusted))
        openers = iter((first,))
        return BufferedOutput(
            self._formats.formatter(),
            lambda stop: StreamTarget(path, stop, opener=lambda: next(openers, later)()),
            self._notices,
        )

    def _journal(self, namespace, presentation):
        name = f"the journal namespace {namespace}" if namespace else "the journal"
        entry = JournalEntry(self._formats.formatter(PLAIN), presentation)
        return self._datagrams(entry, name, socket.AF_UNIX, journal_socket(namespace))

    def _syslog(self, server, presentation):
        line = self._formats.formatter(PLAIN)
        if server.transport == "unix":
            message = SyslogMessage(line, presentation, local=True)
            return self._datagrams(message, server.name, socket.AF_UNIX, server.host)
        message = SyslogMessage(line, presentation, counted=server.transport == "tcp")
        if server.transport == "udp":
            [(family, address), *_] = resolve(server.host, server.port, socket.SOCK_DGRAM)
            return self._datagrams(message, server.name, family, address)
        addresses = resolve(server.host, server.port, socket.SOCK_STREAM)
        opener = self._opener(lambda: connector(addresses))
        return BufferedOutput(
            message, lambda stop: StreamTarget(server.name, stop, opener=opener, connection=True), self._notices
        )

    def _datagrams(self, formatter, name, family, address):
        def target(stop):
            try:
                return DatagramTarget(name, stop, family=family, address=address)
            except OSError as error:
                raise OSError(error.errno, f"{name}: {error.strerror} ({address})") from None

        return BufferedOutput(formatter, target, self._notices)

    def begin(self, conntrack, stop):
        """As StandardOutput.begin()."""
        conntrack._watch(stop.fd)
        conntrack._watch(self._notices.fileno())
        self._distributor = Distributor(self._outputs, stop.fd, self._patient)
        return self._distributor

    def start(self) -> None:
        """Start the threads, which have the rights of the calling one. Call once these are given up."""
        for output in self._outputs:
            output.start()

    def _add_metrics(self, exposition):
        exposition.counter(
            "nfct_output_flows_dropped",
            "Flows that an output has not taken, as it was too slow, full or gone.",
            [
                ({"output": label_text(output.name.encode(errors="surrogateescape"))}, output.lost)
                for output in self._outputs
            ],
        )

    def check(self, stop) -> tuple[str, ...]:
        """As StandardOutput.check()."""
        stop.drain()
        if stop.reopen_asked():
            for output in self._outputs:
                output.reopen()
        if stop.asked:
            self._distributor.hurry()
        return (*self._notices.take(), *self._losses())

    def _losses(self):
        now = time.monotonic()
        if now < self._report_at:
            return ()
        losses = [output.report() for output in self._outputs if output.lost > self._reported.get(output.name, 0)]
        if losses:
            self._reported = {output.name: output.lost for output in self._outputs}
            self._report_at = now + _REPORT_S
        return [f"{loss}, so far" for loss in losses]

    def is_over(self) -> bool:
        """Return whether no output takes anything any more."""
        return all(output.is_dead for output in self._outputs)

    def finish(self, stop) -> tuple[str, ...]:
        """Give all outputs half a second to take what is left, and return how much they have not taken in all.

        They have as long as they need at the end of a recording, unless the program is asked to end meanwhile.
        """
        while self._patient and not stop.asked and not all(output.is_idle for output in self._outputs):
            warn(*self.check(stop))
            time.sleep(_IDLE_S)
        for output in self._outputs:
            output.end()
        for output in self._outputs:
            output.finish()
        for opener in self._openers:
            opener.close()
        return (*self._notices.take(), *[loss for output in self._outputs if (loss := output.report()) is not None])


def open_outputs(formats, arguments, presentation, rights):
    """Return the outputs that the arguments ask for. OSError, ValueError."""
    if is_standard_output_alone(arguments):
        return StandardOutput(formats, arguments)
    return SeveralOutputs(formats, arguments, presentation, rights)
