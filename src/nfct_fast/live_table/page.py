"""A screen or a printed page of the live table, as lines of text with a style each."""

import time

from nfct_fast.live_table.details import details_lines
from nfct_fast.live_table.display_text import amount, fitted, shown

_TITLES = {"process": "COMMAND", "destination": "DESTINATION", "port": "PORT", "flow": "FLOW"}
_SORTED = {"bytes": "bytes/s", "in": "bytes/s in", "out": "bytes/s out", "flows": "flows/s", "name": "name"}
_KEYS = "q quit  h help  enter details  g group  s sort  r reverse  / filter  p pause"
NO_BYTES = (
    "bytes are not counted: `sysctl net.netfilter.nf_conntrack_acct=1` does that, for flows that begin afterwards"
)
HELP = """\
  arrows, page up and down, home, end    move, or scroll
  enter      the row's flows, and its process with command line and ancestors
  g, tab     rows for processes, programs, units, users, destinations, ports,
             containers or flows; G goes back
  s, >       order by bytes/s, bytes/s in, bytes/s out, flows/s or name; < back
  r          reverse the order
  /          only rows with this text in name, user, unit, container, command
             or pid; empty: all rows
  p, space   pause, and go on
  q          quit, or leave this page

A flow counts for the process that began it, or that received it if it began on
another host. IN and OUT are seen from that process: bytes of IP packets per
second, 1K is 1,000. LIVE flows are in the conntrack table, NEW/S began.
What has ended is kept for a while, and is dim. "? closed" and the like are
flows without a process, by the reason; "? others" is all there is no room for.
""".splitlines()


def _rate(row, number):
    return "-" if row.ended and not number else amount(number)


def _columns(grouping, width):
    """[(title, columns, right, function of a Row)]; the last takes what is left."""
    numbers = [
        ("LIVE", 6, True, lambda row: amount(row.live)),
        ("NEW/S", 6, True, lambda row: _rate(row, row.began)),
    ]
    rates = [
        ("IN/S", 7, True, lambda row: _rate(row, row.bytes_in)),
        ("OUT/S", 7, True, lambda row: _rate(row, row.bytes_out)),
    ]
    if width >= 100:
        rates.append(("TOTAL", 7, True, lambda row: amount(row.total_in + row.total_out)))
    pid = ("PID", 7, True, lambda row: str(row.party.pid or "?"))
    name = (_TITLES.get(grouping, grouping.upper()), 0, False, lambda row: row.name)
    if grouping == "process":
        unit = [("UNIT", 20, False, lambda row: row.party.unit)] if width >= 120 else []
        return [pid, ("USER", 10, False, lambda row: row.party.user), *numbers, *rates, *unit, name]
    by = ("BY", 15, False, lambda row: row.party.comm or row.party.command)
    if grouping == "flow":
        return [pid, by, *rates, name]
    if grouping in ("destination", "port"):
        wide = max(8, min(40, width - 54)) if grouping == "destination" else 12
        last = (
            "LAST BY",
            0,
            False,
            lambda row: f"{row.party.pid} {row.party.comm}" if row.party.pid else row.party.command,
        )
        return [*numbers, *rates, (name[0], wide, False, name[3]), last]
    return [*numbers, *rates, name]


def _cells(columns, width, values):
    left = width
    cells = []
    for (_, columns_wide, right, _), value in zip(columns, values):
        wide = columns_wide or max(0, left)
        cells.append(fitted(value, wide, right))
        left -= wide + 1
    return fitted(" ".join(cells), width)


def heading(columns, width) -> str:
    """The line over the rows."""
    return _cells(columns, width, [title for title, _, _, _ in columns])


