"""The command line: arguments in, Conntrack to standard output, an exit status out."""
import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    del sys.path[0]     # the current directory, by python -m: a file there with the name of a module of Python's would run

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)    # no traceback for a ^C during the imports

import argparse
import errno
import os
import resource
import select
import time

from ._version import __version__
from nfct_fast.attribution.resolver import ATTRIBUTIONS, NOTED_FLOWS
from nfct_fast.conntrack import DEFAULT_RCVBUF, DEFAULT_RCVBUF_LIMIT, Conntrack
from nfct_fast.output.json_lines import JsonLines
from nfct_fast.build_info import LIBRARIES
from nfct_fast.rights import Rights, find_user
from nfct_fast.output.sink import Sink
from nfct_fast.output.template import DEFAULT, Template
from nfct_fast.output.writer import Writer

_PROGRAM = "nfct-fast"
_EPILOG = """\
examples:
  nfct-fast -p udp                       new UDP flows, IPv4 and IPv6
  nfct-fast -p '^ipv4/(tcp|udp)$'        only these two
  nfct-fast --track                      also where no firewall rule uses connection tracking
  nfct-fast -t '%F %T.%f' -f '{ts} {ev.dst}:{ev.dport} {info.pid} {info.unit} {info.cmdline}'

A process nobody knows is printed as "?", any other unknown field as "-". Control characters and bytes that are not
UTF-8 are printed as \\n, \\x1b, \\xff, a backslash as \\\\; a command line is cut after 4096 bytes, and then ends
in "...". The status is 1 on a failure and 2 for arguments that cannot be used.
"""
_STDOUT = 1
_STDERR = 2
_STDERR_WAIT_MS = 100     # what a standard error that nobody reads may hold us up


def _warn(*messages):
    """One line each on standard error. That it is closed, full or stuck is no reason to stop."""
    poll = select.poll()
    poll.register(_STDERR, select.POLLOUT)
    if messages and poll.poll(_STDERR_WAIT_MS):
        try:
            os.write(_STDERR, "".join([f"{_PROGRAM}: {message}\n" for message in messages]).encode(errors="backslashreplace"))
        except OSError:
            pass


class _Parser(argparse.ArgumentParser):
    """Refuses arguments in one line."""

    def error(self, message):
        _warn(f"{message} (-h helps)")
        sys.exit(2)


def _size(text):
    units = {"k": 10, "m": 20, "g": 30}
    number, shift = (text[:-1], units[text[-1].lower()]) if text[-1:].lower() in units else (text, 0)
    if not number.isascii() or not number.isdecimal() or not 4096 <= int(number) << shift < 1 << 30:
        raise argparse.ArgumentTypeError(f"{text!r} is no size from 4K to below 1G, such as 64M")
    return int(number) << shift


def _flows(text):
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= 1 << 24:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {1 << 24}")
    return int(text)


def _version():
    return (f"{_PROGRAM} {__version__}\nbuilt with {LIBRARIES}\n"
            "Licence GPL-2.0-or-later: free software, without any warranty.")


def _parser():
    parser = _Parser(
        prog=_PROGRAM, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
        description="Logs every new network flow of this host, with the process behind it.")
    parser.add_argument("-p", "--protocol", metavar="REGEX",
                        help='only flows whose protocol it is found in: names are like "ipv4/tcp", "ipv6/udp"')
    parser.add_argument("-t", "--format-ts", metavar="FMT", default="%s",
                        help="strftime(3) format of the time, with %%f for microseconds (default: %%s)")
    parser.add_argument("-f", "--format", metavar="FMT", default=DEFAULT,
                        help="str.format() template of a line, over ts, ev, info and peer (default: %(default)s)")
    parser.add_argument("--json", action="store_true",
                        help="one JSON object a line instead of the template; the README has its names")
    parser.add_argument("--attribution", choices=ATTRIBUTIONS, default="auto",
                        help="how owners are looked for (default: auto, the best this kernel has)")
    parser.add_argument("--flows", metavar="N", type=_flows, default=NOTED_FLOWS,
                        help="how many flows the kernel's notes of owners reach back when there are thousands a second "
                             "(default: %(default)s)")
    parser.add_argument("--track", action="store_true",
                        help="turn connection tracking on while the program runs, by an nftables table of its own; when the "
                             "conntrack table is full, new connections are dropped")
    parser.add_argument("--netns", metavar="NAME|PID|all",
                        help="hear this network namespace, or all there are, as they come and go, instead of the program's own")
    parser.add_argument("--rcvbuf", metavar="SIZE", type=_size, default=DEFAULT_RCVBUF,
                        help="receive buffer to ask of the kernel, such as 64M, the default; 1M holds about 1,600 flows")
    parser.add_argument("--rcvbuf-max", metavar="SIZE", type=_size, default=DEFAULT_RCVBUF_LIMIT,
                        help="what it may grow to as it fills, and with --netns all what all may together (default: 256M); the "
                             "kernel may take twice as much memory")
    parser.add_argument("--user", metavar="NAME",
                        help="who it goes on as once all is open, if started as root (default: nfct-fast if there is such a "
                             "user, else nobody)")
    parser.add_argument("--no-sandbox", action="store_true",
                        help="go on as root, in one process and with all system calls: only capabilities that are not needed "
                             "are given up")
    parser.add_argument("--debug", action="store_true", help="print counts at the end, and a traceback on a failure")
    parser.add_argument("--version", action="version", version=_version())
    return parser


