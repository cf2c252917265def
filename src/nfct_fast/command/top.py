"""The live table: `nfct-fast top`. Open a Conntrack, give up privileges, and show its flows until asked to quit."""

import argparse
import locale
import os
import select
import warnings
from contextlib import closing

from nfct_fast.attribution.resolver import ATTRIBUTIONS
from nfct_fast.command.opening import allow_descriptors, common_options, rights_of
from nfct_fast.command.standard_error import PROGRAM, Parser, warn
from nfct_fast.command.stop import Stop, is_reader_gone
from nfct_fast.command.whole_number import whole_number
from nfct_fast.conntrack import Conntrack
from nfct_fast.events.preflight import ACCOUNTS
from nfct_fast.events.table_fill import TableFill
from nfct_fast.live_table.collector import Collector
from nfct_fast.live_table.display_text import plain
from nfct_fast.live_table.page import NO_BYTES, printed, screen
from nfct_fast.live_table.parties import GROUPINGS
from nfct_fast.live_table.screen import Screen, find_curses
from nfct_fast.live_table.view import SORTS, View
from nfct_fast.monitoring.warned import ConntrackWarning
from nfct_fast.output.sink import Sink

_STDIN, _STDOUT = 0, 1
_FIRST_S = 0.5  # until the first screen
_PRINTED_COLUMNS = 160
_BLOCKED_MS = 200  # between two attempts to draw on a terminal that takes no output
_NOTICES = 3  # shown at most; the others are of less use to whoever looks at a table

_EPILOG = """\
examples:
  nfct-fast top                          processes by bytes a second; h explains keys and columns
  nfct-fast top dport 443 and not user root
  nfct-fast top --by unit --sort flows
  nfct-fast top -b -n 3 -d 10            three pages of text, ten seconds each

Bytes need net.netfilter.nf_conntrack_acct=1.
"""


def _seconds(least):
    def read(text):
        try:
            seconds = float(text)
        except ValueError:
            seconds = -1
        if not least <= seconds <= 3600:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from {least} to 3600")
        return seconds

    return read


def _count(text):
    if (number := whole_number(text, 1, 1 << 31)) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return number


def parser() -> Parser:
    """Return the parser of its arguments."""
    parser = Parser(
        prog=f"{PROGRAM} top",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        description="Show who has connections now, by flows and bytes a second.",
    )
    add = parser.add_argument
    add("filter", metavar="FILTER", nargs="*", help="count only such flows; README.md has all words")
    add("-p", "--protocol", metavar="REGEX", help='count only protocols that match, such as "tcp" or "ipv6/udp"')
    add("--by", choices=GROUPINGS, default="process", help="what a row stands for (default: %(default)s)")
    add("--sort", choices=SORTS, help="order of the rows (default: bytes, or flows if bytes are not counted)")
    add("-d", "--delay", metavar="SECONDS", type=_seconds(0.1), default=1.0, help="length of an interval (default: 1)")
    add("-n", "--iterations", metavar="N", type=_count, help="end after so many intervals")
    add("-b", "--batch", action="store_true", help="print pages of text; needs no terminal")
    add("--keep", metavar="SECONDS", type=_seconds(0), default=10.0, help="how long rows that ended stay (default: 10)")
    add("--netns", metavar="NAME|PID|all", help="watch this network namespace instead of the program's own, or all")
    add("--track", action="store_true", help="turn connection tracking on meanwhile; see README.md for what that does")
    add("--no-cmdline", action="store_true", help="show no command lines")
    add("--redact", metavar="REGEX", action="append", default=[], help="show [redacted] for what matches in them")
    add("--redact-defaults", action="store_true", help="do so for the usual passwords, tokens and keys")
    add("--attribution", choices=ATTRIBUTIONS, default="auto", help="how to look for processes (default: auto)")
    add("--user", metavar="NAME", help="user to switch to (default: nfct-fast if that user exists, else nobody)")
    add("--no-sandbox", action="store_true", help="stay root, with all system calls allowed")
    add("--debug", action="store_true", help="print statistics at the end, and a traceback on a failure")
    parser.set_defaults(replay=None)  # for rights_of()
    return parser


def _of_use(notices):
    """Without what records at a flow's end will lack: whether bytes are counted is said in words of its own."""
    return [notice for notice in notices if not any(name in notice for name in ACCOUNTS)][:_NOTICES]


