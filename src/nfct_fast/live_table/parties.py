"""Who made a flow: a process, or the reason why there is none; and what it is called in each grouping."""

from nfct_fast.live_table.display_text import shown

GROUPINGS = ("process", "program", "unit", "user", "destination", "port", "container", "flow")
OF_PARTIES = ("process", "program", "unit", "user", "container")  # the others are told by the flow itself
_COMMAND_MAX = 1024  # characters of a command line that are kept for a row


class Party:
    """A process, or all flows without one that have the same reason and user. Texts are escaped.

    Args:
        owner: The Owner of a flow; None stands for whatever there is no room for.
    """

    def __init__(self, owner):
        self.update(owner)

    def update(self, owner) -> None:
        """Take over what is known now: the process may execute another program."""
        self.process = process = None if owner is None else owner.process
        self.pid = None if process is None else process.pid
        self.user = "" if owner is None else _user(owner)
        self.reason = "" if process is not None else "others" if owner is None else str(owner.reason or "unknown")
        self.unit = shown(process.unit or process.claimed_unit or "-") if process else ""
        self.container = shown(process.container or process.claimed_container or "-") if process else ""
        self.comm = shown(process.comm or "?") if process else ""
        self.program = shown(process.exe or f"[{process.comm or '?'}]") if process else ""
        self.command = _command(process) if process else f"? {self.reason}"

    def row(self, grouping) -> tuple[object, str]:
        """The key and the name of its row in one of OF_PARTIES."""
        if grouping == "process":
            key = (self.process.pid, self.process.start_ticks) if self.process else self.reason
            return key, self.command
        if grouping == "user":
            return self.user, self.user
        if self.process is None:
            return (None, self.reason), f"? {self.reason}"
        name = {"program": self.program, "unit": self.unit, "container": self.container}[grouping]
        return name, name


def _user(owner):
    if owner.uid is None:
        return "?"
    return shown(owner.user or str(owner.uid))


def _command(process):
    arguments = process.cmdline
    if not arguments:
        return f"[{shown(process.comm or '?')}]"
    text = " ".join(arguments)
    return shown(text[:_COMMAND_MAX]) + ("..." if len(text) > _COMMAND_MAX or process.cmdline_cut else "")
