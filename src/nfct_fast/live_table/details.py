"""The text about one row: who is behind it, and its flows."""

import time

from nfct_fast.live_table.display_text import amount, fitted, shown, width

_COMMAND_MAX = 16384  # characters of a command line
_COMMAND_LINES = 4  # of it above the flows
_INDENT = 11


def details_lines(row, flows, columns) -> list[str]:
    """The lines about a row and its flows, as Rows; `row` is None if it is gone."""
    if row is None:
        return ["this row is gone: nothing of it is left"]
    lines = [row.name, "", *_about(row.party, columns), ""]
    new = f"{row.live} live, {amount(row.began)}/s new"
    lines.append(f"flows: {new}; bytes since the start: {amount(row.total_in)} in, {amount(row.total_out)} out")
    lines += ["", "   IN/S   OUT/S   TOTAL  AGE      FLOW", *map(_flow, flows)]
    command = _command(row.party, columns)
    return lines + (["", "the whole command line:", *command] if len(command) > _COMMAND_LINES else [])


def _about(party, columns):
    process = party.process
    if process is None:
        return [f"process:   unknown ({party.reason})", f"user:      {party.user}"]
    lines = [
        f"process:   {process.pid} {party.comm}, started {_since(process.start)}",
        f"user:      {party.user}",
        f"unit:      {party.unit}",
        f"container: {party.container}",
        f"program:   {shown(process.exe or '?')}",
    ]
    command = _command(party, columns)
    if len(command) > _COMMAND_LINES:
        command[_COMMAND_LINES - 1 :] = ["... (see below)"]
    lines += [("command:   " if i == 0 else " " * _INDENT) + text for i, text in enumerate(command)]
    for depth, ancestor in enumerate(process.ancestors):
        label = "from:      " if depth == 0 else " " * _INDENT
        lines.append(f"{label}{'  ' * min(depth, 8)}{ancestor.pid} {shown(ancestor.comm)} {shown(ancestor.exe or '')}")
    return lines


def _command(party, columns):
    if party.process is None:
        return []
    text = " ".join(map(shown, party.process.cmdline or ()))[:_COMMAND_MAX]
    return _wrapped(text, max(8, columns - _INDENT))


def _since(seconds):
    return time.strftime("%F %T", time.localtime(seconds))


def _flow(flow):
    age = "ended" if flow.ended else _age(time.time() - flow.key[1] / 1e9)
    numbers = [fitted(amount(number), 7, True) for number in (flow.bytes_in, flow.bytes_out)]
    total = fitted(amount(flow.total_in + flow.total_out), 7, True)
    return f"{numbers[0]} {numbers[1]} {total}  {age:<8} {flow.name}"


def _age(seconds):
    seconds = max(0, int(seconds))
    if seconds < 3600:
        return f"{seconds // 60}:{seconds % 60:02}"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02}" if seconds < 86400 else f"{seconds // 86400} days"


def _wrapped(text, columns):
    """The text in lines of at most so many columns."""
    lines, taken, at = [], 0, 0
    for i, character in enumerate(text):
        wide = width(character)
        if taken + wide > max(2, columns):
            lines.append(text[at:i])
            at, taken = i, 0
        taken += wide
    return [*lines, text[at:]]