def summary(view, interval, table_max) -> list[tuple[str, str]]:
    """The lines at the top: [(text, style)]."""
    clock = time.strftime("%H:%M:%S", time.localtime(interval.at))
    words = [f"nfct-fast top - {clock}, by {view.grouping}, order: {_SORTED[view.sort]}"]
    words += ["reversed"] * view.reverse + [f"filter: {shown(view.text)}"] * bool(view.text)
    words.append(f"every {interval.planned:.3g} s")
    words += ["PAUSED"] * view.paused
    totals = interval.totals
    flows = f"flows: {totals.live} live, {amount(totals.began)}/s new, {totals.closed} just ended"
    rates = f"bytes/s: {amount(totals.bytes_in)} in, {amount(totals.bytes_out)} out"
    table = f"table: {totals.entries}"
    if table_max:
        table += f" of {table_max} ({100 * totals.entries / table_max:.1f} %)"
    lost = f"lost: {interval.lost}{' or more' if interval.at_least else ''}, recovered: {interval.recovered}"
    lines = [(", ".join(words), "title"), (f"{flows}; {rates}", "plain")]
    lines.append((f"{table}, {lost}", "warning" if interval.lost else "plain"))
    if totals.unfollowed:
        lines.append((f"{totals.unfollowed} flows are only counted: there was no room for more", "warning"))
    if interval.slowed:
        slow = f"to read the table takes {interval.reading:.2g} s of a processor, hence the longer interval"
        lines.append((slow, "warning"))
    return lines


def table_page(view, interval, width, height, notices=(), table_max=None) -> list[tuple[str, str]]:
    """The screen with the table: exactly `height` lines of `width` columns."""
    lines = [] if interval is None else summary(view, interval, table_max)
    lines += [(notice, "warning") for notice in notices]
    lines = lines[: max(1, height - 4)]
    if interval is None:
        lines.append(("nfct-fast top: waiting for the first interval to end", "title"))
    columns = _columns(view.grouping, width)
    lines.append((heading(columns, width), "heading"))
    room = max(0, height - len(lines) - (height > 3))
    view.page = max(1, room)
    view.first = max(min(view.first, view.selected), view.selected - room + 1, 0)
    view.first = max(0, min(view.first, len(view.rows) - room))
    for at, row in enumerate(view.rows[view.first : view.first + room], view.first):
        style = "selected" if at == view.selected else "ended" if row.ended else "plain"
        lines.append((_cells(columns, width, [value(row) for _, _, _, value in columns]), style))
    if not view.rows and interval is not None and room:
        lines.append(("no flows" + (" with this text in them" if view.text else " yet"), "ended"))
    return _framed(lines, view, width, height)


def _framed(lines, view, width, height):
    last = f"filter: {shown(view.typed)}_" if view.mode == "filter" else _KEYS
    keys = [(last, "keys")] if height > 3 or view.mode == "filter" else []
    lines = lines[: height - len(keys)]
    lines += [("", "plain")] * (height - len(keys) - len(lines))
    return [(fitted(text, width), style) for text, style in lines + keys]


def text_page(view, lines, width, height) -> list[tuple[str, str]]:
    """A screen of the help or of details, which can be scrolled."""
    room = max(1, height - 1)
    view.page = room
    view.first = max(0, min(view.first, len(lines) - room))
    return _framed([(line, "plain") for line in lines[view.first : view.first + room]], view, width, height)


def screen(view, interval, width, height, flows_of, notices=(), table_max=None) -> list[tuple[str, str]]:
    """The screen of whatever mode the view is in. flows_of: a function of a row's key, for its details."""
    if view.mode == "help":
        return text_page(view, HELP, width, height)
    if view.mode == "details":
        row = next((row for row in view.rows if row.key == view.details_key), None)
        return text_page(view, details_lines(row, flows_of(view.details_key), width), width, height)
    return table_page(view, interval, width, height, notices, table_max)


def printed(view, interval, width, notices=(), table_max=None) -> str:
    """The page of batch mode, with all rows."""
    columns = _columns(view.grouping, width)
    lines = [text for text, _ in summary(view, interval, table_max)] + list(notices)
    lines += ["", heading(columns, width)]
    lines += [_cells(columns, width, [value(row) for _, _, _, value in columns]) for row in view.rows]
    return "".join([line.rstrip() + "\n" for line in lines])
