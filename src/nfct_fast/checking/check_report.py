"""The result of a check: immutable values."""

import json
from enum import StrEnum
from typing import Any, NamedTuple

from nfct_fast.kernel.host import Host

SCHEMA = 1  # changes when a key is gone or means something else


class CheckState(StrEnum):
    """What a precondition means for whoever wants flows and their owners."""

    OK = "ok"
    UNKNOWN = "unknown"  # it could not be determined, mostly for lack of privileges
    LIMITED = "limited"  # some flows, owners or facts will be missing
    MISSING = "missing"  # no flow will come, or none with an owner, or connections are about to be dropped


class CheckItem(NamedTuple):
    """One precondition."""

    name: str  # one of those that README.md lists; a name keeps its meaning
    state: CheckState
    detail: str  # what was found, and what it means; free text
    remedy: str | None  # the shell command that mends it; None: nothing is wrong, or no single command helps


class TriedFlow(NamedTuple):
    """A datagram that a process of the check's own sent over loopback, as a Conntrack reported it."""

    closed_at_once: bool  # whether its socket was closed right after it
    milliseconds: float | None  # from sending to the receipt of its event; None: no event came
    pid: int | None  # the process that was named
    right: bool  # whether that is the one that sent it
    match: str | None  # how it was found, a value of Match
    reason: str | None  # why there is no process, a value of Reason


_ORDER = tuple(CheckState)  # the worst is the last


class CheckReport(NamedTuple):
    """What a check found."""

    host: Host
    kernel: str  # as uname -r prints it
    time_ns: int  # when the check began, ns since the epoch
    netns: str | None  # the namespace that was checked, as it was named; None: the caller's own
    items: tuple[CheckItem, ...]  # in a fixed order, each name once
    flows: tuple[TriedFlow, ...]  # empty if no flow could be tried: the item "flow" says why

    @property
    def state(self) -> CheckState:
        """The worst state of an item."""
        return max((item.state for item in self.items), key=_ORDER.index)

    def item(self, name: str) -> CheckItem:
        """Return the item of that name. KeyError if there is none."""
        for item in self.items:
            if item.name == name:
                return item
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """Return what to_json() writes, as a dict."""
        return {
            "schema": SCHEMA,
            "host": self.host.name,
            "machine_id": self.host.machine_id,
            "boot_id": self.host.boot_id,
            "kernel": self.kernel,
            "time_ns": self.time_ns,
            "netns": self.netns,
            "state": self.state.value,
            "items": [item._asdict() | {"state": item.state.value} for item in self.items],
            "flows": [flow._asdict() for flow in self.flows],
        }

    def to_json(self) -> str:
        """Return it as one line of JSON, in ASCII."""
        return json.dumps(self.to_dict())
