"""The formats of output: their options, and the formatters that they choose."""

import os
from typing import NamedTuple

from nfct_fast.output.column_layout import COLUMN_TIME, default_columns, layout
from nfct_fast.output.ecs_lines import EcsLines
from nfct_fast.output.field_names import json_keys, split_fields, template_field
from nfct_fast.output.json_lines import JsonLines
from nfct_fast.output.json_selection import JsonSelection
from nfct_fast.output.template import DEFAULT, Template

_LINE_TIME = "%s"
_DEFAULT_AGGREGATED = DEFAULT.replace(" :: ", " count={ev.count} :: ", 1)
_NAME, _REMOTE, _PID, _WARNING = "32", "36", "1", "33"
_COLOURS = {
    **{"ev.dst": _REMOTE, "ev.dport": _REMOTE, "info.pid": _PID, "ev.type": _WARNING, "info.reason": _WARNING},
    **{f"{side}.{name}": _NAME for side in ("info", "peer") for name in ("comm", "exe", "cmdline", "service", "unit")},
}


class Terminal(NamedTuple):
    """What output is printed to: its width in characters, None if it is no terminal, and whether to use colour."""

    width: int | None = None
    colour: bool = False


PLAIN = Terminal()


def terminal_of(fd, colour) -> Terminal:
    """Return what is known of a descriptor. colour: "auto", "always" or "never"; auto honours NO_COLOR and TERM."""
    is_terminal = os.isatty(fd)
    if colour == "auto":
        wanted = is_terminal and not os.environ.get("NO_COLOR") and (os.environ.get("TERM") or "dumb") != "dumb"
    else:
        wanted = colour == "always"
    width = None
    if is_terminal:
        try:
            width = os.get_terminal_size(fd).columns or 80
        except OSError:
            width = 80
    return Terminal(width, wanted)


def add_formats(parser) -> None:
    """Add the options that choose a format."""
    parser.add_argument(
        "-t",
        "--format-ts",
        metavar="FMT",
        help=f"strftime(3) format of {{ts}}, with %%f for microseconds (default: {_LINE_TIME.replace('%', '%%')}, with "
        f"--columns {COLUMN_TIME.replace('%', '%%')})",
    )
    parser.add_argument(
        "-f",
        "--format",
        metavar="FMT",
        help=f"str.format() template of a line, with fields of ts, ev, info and peer (default: {DEFAULT})",
    )
    style = parser.add_mutually_exclusive_group()
    style.add_argument("--line", action="store_true", help="print a line of text for each flow (the default)")
    style.add_argument("--columns", action="store_true", help="print aligned columns, with a header")
    style.add_argument(
        "--json", action="store_true", help="print one JSON object per line instead; README.md describes its keys"
    )
    parser.add_argument(
        "--schema",
        choices=("ecs",),
        help="print JSON with the names of the Elastic Common Schema, version 9.4",
    )
    parser.add_argument(
        "--fields",
        metavar="LIST",
        help="print only these fields, as in src,dst,dport,pid,comm: as columns, as keys of JSON, or separated by tabs",
    )
    parser.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        default="auto",
        help="colour text on standard output (default: auto, on a terminal unless NO_COLOR is set)",
    )


class Formats:
    """The formatters that the arguments ask for. ValueError if they contradict each other, or name unknown fields."""

    def __init__(self, arguments, presentation):
        self._arguments, self._presentation = arguments, presentation
        if arguments.format is not None and (arguments.columns or arguments.fields is not None):
            raise ValueError("-f chooses fields of its own: it excludes --columns and --fields")
        if arguments.schema is not None and (arguments.line or arguments.columns or arguments.fields is not None):
            raise ValueError(
                "--schema is a form of JSON with fields of its own: it excludes --line, --columns and --fields"
            )
        self._names = None if arguments.fields is None else split_fields(arguments.fields)
        self._formatters = {}
        Template(self._template(), self._time_format())  # wrong ones are an error in any case
        self.formatter()

    def formatter(self, terminal=PLAIN):
        """Return the formatter for standard output on this Terminal, or for what is none. Always the same one."""
        if terminal not in self._formatters:
            self._formatters[terminal] = self._make(terminal)
        return self._formatters[terminal]

    def header(self, terminal=PLAIN) -> bytes:
        """Return what is printed before the first flow."""
        if not self._arguments.columns:
            return b""
        _, header = self._layout(terminal)
        return (f"\x1b[1m{header}\x1b[m\n" if terminal.colour else f"{header}\n").encode()

    def _make(self, terminal):
        if self._arguments.schema == "ecs":
            return EcsLines(self._presentation)
        if self._arguments.json:
            whole = JsonLines(self._presentation)
            if self._names is None:
                return whole
            return JsonSelection(whole, [key for name in self._names for key in json_keys(name)])
        if self._arguments.columns:
            template, _ = self._layout(terminal)
        elif self._names is not None:
            template = "\t".join(f"{{{template_field(name)}}}" for name in self._names)
        else:
            template = self._template()
        colours = _COLOURS if terminal.colour and self._arguments.format is None else None
        return Template(
            template, self._time_format(), self._presentation, ellipsis=self._arguments.columns, colours=colours
        )

    def _template(self):
        if self._arguments.format is not None:
            return self._arguments.format
        return DEFAULT if self._arguments.aggregate is None else _DEFAULT_AGGREGATED

    def _time_format(self):
        if self._arguments.format_ts is not None:
            return self._arguments.format_ts
        return COLUMN_TIME if self._arguments.columns else _LINE_TIME

    def _layout(self, terminal):
        names = self._names
        if names is None:
            fields = default_columns(terminal.width, self._arguments.aggregate is not None)
        else:
            fields = [template_field(name) for name in names]
        return layout(fields, self._time_format(), terminal.width)


def community_id_seed(arguments) -> int | None:
    """Return the seed of Community IDs, which are also wanted if --fields names them."""
    named = (arguments.fields or "").replace(" ", "").split(",")
    wanted = any(name.rpartition(".")[2].startswith("community_id") for name in named)
    return 0 if arguments.community_id is None and wanted else arguments.community_id