class _Stop:
    """SIGINT, SIGTERM and SIGHUP as a descriptor that becomes readable, so that no wait can miss them."""

    def __init__(self):
        self.asked = False
        self.fd, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:      # nohup(1)
                signal.signal(number, self._handle)

    def _handle(self, number, frame):
        self.asked = True


def _is_reader_gone(fd):
    poll = select.poll()
    poll.register(fd, 0)
    return any(events & (select.POLLERR | select.POLLHUP | select.POLLNVAL) for _, events in poll.poll(0))


def _fill_standard_descriptors():
    """Keep a socket of ours from becoming number 0, 1 or 2 where one of these was closed: it would be written to."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _watch(conntrack, stop, output):
    conntrack.watch(stop.fd, select.EPOLLIN | select.EPOLLONESHOT)
    conntrack.watch(conntrack.notices_fileno())
    try:
        conntrack.watch(output, select.EPOLLERR)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EEXIST):      # a plain file cannot be waited for, nor need be
            raise


class _LossReport:
    """Says on stderr how many events were lost or made up for, at once and then at most once a second."""

    def __init__(self, conntrack):
        self._conntrack = conntrack
        self._reported = (0, 0, 0, 0)
        self._next = 0.0

    def report(self, now):
        if now >= self._next and (messages := self._messages()):
            _warn(*messages)
            self._next = now + 1

    def _messages(self):
        counts = (self._conntrack.lost, self._conntrack.recovered, self._conntrack.unallocated, self._conntrack.process_events_lost)
        lost, recovered, unallocated, programs = (count - reported for count, reported in zip(counts, self._reported))
        self._reported = counts
        messages = []
        if recovered > 0:
            messages.append(f"{recovered} flows recovered from the conntrack table: their events were lost")
        if unallocated > 0:
            messages.append(f"{lost} events lost or more: the kernel had no memory for {unallocated} at least, and does not count them")
        elif lost > 0:
            messages.append(f"{lost} events lost: they came faster than they were read (a larger --rcvbuf-max holds more)")
        if programs > 0:
            messages.append(f"{programs} starts and ends of programs lost: some that have ended will have no command line")
        return messages

    def report_end(self):
        """All that is still to be told, once it is closed."""
        messages = self._messages()
        stats = self._conntrack.stats()
        if stats.undelivered:
            more = " or more" if self._conntrack.unreported[1] else ""
            messages.append(f"{stats.undelivered}{more} flows received and not written")
        if stats.undecoded:
            messages.append(f"{stats.undecoded} events not understood, and not written")
        _warn(*messages)


def _log(conntrack, writer, stop, output):
    report = _LossReport(conntrack)
    try:
        while (written := conntrack.write_to(writer)) is not None:
            report.report(time.monotonic())
            _warn(*conntrack.notices())
            if stop.asked:
                conntrack.stop()        # what was read is still written
            elif not written and _is_reader_gone(output):
                return
    finally:
        # However it ends: what was received and not written is counted.
        conntrack.close()
        writer.write_loss(*conntrack.unreported)
        report.report_end()


def _allow_descriptors():
    """As many as may be had: hundreds of network namespaces take thousands, and 1024 are usual."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _rights(arguments):
    looks = arguments.attribution != "off" or arguments.netns == "all"
    if arguments.no_sandbox:
        if arguments.user is not None:
            raise ValueError("--user and --no-sandbox exclude each other")
        return Rights(looks=looks)
    wanted = arguments.user is not None or os.geteuid() == 0
    try:
        return Rights(user=find_user(arguments.user) if wanted else None, filtered=True, looks=looks, split=looks)
    except LookupError as error:
        raise ValueError(str(error)) from None


def _run(arguments, formatter):
    output = _STDOUT
    rights = _rights(arguments)
    if arguments.netns == "all":
        _allow_descriptors()
    with Conntrack(protocol=arguments.protocol, attribution=arguments.attribution, rcvbuf=arguments.rcvbuf,
                   rcvbuf_limit=max(arguments.rcvbuf, arguments.rcvbuf_max), track=arguments.track,
                   netns=arguments.netns, flows=arguments.flows, drop_privileges=rights) as conntrack:
        stop = _Stop()
        writer = Writer(formatter, Sink(output, stop.fd))
        _watch(conntrack, stop, output)
        rights.settle()
        for reason in (*rights.reasons, *conntrack.no_event_reasons, *conntrack.degraded, *conntrack.notices()):
            _warn(reason)
        try:
            _log(conntrack, writer, stop, output)
        finally:
            if arguments.debug:
                _warn(conntrack.stats())


def _formatter(arguments):
    template = Template(arguments.format, arguments.format_ts)      # a bad one is refused also beside --json
    return JsonLines() if arguments.json else template


def main(argv=None) -> int:
    """Run the program with these arguments (sys.argv's by default) and return its exit status."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)    # until there is output that must not be cut
    parser = _parser()
    arguments = parser.parse_args(argv)
    if sys.stdout is None:
        _warn("standard output is closed")
        return 1
    _fill_standard_descriptors()
    try:
        _run(arguments, _formatter(arguments))
    except BrokenPipeError:
        return 0        # whoever read the output has had enough
    except ValueError as error:
        if arguments.debug:
            raise
        parser.error(str(error))
    except OSError as error:
        if arguments.debug:
            raise
        _warn(error.strerror if error.strerror and error.filename is None else error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
