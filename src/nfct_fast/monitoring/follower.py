"""Follow all network namespaces as they come and go, in a thread of its own.

Finding them takes looking at processes, and opening a source takes some milliseconds inside the namespace; no flow
waits for either. The flows that a namespace had before it was found are read from its conntrack table.
"""

import contextlib
import resource
import select
import time
from _thread import allocate_lock, start_new_thread

from nfct_fast.kernel import netns
from nfct_fast.kernel.fork_guard import ForkGuard
from nfct_fast.kernel.wakeup import Wakeup
from nfct_fast.monitoring.monitored_namespaces import MonitoredNamespaces
from nfct_fast.monitoring.quotas import OURS, Quotas
from nfct_fast.namespaces.netns_finder import NamespaceFinder

_TICK_MS = 50
_CHORES_S = 1.0
# After a look at all processes that took t seconds, the next one waits _CENSUS_FACTOR * t (2 % of the time), and at
# least _CENSUS_S.
_CENSUS_S, _CENSUS_FACTOR = 1.0, 50
# After opening a user's namespace took t seconds, the next one waits _USERS_FACTOR * t: 5 % of the time for all users
# together.
_USERS_FACTOR = 20
_PROBED_MAX = 256  # most of our namespaces that are probed at the start to see whether events can come
_PROBE_DESCRIPTORS = 5  # descriptors that probing a namespace takes
_REASONS_MAX = 32  # most reasons why events cannot come that are reported one by one
_DESCRIPTORS = 7  # descriptors for each namespace: one for events, one for the table, five for finding owners
_TRACKED_DESCRIPTORS = 6  # additional descriptors for each namespace in which tracking is turned on


def _capacity(limit, tracking):
    """Return how many namespaces there are descriptors for, at most `limit`. Leaves a third of RLIMIT_NOFILE free."""
    soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    each = _DESCRIPTORS + (_TRACKED_DESCRIPTORS if tracking else 0)
    return limit if soft_limit == resource.RLIM_INFINITY else max(1, min(limit, (soft_limit - soft_limit // 3) // each))


class Follower:
    """A monitor of all namespaces of the host. Call begin(), start(), stop() and close() in this order.

    Args:
        source_opener: The SourceOpener that opens sources in namespaces.
        rcvbuf: Initial bytes of receive buffer in our own namespace.
        memory: Bytes of receive buffers that all namespaces together may request.
        notices: The Notices to which the report goes that some namespaces are not monitored.
    """

    def __init__(self, source_opener, rcvbuf, memory, notices):
        self._source_opener = source_opener
        self._notices = notices
        quotas = Quotas(_capacity(source_opener.capacity, source_opener.tracking), memory, rcvbuf)
        self.namespaces = MonitoredNamespaces(source_opener, quotas, notices)
        self._not_found = set()  # inodes of monitored namespaces that the last census did not find
        self._users_due = self._census_due = self._chores_due = 0.0  # monotonic seconds
        self._stopping = False
        self._fork_guard = ForkGuard()
        self._finder = NamespaceFinder()
        self._finished = allocate_lock()
        self.thread = None
        self._wakeup = Wakeup()

    def begin(self, probe) -> tuple[str, ...]:
        """Monitor the namespaces that exist now, and return why events may never come from some of ours.

        Raises:
            OSError: Our own namespace cannot be monitored.
        """
        own = netns.current()
        for inode, (name, path) in sorted(self._finder.all().items()):
            if inode != own:
                self.namespaces.found(inode, name, path)
        with netns.Netns("/proc/thread-self/ns/net", "") as space:
            with contextlib.ExitStack() as stack:
                most = min(_PROBED_MAX, self.namespaces.capacity // _PROBE_DESCRIPTORS)
                probed = self.namespaces.queued_of_ours(most)
                reasons = self._source_opener.prepare([space, *[stack.enter_context(other) for other in probed]], probe)
            self.namespaces.monitor(space, OURS, report_existing=False, needed=True)
        self.namespaces.add_ours(report_existing=False)
        while self.namespaces.add_next_of_users(report_existing=False):
            pass
        more = len(reasons) - _REASONS_MAX
        return (*reasons[:_REASONS_MAX], *((f"and {more} more network namespaces like these",) if more > 0 else ()))

    def start(self, drop_rights=None) -> None:
        """Follow namespaces in a thread until stop(). The thread calls drop_rights() first, if given."""
        self._finished.acquire()
        self.thread = start_new_thread(self._run, (drop_rights,))

    def stop(self) -> None:
        """Have the thread end soon. Any thread may call this."""
        self._stopping = True
        self._finder.stop()
        self._wakeup.set()

    def close(self) -> None:
        """Wait for the thread to end and close the descriptors; a forked child only closes them. Twice is harmless."""
        if self._fork_guard and self.thread is not None:
            self._finished.acquire()
            self._finished.release()
        self._finder.close()
        self._wakeup.close()

    def _run(self, drop_rights):
        try:
            if drop_rights is not None:
                drop_rights()
            poll = select.poll()
            poll.register(self._wakeup, select.POLLIN)
            while not self._stopping:
                self._tick()
                poll.poll(_TICK_MS)
        except BaseException as error:
            self._notices.add(f"network namespaces are not followed any more: {error}")
        finally:
            self._finished.release()

    def _tick(self):
        now = time.monotonic()
        self.namespaces.collect()
        for inode, (name, path) in self._finder.recent().items():
            self.namespaces.found(inode, name, path)
        if now >= self._chores_due:
            self._chores_due = now + _CHORES_S
            self._chores(now)
        self.namespaces.add_ours()
        if time.monotonic() >= self._users_due:
            began = time.thread_time()
            self.namespaces.add_next_of_users()
            self._users_due = time.monotonic() + _USERS_FACTOR * (time.thread_time() - began)

    def _chores(self, now):
        if self._source_opener.tracking is not None:
            self._source_opener.tracking.check()
        if now >= self._census_due:
            began = time.thread_time()
            self._take_census()
            self._census_due = time.monotonic() + max(_CENSUS_S, _CENSUS_FACTOR * (time.thread_time() - began))

    def _take_census(self):
        """Look at all processes: old ones may have made or entered namespaces (unshare, setns), and some are gone."""
        found = self._finder.all()
        if not found:
            return
        gone = self.namespaces.inodes() - found.keys()
        # Only if two censuses missed it: a single one may miss a process that forks while its parent is looked at.
        for inode in gone & self._not_found:
            self.namespaces.gone(inode)
        self._not_found = gone - self._not_found
        self.namespaces.keep(found.keys())
        for inode, (name, path) in found.items():
            self.namespaces.found(inode, name, path)
