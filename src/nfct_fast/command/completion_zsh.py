"""Completion for zsh, by its function _arguments."""

import re

from nfct_fast.command import completion

_HEAD = """\
#compdef nfct-fast
# Completion of nfct-fast for zsh: this text in a folder of $fpath, as _nfct-fast; or, after compinit,
# eval "$(nfct-fast --completion zsh)".
_nfct-fast-namespaces() {
    local -a names=(all /run/netns/*(N:t))
    compadd -a names
}
_nfct-fast-filter() {
    case $words[CURRENT-1] in
"""
_MIDDLE = """\
    esac
}
_nfct-fast() {
"""
_TAIL = """\
}
if [ "$funcstack[1]" = _nfct-fast ]; then _nfct-fast "$@"; else compdef _nfct-fast nfct-fast; fi
"""
_VALUES = {
    completion.NOTHING: " ",
    completion.FILES: "_files",
    completion.FOLDERS: "_files -/",
    completion.USERS: "_users",
    completion.NAMESPACES: "_nfct-fast-namespaces",
}


def _quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"


def _value(value):
    return _VALUES[value] if isinstance(value, str) else f"({' '.join(value)})"


def _specification(option):
    """The words for _arguments; of an option with several names, which exclude each other."""
    text = re.sub(r"([\\:\[\]])", r"\\\1", option.help)
    more = "" if option.value is None else f"{'::' if option.optional else ':'}{_label(option)}:{_value(option.value)}"
    if len(option.names) == 1:
        (name,) = option.names
        return _quoted(f"*{name}{_joined(option, name)}[{text}]{more}")
    names = ",".join(name + _joined(option, name) for name in option.names)
    return f"'*'{{{names}}}{_quoted(f'[{text}]{more}')}"


def _joined(option, name):
    """Whether the value may follow after "=": "-p x" or "-px", "--protocol x" or "--protocol=x"."""
    return "" if option.value is None else "=" if name.startswith("--") else "+"


def _label(option):
    return option.names[-1].lstrip("-")


def _of(command):
    lines = ["_arguments -s -S \\"]
    lines += [f"    {_specification(option)} \\" for option in command.options]
    rest = "filter:_nfct-fast-filter" if command.filter else f"argument:{_value(command.arguments)}"
    lines.append(f"    {_quoted(f'*:{rest}')}")
    return lines


def script(commands) -> str:
    """Return the script."""
    main, *others = commands
    lines = []
    for word, value in completion.filter_values().items():
        what = f"compadd {' '.join(value)}" if isinstance(value, tuple) else _VALUES[value]
        lines.append(f"    {word}) {what};;")
    lines.append(f"    *) compadd {' '.join(completion.filter_words())};;")
    body = []
    if others:
        words = [command.word for command in others]
        body.append("if (( CURRENT > 2 )); then case $words[2] in")
        for command in others:
            body += [
                f"    {command.word})",
                "        shift words; (( CURRENT-- ))",
                *(f"        {line}" for line in _of(command)),
                "        return;;",
            ]
        body.append(f"esac; elif [[ $words[2] != -* ]]; then compadd {' '.join(words)}; fi")
    body += _of(main)
    return (
        _HEAD + "".join(f"    {line}\n" for line in lines) + _MIDDLE + "".join(f"    {line}\n" for line in body) + _TAIL
    )
