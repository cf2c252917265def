"""Generate the manual page, nfct-fast.1, from nfct-fast.1.in, the parsers and tables of README.md: `make man`.

The page is committed, as a wheel has to have it in share/man; tests/command_line/test_manual.py compares.
"""

import argparse
import re
import sys
import textwrap
from importlib import import_module
from pathlib import Path

from nfct_fast import __main__ as main
from nfct_fast import __version__
from nfct_fast.data.roff import escaped, from_markdown, table

HERE = Path(__file__).parent
README = HERE.parents[2] / "README.md"
PAGE = HERE / "nfct-fast.1"
DATE = "2026-11-27"  # of the last change that a reader would notice


def _parsers():
    yield "", import_module(f"nfct_fast.command.{main._LOG}").parser()
    for word, module in sorted(main._SUBCOMMANDS.items()):
        yield word, import_module(f"nfct_fast.command.{module}").parser()


def _names(action):
    """The line with an option's names and its value."""
    value = ""
    if action.nargs != 0:
        text = action.metavar or "{" + ",".join(map(str, action.choices)) + "}"
        value = rf"\fI{escaped(text)}\fR"
    optional = action.nargs == "?"
    names = []
    for name in action.option_strings:
        end = f" {value}" if value and not optional else f" [{value}]" if value else ""
        names.append(rf"\fB{escaped(name)}\fR{end}")
    return ", ".join(names)


def _options(parser):
    lines = []
    for action in parser._actions:
        if action.help == argparse.SUPPRESS or not action.option_strings:
            continue
        text = parser._get_formatter()._expand_help(action)
        lines += [".TP", _names(action), *_wrapped(from_markdown(_sentence(text)))]
    return lines


def _sentence(text):
    text = text.replace("README.md has all words", "see FILTERS").replace("README.md describes its keys", "see JSON")
    if re.match(r"[a-z]+ ", text):  # "strftime(3)" is a name
        text = text[0].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."


def _wrapped(text):
    lines = textwrap.wrap(text, 78, break_long_words=False, break_on_hyphens=False)
    return [rf"\&{line}" if line.startswith((".", "'")) else line for line in lines]


def _synopsis(word, parser):
    words = [rf"\fBnfct\-fast{' ' + word if word else ''}\fR", r"[\fIOPTION\fR]..."]
    for action in parser._actions:
        if not action.option_strings and action.help != argparse.SUPPRESS:
            many = "..." if action.nargs in ("*", "+") else ""
            name = rf"\fI{escaped(action.metavar or action.dest.upper())}\fR{many}"
            words.append(name if action.nargs in (None, "+") else f"[{name}]")
    return " ".join(words)


def _subcommands():
    lines = []
    for word, parser in _parsers():
        if word:
            lines += [
                f".SS nfct\\-fast {escaped(word)}",
                *_wrapped(from_markdown(_sentence(parser.description or word))),
            ]
            lines += _options(parser)
    return lines


def _section(heading):
    """A section of README.md, without its heading."""
    found = re.search(rf"^(#+) {re.escape(heading)}\n(.*?)(?=^\1? ?#|\Z)", README.read_text(), re.M | re.S)
    if found is None:
        raise SystemExit(f"README.md has no section {heading}")
    return found[2]


def _table(heading, first):
    """The lines of the table in a section of README.md whose head begins so."""
    rows = re.search(rf"^\| {re.escape(first)} .*\n(?:\|.*\n)+", _section(heading), re.M)
    if rows is None:
        raise SystemExit(f"README.md: {heading} has no table that begins with {first}")
    return table(rows[0].splitlines())


def page() -> str:
    """Return the page."""
    parts = {
        "HEAD": [f'.TH NFCT\\-FAST 1 {DATE} "nfct_fast {__version__}" "User Commands"'],
        "SYNOPSIS": [
            line for word, parser in _parsers() for line in ([] if not word else [".br"]) + [_synopsis(word, parser)]
        ],
        "OPTIONS": _options(next(_parsers())[1]),
        "SUBCOMMANDS": _subcommands(),
        "FIELDS": _table("Use", "field"),
        "FILTERS": _table("Filters", "key"),
        "OUTCOMES": _table("Whole flows", "outcome"),
        "MATCHES": _table("Attribution", "match"),
        "JSON": _table("JSON lines", "name"),
    }
    lines = []
    for line in (HERE / "nfct-fast.1.in").read_text().splitlines():
        lines += parts[line.strip("@")] if line.startswith("@") else [line]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"{PAGE}: {len(PAGE.read_text().splitlines())} lines", file=sys.stderr)
