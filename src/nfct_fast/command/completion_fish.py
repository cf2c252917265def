"""Completion for fish, a `complete` for each option."""

from nfct_fast.command import completion

_HEAD = """\
# Completion of nfct-fast for fish: nfct-fast --completion fish | source, or this text in
# /etc/fish/completions/nfct-fast.fish or ~/.config/fish/completions/nfct-fast.fish.
complete -c nfct-fast -f
"""
_VALUES = {
    completion.NOTHING: "-x",
    completion.FILES: "-r -F",
    completion.FOLDERS: "-x -a '(__fish_complete_directories)'",
    completion.USERS: "-x -a '(__fish_complete_users)'",
    completion.NAMESPACES: "-x -a 'all (command ls /run/netns 2>/dev/null)'",
}


def _quoted(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _value(value):
    return _VALUES[value] if isinstance(value, str) else f"-x -a {_quoted(' '.join(value))}"


def _option(option, condition):
    names = [f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names]
    value = [] if option.value is None or option.optional else [_value(option.value)]
    return " ".join(["complete -c nfct-fast", *condition, *names, *value, "-d", _quoted(option.help)])


def _of(command, condition):
    lines = [_option(option, condition) for option in command.options]
    where = " ".join(["complete -c nfct-fast", *condition])
    if command.filter:
        lines.append(f"{where} -a {_quoted(' '.join(completion.filter_words()))}")
        for word, value in completion.filter_values().items():
            lines.append(f"complete -c nfct-fast -n '__fish_prev_arg_in {word}' {_value(value)}")
    elif command.arguments != completion.NOTHING:
        lines.append(f"{where} {_value(command.arguments)}")
    return lines


def script(commands) -> str:
    """Return the script."""
    main, *others = commands
    words = " ".join(command.word for command in others)
    without = [f"-n 'not __fish_seen_subcommand_from {words}'"] if others else []
    lines = _of(main, without)
    for command in others:
        lines.append(f"complete -c nfct-fast -n __fish_use_subcommand -a {command.word} -d {_quoted(command.help)}")
        lines += _of(command, [f"-n '__fish_seen_subcommand_from {command.word}'"])
    return _HEAD + "\n".join(lines) + "\n"
