"""The command line: parse arguments, write the flows of a Conntrack to standard output, return an exit status.

This file has more than 400 lines: half of them are the options and their help.
"""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    del sys.path[0]  # `python -m` puts the current directory there: a file named like a standard module would run

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback for a ^C during the imports

import argparse
import errno
import os
import resource
import select
import time
import warnings

from nfct_fast.attribution.resolver import ATTRIBUTIONS, NOTED_FLOWS
from nfct_fast.build_info import LIBRARIES
from nfct_fast.conntrack import DEFAULT_RCVBUF, DEFAULT_RCVBUF_LIMIT, Conntrack, list_flows
from nfct_fast.monitoring.warned import ConntrackWarning
from nfct_fast.output.json_lines import JsonLines
from nfct_fast.output.sink import Sink
from nfct_fast.output.template import DEFAULT, Template
from nfct_fast.output.writer import Writer
from nfct_fast.processes.redactor import DEFAULT_REDACTIONS
from nfct_fast.records.presentation import Presentation
from nfct_fast.replay.recording_error import RecordingError
from nfct_fast.replay.recording_host import read_identity
from nfct_fast.rights import Rights, find_user

from ._version import __version__

_PROGRAM = "nfct-fast"
_EPILOG = """\
examples:
  nfct-fast -p udp                       new UDP flows, IPv4 and IPv6
  nfct-fast -p '^ipv4/(tcp|udp)$'        only these two
  nfct-fast dport 22,443 and not user root
  nfct-fast -e new,destroy               also when a flow ends
  nfct-fast -L -p tcp                    the TCP flows in the conntrack table now
  nfct-fast --flows --json               each flow at its end, with bytes and outcome
  nfct-fast --track                      also on hosts where no firewall rule uses connection tracking
  nfct-fast -t '%F %T.%f' -f '{ts} {ev.dst}:{ev.dport} {info.pid} {info.unit} {info.cmdline}'

An unknown pid is printed as "?", any other unknown field as "-". Control characters and bytes that are not
UTF-8 are printed as \\n, \\x1b, \\xff, a backslash as \\\\; a command line longer than 4096 bytes is cut and
ends in "...". The exit status is 1 on a failure and 2 for invalid arguments.
"""
_STDOUT = 1
_STDERR = 2
_STDERR_WAIT_MS = 100  # the longest wait for a standard error that nobody reads


def _warn(*messages):
    """Print each message as a line on standard error. Give up if that is closed, full or blocked."""
    poll = select.poll()
    poll.register(_STDERR, select.POLLOUT)
    if messages and poll.poll(_STDERR_WAIT_MS):
        try:
            text = "".join([f"{_PROGRAM}: {message}\n" for message in messages])
            os.write(_STDERR, text.encode(errors="backslashreplace"))
        except OSError:
            pass


class _Parser(argparse.ArgumentParser):
    """An argument parser that reports invalid arguments in one line."""

    def error(self, message):
        _warn(f"{message} (try -h)")
        sys.exit(2)


def _size(text):
    units = {"k": 10, "m": 20, "g": 30}
    number, shift = (text[:-1], units[text[-1].lower()]) if text[-1:].lower() in units else (text, 0)
    if not number.isascii() or not number.isdecimal() or not 4096 <= int(number) << shift < 1 << 30:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size from 4K to below 1G, such as 64M")
    return int(number) << shift


def _number(least, most, what="number"):
    """Return a reader of whole numbers from `least` to `most`."""

    def read(text):
        if not text.isascii() or not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a {what} from {least} to {most}")
        return int(text)

    return read


def _speed(text):
    try:
        speed = float(text)
    except ValueError:
        speed = 0
    if not 0 < speed < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return speed


