"""Examine everything in order, and report. Nothing in here raises because of the host, or waits for long."""

import contextlib
import os
import shlex
import time

from nfct_fast.checking import event_items, host_items, owner_items
from nfct_fast.checking.check_report import CheckReport
from nfct_fast.checking.findings import examine_one, unknown
from nfct_fast.checking.trial import NotOpened, judge, not_tried, try_flows
from nfct_fast.kernel.host import read_host
from nfct_fast.kernel.netns import resolve

# Items whose remedies are executed in the namespace that was checked.
_OF_THE_NAMESPACE = ("events", "tracking", "accounting", "timestamps")


def examine(open_conntrack, *, netns=None, track=False, attribution="auto", rcvbuf) -> CheckReport:
    """Examine one network namespace and the host, and try a real flow there. See Conntrack.check().

    Args:
        open_conntrack: Conntrack, or a function like it.
        netns, track, attribution, rcvbuf: As of Conntrack.

    Raises:
        ValueError: An argument is wrong.
        OSError: The namespace does not exist, or cannot be entered.
    """
    if netns == "all":
        raise ValueError("one network namespace is checked at a time: give its name or a process id")
    with contextlib.ExitStack() as stack:
        entered = contextlib.nullcontext
        prefix = ""
        options = dict(netns=None, track=track, attribution=attribution)
        if netns is not None:
            [space] = resolve(netns)
            stack.enter_context(space)
            entered = space.entered
            # The very namespace, whatever becomes of its name.
            options["netns"] = f"/proc/self/fd/{space.fileno()}"
            prefix = f"nsenter --net={shlex.quote(space.path)} "
        return _Examination(open_conntrack, entered, options, rcvbuf).report(netns, prefix)


class _Examination:
    def __init__(self, open_conntrack, entered, options, rcvbuf):
        self._open, self._entered = open_conntrack, entered
        self._options, self._rcvbuf = options, rcvbuf
        self._flows = ()

    def report(self, netns, prefix):
        """netns: The namespace as it was named. prefix: What to put before a command to execute it in the namespace."""
        began, release, identity = time.time_ns(), os.uname().release, read_host()
        notes = owner_items.NotesCheck()
        host = (
            examine_one("kernel", host_items.kernel, release, notes.missing is None),
            examine_one("capabilities", host_items.capabilities),
            examine_one("namespaces", host_items.namespaces),
            examine_one("lockdown", host_items.lockdown, notes.has_programs),
        )
        with self._entered():
            events, tracked = self._events()
        rest = (
            examine_one("cgroup2", owner_items.cgroup2, notes),
            examine_one("btf", owner_items.btf),
            examine_one("cgroup_programs", owner_items.cgroup_programs, notes),
            examine_one("tracepoints", owner_items.tracepoints, notes),
            examine_one("memory_lock", host_items.memory_lock, release, notes.missing is None),
            examine_one("proc_connector", owner_items.proc_connector, notes),
            examine_one("sock_diag", self._sock_diag),
            examine_one("procfs", owner_items.procfs),
            examine_one("seccomp", host_items.seccomp),
            examine_one("landlock", host_items.landlock),
            examine_one("user", host_items.user),
            examine_one("clock", host_items.clock),
        )
        # Last, as the program gives up its privileges meanwhile.
        flow = examine_one("flow", self._try, tracked)
        items = (*host, *events, *rest, flow)
        items = tuple(
            item._replace(remedy=prefix + item.remedy) if item.name in _OF_THE_NAMESPACE and item.remedy else item
            for item in items
        )
        return CheckReport(identity, release, began, None if netns is None else str(netns), items, self._flows)

    def _events(self):
        check = event_items.EventsCheck(self._options["track"])
        items = (
            examine_one("modules", check.modules),
            examine_one("events", check.events),
            examine_one("tracking", check.tracking),
            examine_one("accounting", event_items.account, "nf_conntrack_acct"),
            examine_one("timestamps", event_items.account, "nf_conntrack_timestamp"),
            examine_one("receive_buffer", event_items.receive_buffer, self._rcvbuf),
            examine_one("table", event_items.table),
        )
        return items, check.tracked

    def _sock_diag(self):
        with self._entered():
            return owner_items.sock_diag()

    def _try(self, tracked):
        if not tracked:
            return unknown("no flow was tried, as none is tracked (see tracking)")
        try:
            self._flows = try_flows(self._open, tracked[0], self._entered, **self._options)
        except (NotOpened, OSError) as error:
            return not_tried(error)
        return judge(self._flows, self._options["attribution"])
