"""A report of a check for a terminal of 80 columns. Commands stand whole on lines of their own, to be copied."""

import textwrap

from nfct_fast.checking.check_report import CheckState
from nfct_fast.text.printable import printable

_WIDTH = 80
_STATE, _NAME = 8, 16  # columns
_COLOURS = {CheckState.OK: 32, CheckState.UNKNOWN: 36, CheckState.LIMITED: 33, CheckState.MISSING: 31}


def _coloured(state, coloured):
    word = f"{state:{_STATE}}"
    return f"\x1b[{_COLOURS[state]}m{word}\x1b[0m" if coloured else word


def _lines(item, coloured):
    indent = " " * (_STATE + _NAME + 2)
    first, *more = textwrap.wrap(printable(item.detail), _WIDTH - len(indent), break_on_hyphens=False) or [""]
    yield f"{_coloured(item.state, coloured)} {printable(item.name):{_NAME}} {first}".rstrip()
    for line in more:
        yield indent + line
    if item.remedy is not None:
        yield f"    {printable(item.remedy)}"


def _conclusion(report):
    if report.state == CheckState.MISSING:
        return "It does not work here as it is: see what is missing."
    if report.item("flow").state == CheckState.UNKNOWN:
        return "Whether it works here could not be tried."
    return "It works here." if report.state == CheckState.OK else "It works here, within the limits above."


def screen(report, coloured=False) -> str:
    """Return the report as text. coloured: Whether states are coloured, by ANSI escape sequences."""
    where = "" if report.netns is None else f", network namespace {report.netns}"
    lines = [printable(f"{report.host.name}, Linux {report.kernel}{where}")]
    for item in report.items:
        lines += _lines(item, coloured)
    lines.append(_conclusion(report))
    return "\n".join(lines) + "\n"