class _Top:
    """The display: what it shows and where from."""

    def __init__(self, arguments, conntrack, notices, table_max):
        self._sort_is_chosen = arguments.sort is not None
        self._lacks_bytes = any("nf_conntrack_acct" in notice for notice in notices)
        sort = arguments.sort or ("flows" if self._lacks_bytes else "bytes")
        self.view = View(arguments.by, sort)
        self.left = arguments.iterations
        self._conntrack, self._table_max = conntrack, table_max
        self._notices = _of_use(notices)
        first = arguments.delay if arguments.batch else min(_FIRST_S, arguments.delay)
        self.collector = Collector(conntrack, arguments.by, arguments.delay, arguments.keep, first)
        self.interval, self._rows = None, []

    def notices(self):
        counted = self.interval is None or self.interval.totals.uncounted == 0
        if self.interval is not None and self.interval.totals.entries > self.interval.totals.uncounted:
            self._lacks_bytes = False
        lacking = self._lacks_bytes if counted else self.interval.totals.uncounted == self.interval.totals.entries
        return ([NO_BYTES] if lacking else []) + self._notices

    def refresh(self) -> bool:
        """Take over the last interval, if it is new and the display is not paused. Whether the end has come."""
        self.collector.seen()
        if self.collector.failure is not None:
            raise self.collector.failure
        self._notices = [*_of_use(self._conntrack.notices()), *self._notices][:_NOTICES]
        interval = self.collector.interval
        if interval is not None and not self.view.paused and interval is not self.interval:
            self.interval = interval
            self._take_rows()
            if self.left is not None:
                self.left -= 1
        return self.collector.over or self.left == 0

    def _take_rows(self):
        self._rows = self.collector.rows(self.view.sort)
        self.view.show(self._rows)

    def press(self, key) -> bool:
        """Handle a key. Whether it was to quit."""
        action = self.view.press(key)
        if action == "regroup":
            self.collector.regroup(self.view.grouping)
        if action == "resort" and self.view.paused:
            self.view.show(self._rows)
        elif action in ("regroup", "resort"):
            self._take_rows()
        return action == "quit"

    def lines(self, columns, lines):
        return screen(
            self.view, self.interval, columns, lines, self.collector.flows_of, self.notices(), self._table_max
        )

    def printed(self, columns):
        return printed(self.view, self.interval, columns, self.notices(), self._table_max)


def _show(top, terminal, stop):
    poll = select.poll()
    for fd in (_STDIN, stop.fd, top.collector.fileno()):
        poll.register(fd, select.POLLIN)
    ended = False
    while not stop.asked and not ended:
        terminal.wake()
        drawn = terminal.can_draw()
        if drawn:
            terminal.draw(top.lines(*terminal.size))
        ready = [fd for fd, _ in poll.poll(None if drawn else _BLOCKED_MS)]
        if stop.fd in ready:
            stop.drain()
        if terminal.is_gone():
            return
        for key in terminal.keys():
            if top.press(key):
                return
        if top.collector.fileno() in ready:
            ended = top.refresh()


def _print(top, stop, sink):
    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isascii() and columns.isdecimal() and 20 <= int(columns) else _PRINTED_COLUMNS
    poll = select.poll()
    for fd in (stop.fd, top.collector.fileno()):
        poll.register(fd, select.POLLIN)
    poll.register(_STDOUT, 0)
    ended = False
    pages = 0
    while not stop.asked and not ended:
        poll.poll()
        if is_reader_gone(_STDOUT):
            return
        before = top.interval
        ended = top.refresh()
        if top.interval is not before:
            page = top.printed(min(width, 1000))
            if locale.nl_langinfo(locale.CODESET).upper().replace("-", "") != "UTF8":
                page = plain(page)
            sink.write(("\n" * (pages > 0) + page).encode())
            pages += 1


def _table_max():
    with closing(TableFill()) as fill:
        usage = fill.usage()
    return None if usage is None else usage[1]


def run(arguments) -> None:
    """Show the table until the user quits.

    Raises:
        ValueError: An argument is wrong, or there is no terminal.
        OSError: See Conntrack; BrokenPipeError if the reader of pages is gone.
    """
    locale.setlocale(locale.LC_CTYPE, "")
    rights = rights_of(arguments)
    rights.use_terminal = not arguments.batch
    curses = None if arguments.batch else find_curses()
    warnings.simplefilter("ignore", ConntrackWarning)  # they are shown in the header
    allow_descriptors(arguments)
    with Conntrack(
        events="NEW",
        flows=True,
        track=arguments.track,
        _tables=True,
        **common_options(arguments, rights),
    ) as conntrack:
        notices = (*conntrack.no_event_reasons, *conntrack.degraded, *conntrack.notices())
        top = _Top(arguments, conntrack, notices, _table_max())
        stop = Stop()
        try:
            if arguments.batch:
                sink = Sink(_STDOUT, stop.fd)
                rights.drop()
                top.collector.start()
                _print(top, stop, sink)
            else:
                with Screen(curses) as terminal:
                    rights.drop()
                    top.collector.start()
                    _show(top, terminal, stop)
        finally:
            top.collector.stop()
            if arguments.debug:
                warn(conntrack.stats())
