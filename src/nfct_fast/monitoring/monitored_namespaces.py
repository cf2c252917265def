"""The monitored namespaces, those that are queued, and those that are left out."""

import collections
import contextlib
import errno
import time

from nfct_fast.kernel import netns
from nfct_fast.monitoring.quotas import OURS, owner

_RETRY_S = 10  # seconds after which a namespace that was left out is tried again
_QUEUE_MAX = 256  # most queued namespaces of one user


class _Monitored:
    """A monitored namespace."""

    def __init__(self, owner, source):
        self.owner, self.source = owner, source
        self._added_at = time.monotonic_ns()

    @property
    def active(self):
        """When it last had traffic or was added, CLOCK_MONOTONIC ns."""
        return max(self._added_at, self.source.last_event_at)


class MonitoredNamespaces:
    """The set of monitored namespaces, whose sources it opens and retires as the quotas allow. Does not look for any.

    One thread at a time, except for reading the counts.

    Args:
        source_opener: The SourceOpener that opens sources in namespaces.
        quotas: The Quotas that say whose namespaces are monitored.
        notices: The Notices to which the report goes that some namespaces are not monitored.
    """

    def __init__(self, source_opener, quotas, notices):
        self._source_opener, self._quotas, self._notices = source_opener, quotas, notices
        self._monitored = {}  # {inode: _Monitored}
        self._retiring = {}  # {inode: _Monitored}: the reader has not closed their sources yet
        self._our_queue = {}  # {inode: (name, path)}: namespaces of ours that are to be added
        self._user_queues = collections.OrderedDict()  # {owner: {inode: (name, path)}}: users' ones, next owner first
        self._deferred = {}  # {inode: (owner, monotonic s until which it is not tried again)}
        self._unmonitored = set()  # inodes of existing namespaces that were counted as not monitored
        self._reported = False  # the notice that some namespaces are not monitored was given
        self.added = self.removed = self.unmonitored = 0

    @property
    def capacity(self) -> int:
        """The most namespaces that can be monitored at once."""
        return self._quotas.capacity

    def inodes(self) -> set:
        """The inodes of the monitored namespaces."""
        return set(self._monitored)

    def found(self, inode, name, path) -> None:
        """Queue a namespace that exists, unless it is monitored, queued or deferred."""
        if (
            inode in self._monitored
            or inode in self._retiring
            or inode in self._our_queue
            or any(inode in queue for queue in self._user_queues.values())
        ):
            return
        try:
            with netns.Netns(path, name) as space:
                if space.inode == inode:
                    whose = owner(*netns.owner(space.fileno()))
                    # The kernel immediately reuses the inode of a namespace that is gone, perhaps for another owner.
                    deferred, until = self._deferred.get(inode, (None, 0))
                    if deferred != whose or until < time.monotonic():
                        self.queue(inode, name, path, whose)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno != errno.ENOTTY:  # a name without a namespace yet
                self._defer(inode, None, error)

    def queue(self, inode, name, path, whose) -> None:
        """Queue a namespace to be monitored later."""
        queue = self._our_queue if whose is OURS else self._user_queues.setdefault(whose, {})
        if whose is not OURS and len(queue) >= _QUEUE_MAX:
            self._defer(inode, whose)
        else:
            queue[inode] = name, path

    def queued_of_ours(self, count):
        """Open the first `count` of our queued namespaces, as Netns."""
        for inode, (name, path) in list(self._our_queue.items())[:count]:
            with contextlib.suppress(OSError):
                space = netns.Netns(path, name)
                if space.inode == inode:
                    yield space

    def add_ours(self, report_existing=True) -> None:
        """Monitor all of our queued namespaces. report_existing: see monitor()."""
        waiting, self._our_queue = self._our_queue, {}
        for inode, (name, path) in waiting.items():
            self._try(inode, name, path, OURS, report_existing)

    def add_next_of_users(self, report_existing=True) -> bool:
        """Monitor one namespace of the user whose turn it is. Return whether there was one."""
        if not self._user_queues:
            return False
        whose, queue = self._user_queues.popitem(last=False)
        inode = next(iter(queue))
        name, path = queue.pop(inode)
        if queue:
            self._user_queues[whose] = queue
        self._try(inode, name, path, whose, report_existing)
        return True

    def _try(self, inode, name, path, whose, report_existing=True):
        try:
            with netns.Netns(path, name) as space:
                if space.inode == inode:
                    self.monitor(space, whose, report_existing)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._defer(inode, whose, error)

    def monitor(self, space, whose, report_existing=True, needed=False) -> None:
        """Open a source in a namespace, if its owner's quota allows.

        Args:
            space: The namespace, an open Netns.
            whose: Its owner.
            report_existing: Whether the namespace appeared after the start: it is then counted, and the flows in its
                table are reported.
            needed: Whether to raise OSError if it cannot be monitored.
        """
        admitted = self._quotas.admit(whose, list(self._monitored.values()), time.monotonic_ns())
        if admitted is False:
            self._defer(space.inode, whose)
            return
        if admitted is not True:
            inode = next(inode for inode, one in self._monitored.items() if one is admitted)
            self._retire(inode)
            self._defer(inode, admitted.owner)
        # Retiring ones still hold their resources.
        if len(self._monitored) + len(self._retiring) >= self._quotas.capacity:
            self.queue(space.inode, space.name, space.path, whose)
            return
        try:
            source = self._source_opener.open(space, *self._quotas.memory(whose), report_existing)
        except OSError as error:
            if needed:
                raise
            self._defer(space.inode, whose, error)
            return
        self._monitored[space.inode] = _Monitored(whose, source)
        self.added += report_existing

    def _defer(self, inode, whose, error=None):
        """Leave a namespace out for now, count it, and report the first one. error: None if the quota is used up."""
        self._deferred[inode] = whose, time.monotonic() + _RETRY_S
        if inode in self._unmonitored:
            return
        self._unmonitored.add(inode)
        self.unmonitored += 1
        if not self._reported:
            self._reported = True
            why = "there are too many" if error is None else error.strerror or str(error)
            if error is not None and error.errno in (errno.EMFILE, errno.ENFILE):
                why = "too many open files; allow more (ulimit -n, LimitNOFILE= in a unit)"
            self._notices.add(
                f"some network namespaces are not monitored: {why}; at most {self.capacity} can be monitored at once, "
                "a quarter of these for one user, and those with traffic are kept "
                "(--debug reports at the end how many were not monitored)"
            )

    def gone(self, inode) -> None:
        """Retire a namespace that no longer exists."""
        if inode in self._monitored:
            self._retire(inode)
            self.removed += 1

    def _retire(self, inode):
        # The reader reads what is left, and closes the source.
        one = self._retiring[inode] = self._monitored.pop(inode)
        self._source_opener.retire(one.source)

    def collect(self) -> None:
        """Free the sources that the reader has closed."""
        if self._retiring:
            self._source_opener.collect()
            self._retiring = {inode: one for inode, one in self._retiring.items() if not one.source.closed}

    def keep(self, inodes) -> None:
        """Forget namespaces that no longer exist. inodes: of all that do."""
        self._deferred = {inode: deferred for inode, deferred in self._deferred.items() if inode in inodes}
        self._unmonitored &= inodes
        self._quotas.forget(
            {one.owner for one in (*self._monitored.values(), *self._retiring.values())} | self._user_queues.keys()
        )
