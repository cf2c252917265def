"""What can be completed of a command line, as the parsers know it, and the scripts that do it in a shell."""

import argparse
from dataclasses import dataclass
from importlib import import_module

from nfct_fast.filters.filter_keys import ENDS, KEYS
from nfct_fast.filters.number_values import PROTOCOLS
from nfct_fast.records.words import Direction, Reason

# What is completed after an option, or after a word of the filter: words, or one of these.
NOTHING, FILES, FOLDERS, USERS, NAMESPACES = "nothing", "files", "folders", "users", "namespaces"
_BY_METAVAR = {"FILE": FILES, "DIR": FOLDERS, "NAME|PID|all": NAMESPACES}
_BY_DEST = {"user": USERS, "events": ("new", "update", "destroy", "all", "new,destroy")}
_FILTER = "FILTER"
_AFTER_KEYS = {
    "user": USERS,
    "netns": NAMESPACES,
    "dir": tuple(map(str, Direction)),
    "family": ("ipv4", "ipv6"),
    "proto": tuple(sorted(PROTOCOLS)),
    "reason": tuple(map(str, Reason)),
}


@dataclass(frozen=True)
class Option:
    """An option: its names, the first line of its help, and what its value may be; None if it takes none."""

    names: tuple[str, ...]
    help: str
    value: str | tuple[str, ...] | None
    optional: bool


@dataclass(frozen=True)
class Command:
    """A command: its word, "" for the program without one; its options, and whether a filter follows them."""

    word: str
    help: str
    options: tuple[Option, ...]
    filter: bool
    arguments: str | tuple[str, ...]


def filter_words() -> tuple[str, ...]:
    """Return the words that can begin a condition of the filter, or join two."""
    words = {word for key in KEYS for word in key.split()}
    return tuple(sorted(words | {*ENDS, *PROTOCOLS, "and", "or", "not", "ip", "ip6"}))


def filter_values() -> dict[str, str | tuple[str, ...]]:
    """Return what may follow a word of the filter, for words after which a few values are possible."""
    return _AFTER_KEYS


def command(word, parser) -> Command:
    """Return what a parser takes."""
    options, is_filter, rest = [], False, NOTHING
    for action in parser._actions:
        if action.help == argparse.SUPPRESS:
            continue
        if action.option_strings:
            options.append(_option(action))
        elif action.metavar == _FILTER:
            is_filter = True
        else:
            rest = _value(action)
    return Command(word, _first_sentence(parser.description or ""), tuple(options), is_filter, rest)


def _option(action):
    value = None if action.nargs == 0 else _value(action)
    return Option(tuple(action.option_strings), _first_sentence(action.help or ""), value, action.nargs == "?")


def _value(action):
    if action.choices:
        return tuple(map(str, action.choices))
    by_name = _BY_DEST.get(action.dest)
    return by_name or _BY_METAVAR.get(action.metavar, NOTHING)


def _first_sentence(text):
    """The beginning of a help text, for a list in a shell: without what breaks a line, or quotes."""
    text = " ".join(text.replace("%%", "%").split())
    for end in (". ", "; ", ": ", " ("):
        text = text.partition(end)[0]
    return text.rstrip(".")


def commands() -> list[Command]:
    """Return every command: the program's own options first, then the subcommands."""
    main = import_module("nfct_fast.__main__")
    modules = {"": main._LOG, **main._SUBCOMMANDS}
    return [command(word, import_module(f"nfct_fast.command.{name}").parser()) for word, name in modules.items()]


def script(shell) -> str:
    """Return what completes the program's arguments in a shell: "bash", "zsh" or "fish"."""
    return import_module(f"nfct_fast.command.completion_{shell}").script(commands())
