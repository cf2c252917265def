"""What checks of single preconditions return, and how they are kept from failing."""

import os
from typing import NamedTuple

from nfct_fast.checking.check_report import CheckItem, CheckState


class Finding(NamedTuple):
    """An item without its name."""

    state: CheckState
    detail: str
    remedy: str | None = None


def ok(detail) -> Finding:
    return Finding(CheckState.OK, detail)


def unknown(why, remedy=None) -> Finding:
    return Finding(CheckState.UNKNOWN, str(why), remedy)


def limited(problem, remedy=None) -> Finding:
    return _of(CheckState.LIMITED, problem, remedy)


def missing(problem, remedy=None) -> Finding:
    return _of(CheckState.MISSING, problem, remedy)


def _of(state, problem, remedy):
    """problem: A Problem, or a str."""
    return Finding(state, str(getattr(problem, "what", problem)), remedy or getattr(problem, "remedy", None))


def reason_of(error) -> str:
    """Return what an exception says, without its number: a str that is not empty."""
    what = str(getattr(error, "strerror", None) or error) or type(error).__name__
    name = getattr(error, "filename", None)
    return what if name is None else f"{os.fsdecode(name)}: {what}"


def examine_one(name, find, *arguments) -> CheckItem:
    """Return the item that find(*arguments), a Finding, is about. Whatever goes wrong there makes it unknown."""
    try:
        found = find(*arguments)
    except RuntimeError:
        raise  # the thread could not leave a network namespace: it must not continue
    except Exception as error:  # a check reports on strange hosts: whatever they do, the other items still count
        found = unknown(reason_of(error))
    return CheckItem(name, *found)
