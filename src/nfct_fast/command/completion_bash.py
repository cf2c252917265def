"""Completion for bash, which needs nothing of the package bash-completion."""

from nfct_fast.command import completion

_HEAD = """\
# Completion of nfct-fast for bash: eval "$(nfct-fast --completion bash)"; or, with the package bash-completion, in
# /usr/local/share/bash-completion/completions/nfct-fast or ~/.local/share/bash-completion/completions/nfct-fast.
_nfct_fast_namespaces() {
    local name
    for name in all /run/netns/*; do
        name=${name##*/}
        # The words of "compgen -W" would be expanded, and names be run.
        case "$name" in *[!a-zA-Z0-9_.-]*) ;; "$1"*) COMPREPLY+=("$name");; esac
    done
}
_nfct_fast() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command= IFS=$' \\t\\n'
    COMPREPLY=()
    # In --option=value the "=" is a word of its own.
    if [ "$cur" = = ]; then cur=; elif [ "$prev" = = ]; then prev=${COMP_WORDS[COMP_CWORD-2]}; fi
"""
_TAIL = """\
}
complete -F _nfct_fast nfct-fast
"""
_VALUES = {
    completion.NOTHING: "return",
    completion.FILES: 'compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return',
    completion.FOLDERS: 'compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return',
    completion.USERS: 'mapfile -t COMPREPLY < <(compgen -u -- "$cur"); return',
    completion.NAMESPACES: '_nfct_fast_namespaces "$cur"; return',
}


def _offer(words):
    return f"mapfile -t COMPREPLY < <(compgen -W '{' '.join(words)}' -- \"$cur\"); return"


def _value(value):
    return _VALUES[value] if isinstance(value, str) else _offer(value)


def _of(command):
    """The lines that complete one command."""
    lines = ['case "$prev" in']
    for option in command.options:
        if option.value is not None and not option.optional:
            lines.append(f"    {'|'.join(option.names)}) {_value(option.value)};;")
    if command.filter:
        lines += [f"    {word}) {_value(value)};;" for word, value in completion.filter_values().items()]
    names = [name for option in command.options for name in option.names]
    lines += ["esac", f'case "$cur" in -*) {_offer(names)};; esac']
    if command.filter:
        lines.append(_offer(completion.filter_words()))
    else:
        lines.append(_value(command.arguments))
    return lines


def script(commands) -> str:
    """Return the script."""
    main, *others = commands
    lines = []
    if others:
        words = [command.word for command in others]
        lines.append(f'if [ "$COMP_CWORD" -gt 1 ]; then case "${{COMP_WORDS[1]}}" in {"|".join(words)})')
        lines.append("    command=${COMP_WORDS[1]};; esac; fi")
        for command in others:
            lines += [f'if [ "$command" = {command.word} ]; then', *(f"    {line}" for line in _of(command)), "fi"]
        lines.append("""if [ "$COMP_CWORD" = 1 ]; then case "$cur" in [a-z]*|'')""")
        first = (*words, *completion.filter_words())
        lines.append(f"    {_offer(first)};; esac; fi")
    lines += _of(main)
    return _HEAD + "".join(f"    {line}\n" for line in lines) + _TAIL