def _events(text):
    names = {"new": "NEW", "update": "UPDATE", "updates": "UPDATE", "destroy": "DESTROY"}  # conntrack(8) says updates
    words = [word.strip().lower() for word in text.split(",")]
    if words == ["all"]:
        return ("NEW", "UPDATE", "DESTROY")
    if not all(word in names for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of new, update and destroy, such as new,destroy")
    return tuple(dict.fromkeys(names[word] for word in words))


def _version():
    return (
        f"{_PROGRAM} {__version__}\nbuilt with {LIBRARIES}\n"
        "Licence GPL-2.0-or-later: free software, without any warranty."
    )


def _parser():
    parser = _Parser(
        prog=_PROGRAM,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        description="Log every new network connection of this host with the process behind it.",
    )
    parser.add_argument(
        "filter",
        metavar="FILTER",
        nargs="*",
        help='log only such flows, as in "dst 192.0.2.0/24 and dport 443 and not user alice"; README.md has all words',
    )
    parser.add_argument(
        "-p",
        "--protocol",
        metavar="REGEX",
        help='log only protocols that match this regular expression, such as "ipv4/tcp" or "ipv6/udp"',
    )
    parser.add_argument(
        "-e",
        "--events",
        metavar="EVENTS",
        type=_events,
        help="what to log of a flow: new, update and destroy, separated by commas, or all (default: new; with "
        "--replay, all that was recorded)",
    )
    parser.add_argument(
        "--flows",
        action="store_true",
        help="log each flow once, when it has ended: with bytes and packets of both directions "
        "(net.netfilter.nf_conntrack_acct=1), its duration and outcome, and the process that began it",
    )
    parser.add_argument(
        "-t",
        "--format-ts",
        metavar="FMT",
        default="%s",
        help="strftime(3) format of {ts}, with %%f for microseconds (default: %%s)",
    )
    parser.add_argument(
        "-f",
        "--format",
        metavar="FMT",
        default=DEFAULT,
        help="str.format() template of a line, with fields of ts, ev, info and peer (default: %(default)s)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object per line instead; README.md describes its keys"
    )
    parser.add_argument(
        "--community-id",
        metavar="SEED",
        nargs="?",
        type=_number(0, 65535, "seed"),
        const=0,
        help="add the Community ID of each flow to JSON, and set the seed of {ev.community_id} (default: 0)",
    )
    parser.add_argument("--no-cmdline", action="store_true", help="show no command lines")
    parser.add_argument(
        "--redact",
        metavar="REGEX",
        action="append",
        default=[],
        help="show [redacted] for what matches in a command line, or for its group (?P<secret>...); may be repeated",
    )
    parser.add_argument(
        "--redact-defaults",
        action="store_true",
        help="do so with the usual arguments for passwords, tokens and keys",
    )
    parser.add_argument(
        "--attribution",
        choices=ATTRIBUTIONS,
        default="auto",
        help="how to look for the process (default: auto, the best way this kernel supports)",
    )
    parser.add_argument(
        "--notes",
        metavar="N",
        type=_number(1, 1 << 24),
        default=NOTED_FLOWS,
        help="how many flows the BPF programs remember, with the memory for that from the start "
        "(default: 65536, and %(default)s once there are thousands per second)",
    )
    parser.add_argument(
        "-L",
        "--list",
        action="store_true",
        help="print the entries of the conntrack table as it is now, and end",
    )
    parser.add_argument(
        "--track",
        action="store_true",
        help="turn connection tracking on while the program runs, by an nftables table of its own. "
        "When the conntrack table is full, the kernel drops new connections",
    )
    parser.add_argument(
        "--netns",
        metavar="NAME|PID|all",
        help="monitor this network namespace instead of the program's own; with all, every one on this "
        "host, as they come and go",
    )
    parser.add_argument(
        "--rcvbuf",
        metavar="SIZE",
        type=_size,
        default=DEFAULT_RCVBUF,
        help="receive buffer to ask the kernel for (default: 64M); 1M holds about 1,600 flows",
    )
    parser.add_argument(
        "--rcvbuf-max",
        metavar="SIZE",
        type=_size,
        default=DEFAULT_RCVBUF_LIMIT,
        help="size the receive buffer may grow to as it fills, and with --netns all the sum of all "
        "buffers (default: 256M); the kernel may take twice as much memory",
    )
    parser.add_argument(
        "--record",
        metavar="FILE",
        help="make this file, and record all that is written and what it was made from, for --replay",
    )
    parser.add_argument(
        "--replay",
        metavar="FILE",
        help="write the flows of a recording again instead of new ones; needs no privileges",
    )
    parser.add_argument(
        "--speed",
        metavar="N",
        type=_speed,
        help="with --replay, write the flows as they came (1), or N times as fast (default: without waiting)",
    )
    parser.add_argument(
        "--user",
        metavar="NAME",
        help="user to switch to once everything is open, if started as root (default: nfct-fast if "
        "that user exists, else nobody)",
    )
    parser.add_argument(
        "--no-sandbox",
        action="store_true",
        help="stay root, in a single process with all system calls allowed; give up only capabilities "
        "that are not needed",
    )
    parser.add_argument(
        "--debug", action="store_true", help="print statistics at the end, and a traceback on a failure"
    )
    parser.add_argument("--version", action="version", version=_version())
    return parser


class _Stop:
    """A descriptor that SIGINT, SIGTERM and SIGHUP make readable, so that no wait can miss them."""

    def __init__(self):
        self.asked = False
        self.fd, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup(1)
                signal.signal(number, self._handle)

    def _handle(self, number, frame):
        self.asked = True


def _is_reader_gone(fd):
    poll = select.poll()
    poll.register(fd, 0)
    return any(events & (select.POLLERR | select.POLLHUP | select.POLLNVAL) for _, events in poll.poll(0))


def _fill_standard_descriptors():
    """Open /dev/null for each of the descriptors 0, 1 and 2 that is closed, lest a socket gets its number."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _watch(conntrack, stop, output):
    conntrack._watch(stop.fd, select.EPOLLIN | select.EPOLLONESHOT)
    conntrack._watch(conntrack.notices_fileno())
    try:
        conntrack._watch(output, select.EPOLLERR)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EEXIST):  # a regular file cannot be waited for
            raise


class _LossReport:
    """The report of lost and recovered events on standard error: at once, and then at most once a second."""

    def __init__(self, conntrack, replayed):
        self._conntrack, self._replayed = conntrack, replayed
        self._reported = (0, 0, 0, 0, 0)
        self._next = 0.0

    def report(self, now):
        if now >= self._next and (messages := self._messages()):
            _warn(*messages)
            self._next = now + 1

    def _messages(self):
        conntrack = self._conntrack
        counts = (
            conntrack.lost,
            conntrack.recovered,
            conntrack.unallocated,
            conntrack.process_events_lost,
            conntrack.forgotten,
        )
        lost, recovered, unallocated, programs, forgotten = (
            count - reported for count, reported in zip(counts, self._reported)
        )
        self._reported = counts
        messages = []
        if self._replayed:
            return [f"{lost} events were lost when this was recorded"] if lost > 0 else []
        if recovered > 0:
            messages.append(f"{recovered} flows recovered from the conntrack table, because their events were lost")
        if unallocated > 0:
            messages.append(
                f"{lost} events lost or more: the kernel was out of memory for {unallocated} events at "
                "least, and keeps no exact count of them"
            )
        elif lost > 0:
            messages.append(
                f"{lost} events lost: they came faster than they could be processed (a larger --rcvbuf-max holds more)"
            )
        if forgotten > 0:
            messages.append(
                f"{forgotten} live flows forgotten: there were more than can be remembered; their records will say so"
            )
        if programs > 0:
            messages.append(
                f"{programs} process starts and exits lost: some short-lived processes will have no command line"
            )
        return messages

    def report_end(self):
        """Report what is left, after the Conntrack is closed."""
        messages = self._messages()
        stats = self._conntrack.stats()
        if stats.unrecorded:
            messages.append(f"{stats.unrecorded} flows written and not recorded")
        if stats.undelivered:
            more = " or more" if self._conntrack.unreported[1] else ""
            messages.append(f"{stats.undelivered}{more} flows received and not written")
        if stats.live_flows or stats.unended:
            messages.append(f"{stats.live_flows + stats.unended} flows had not ended and have no record")
        if stats.undecoded:
            messages.append(f"{stats.undecoded} events could not be decoded and were not written")
        _warn(*messages)


def _log(conntrack, writer, stop, output, replayed):
    report = _LossReport(conntrack, replayed)
    try:
        while (written := conntrack._write_to(writer)) is not None:
            report.report(time.monotonic())
            _warn(*conntrack.notices())
            if stop.asked:
                conntrack.stop()  # events received until now are still written
            elif not written and _is_reader_gone(output):
                return
    finally:
        # In any case: count the flows that were received and not written.
        conntrack.close()
        writer.write_loss(*conntrack.unreported)
        report.report_end()


def _allow_descriptors():
    """Raise the limit of descriptors to the maximum: hundreds of namespaces take thousands, 1024 is usual."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _rights(arguments):
    find_owners = (arguments.attribution != "off" or arguments.netns == "all") and arguments.replay is None
    if arguments.no_sandbox:
        if arguments.user is not None:
            raise ValueError("--user and --no-sandbox exclude each other")
        return Rights(find_owners=find_owners)
    wanted = arguments.user is not None or os.geteuid() == 0
    try:
        return Rights(
            user=find_user(arguments.user) if wanted else None,
            filter_calls=True,
            find_owners=find_owners,
            use_helpers=find_owners,
        )
    except LookupError as error:
        raise ValueError(str(error)) from None


def _open(arguments, rights):
    common = dict(
        protocol=arguments.protocol,
        filter=" ".join(arguments.filter),
        attribution=arguments.attribution,
        netns=arguments.netns,
        cmdline=not arguments.no_cmdline,
        redact=(*arguments.redact, *(DEFAULT_REDACTIONS if arguments.redact_defaults else ())),
        drop_privileges=rights,
    )
    if arguments.list:
        if arguments.events or arguments.flows or arguments.track or arguments.record or arguments.replay:
            raise ValueError("--list shows what is there now: it excludes -e, --flows, --track, --record and --replay")
        return list_flows(**common)
    return Conntrack(
        events=arguments.events,
        flows=arguments.flows,
        rcvbuf=arguments.rcvbuf,
        rcvbuf_limit=max(arguments.rcvbuf, arguments.rcvbuf_max),
        track=arguments.track,
        notes=arguments.notes,
        record=arguments.record,
        replay=arguments.replay,
        speed=arguments.speed,
        **common,
    )


def _run(arguments, formatter):
    output = _STDOUT
    rights = _rights(arguments)
    warnings.simplefilter("ignore", ConntrackWarning)  # they are printed as lines of this program's own, below
    if arguments.netns == "all":
        _allow_descriptors()
    with _open(arguments, rights) as conntrack:
        stop = _Stop()
        writer = Writer(formatter, Sink(output, stop.fd))
        _watch(conntrack, stop, output)
        rights.drop()
        for reason in (*rights.reasons, *conntrack.no_event_reasons, *conntrack.degraded, *conntrack.notices()):
            _warn(reason)
        try:
            _log(conntrack, writer, stop, output, arguments.replay is not None)
        finally:
            if arguments.debug:
                _warn(conntrack.stats())


def _formatter(arguments):
    identity = () if arguments.replay is None else read_identity(arguments.replay)
    presentation = Presentation(arguments.community_id, identity)
    # An invalid template is an error even with --json.
    template = Template(arguments.format, arguments.format_ts, presentation)
    return JsonLines(presentation) if arguments.json else template


def main(argv=None) -> int:
    """Run the program with these arguments, sys.argv's by default, and return its exit status."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until there is output that must not be cut off
    parser = _parser()
    arguments = parser.parse_intermixed_args(argv)
    if sys.stdout is None:
        _warn("standard output is closed")
        return 1
    _fill_standard_descriptors()
    try:
        _run(arguments, _formatter(arguments))
    except BrokenPipeError:
        return 0  # the reader of the output has closed it
    except ValueError as error:
        if arguments.debug:
            raise
        parser.error(str(error))
    except RecordingError as error:
        if arguments.debug:
            raise
        _warn(error)
        return 1
    except OSError as error:
        if arguments.debug:
            raise
        _warn(error.strerror if error.strerror and error.filename is None else error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
