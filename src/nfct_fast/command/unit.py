"""The systemd unit, for the place where the program is installed: --print-unit."""

import os
import re
import sys
from importlib.resources import files
from pathlib import Path

_SCRIPT = "nfct-fast"  # starts Python in isolated mode
_OF_THE_INSTALLER = "nfct-fast-python"
_HOMES = ("/home/", "/root/", "/run/user/")  # what ProtectHome=yes hides
_PLAIN = re.compile(r"[\w%/.@:+$-]+", re.ASCII)
_SPECIAL = '"\\\x7f'


def installed_as() -> list[str]:
    """Return the command line of this program, by absolute paths: of the script, or of Python if there is none."""
    started = Path(os.path.realpath(sys.argv[0]))
    beside = started if started.name == _OF_THE_INSTALLER else Path(sys.executable)
    script = beside.with_name(_SCRIPT)
    return [str(script)] if os.access(script, os.X_OK) else [sys.executable, "-I", "-m", "nfct_fast"]


def faults(program) -> list[str]:
    """Return why systemd should not run this script or this Python, as sentences. program: an absolute path."""
    found = []
    if program.startswith(_HOMES):
        found.append(f"{program} is in a home directory, where the unit cannot reach it: install it in /opt")
    for place in (program, *map(str, Path(program).parents)):
        try:
            status = os.stat(place)
        except OSError as error:
            found.append(f"{place}: {error.strerror}")
            continue
        # A sticky directory lets others add files, not replace these.
        if status.st_uid != 0 or status.st_mode & 0o022 and not status.st_mode & 0o1000:
            found.append(f"{place} can be changed by others than root, who could run anything as this service")
            break
    return found


def quoted(words) -> str:
    """Return a command line as it stands in a unit; see systemd.service(5) and systemd.syntax(7)."""
    # In the first word, a path, systemd does not look for variables.
    return " ".join(_quoted(word if number == 0 else word.replace("$", "$$")) for number, word in enumerate(words))


def _quoted(word):
    word = word.replace("%", "%%")
    if _PLAIN.fullmatch(word):
        return word
    return '"' + "".join(f"\\x{ord(one):02x}" if one < " " or one in _SPECIAL else one for one in word) + '"'


def unit(program=None) -> str:
    """Return the text of nfct-fast.service.

    Args:
        program: The command line that starts the program; by default, as this one was installed.
    """
    text = files("nfct_fast").joinpath("data/nfct-fast.service").read_text(encoding="utf-8")
    return text.replace("@PROGRAM@", quoted(installed_as() if program is None else program))
