"""Listens in all network namespaces, as they come and go, in a thread of its own.

To find them takes a look at processes, and to listen in one some milliseconds within it: neither is on the way of a flow. The
flows that a namespace had before it was found are told from its table.
"""
import contextlib
import resource
import select
import time
from _thread import allocate_lock, get_ident, start_new_thread

from nfct_fast.kernel import netns
from nfct_fast.kernel.fork_guard import ForkGuard
from nfct_fast.namespaces.netns_finder import NamespaceFinder
from nfct_fast.monitoring.places import MonitoredNamespaces
from nfct_fast.monitoring.shares import OURS, Shares
from nfct_fast.kernel.wakeup import Wakeup

_TICK_MS = 50
_CHORES_S = 1.0
_CENSUS_S, _CENSUS_FACTOR = 1.0, 50     # between two looks at all processes, which take 2 % of the time at most
_USERS_FACTOR = 20      # of the time that a user's namespace takes, until it is for the next: 5 % for all of theirs
_PROBED = 256           # namespaces that are tried at the start whether events can come
_PROBES = 5             # descriptors that takes of each
_SAID = 32              # and of which it is said singly that they cannot
_DESCRIPTORS = 7        # of each: one for events, one for the table, five for the looking up of owners;
_TRACKED_DESCRIPTORS = 6        # and where tracking is turned on


def _places(most, tracking):
    """How many namespaces there are descriptors for, of which a third is left to others."""
    soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    each = _DESCRIPTORS + (_TRACKED_DESCRIPTORS if tracking else 0)
    return most if soft_limit == resource.RLIM_INFINITY else max(1, min(most, (soft_limit - soft_limit // 3) // each))


class Follower:
    """Listens by a Listener in all namespaces there are. rcvbuf: bytes of the own one's receive buffer at first; memory: bytes that
    all together may ask for; news: where it is told that some are not heard. begin(), start(), stop() and close() in this order."""

    def __init__(self, listener, rcvbuf, memory, news):
        self._listener = listener
        self._news = news
        shares = Shares(_places(listener.capacity, listener.tracking), memory, rcvbuf)
        self.places = MonitoredNamespaces(listener, shares, news)
        self._missing = set()       # not found when all processes were last looked at
        self._users_due = self._census_due = self._chores_due = 0.0
        self._stopping = False
        self._mark = ForkGuard()
        self._lookout = NamespaceFinder()
        self._finished = allocate_lock()
        self.thread = None
        self._wakeup = Wakeup()

    def begin(self, probe) -> tuple[str, ...]:
        """Listen in those there are: why events may never come from some of ours. OSError if the own one cannot be heard."""
        own = netns.current()
        for inode, (name, path) in sorted(self._lookout.all().items()):
            if inode != own:
                self.places.meet(inode, name, path)
        with netns.Netns("/proc/thread-self/ns/net", "") as space:
            with contextlib.ExitStack() as stack:
                probed = self.places.of_ours(min(_PROBED, self.places.most // _PROBES))
                silence = self._listener.prepare([space, *[stack.enter_context(other) for other in probed]], probe)
            self.places.hear(space, OURS, greet=False, needed=True)
        self.places.next_of_ours(greet=False)
        while self.places.next_of_users(greet=False):
            pass
        more = len(silence) - _SAID
        return (*silence[:_SAID], *((f"and {more} more network namespaces like these",) if more > 0 else ()))

    def start(self, settled=None) -> None:
        """Follow them, in a thread, until stop(). settled: called in it before, to give up privileges."""
        self._finished.acquire()
        self.thread = start_new_thread(self._run, (settled,))

    def stop(self) -> None:
        """Have the thread end soon; from any thread."""
        self._stopping = True
        self._lookout.stop()
        self._wakeup.set()

    def close(self) -> None:
        """Close the descriptors, once the thread has ended; closing twice is harmless. In a process that has it by fork only that."""
        if self._mark and self.thread is not None:
            self._finished.acquire()
            self._finished.release()
        self._lookout.close()
        self._wakeup.close()

    def _run(self, settled):
        try:
            if settled is not None:
                settled()
            poll = select.poll()
            poll.register(self._wakeup, select.POLLIN)
            while not self._stopping:
                self._tick()
                poll.poll(_TICK_MS)
        except BaseException as error:
            self._news.tell(f"network namespaces are not followed any more: {error}")
        finally:
            self._finished.release()

    def _tick(self):
        now = time.monotonic()
        self.places.collect()
        for inode, (name, path) in self._lookout.recent().items():
            self.places.meet(inode, name, path)
        if now >= self._chores_due:
            self._chores_due = now + _CHORES_S
            self._chores(now)
        self.places.next_of_ours()
        if time.monotonic() >= self._users_due:
            began = time.thread_time()
            self.places.next_of_users()
            self._users_due = time.monotonic() + _USERS_FACTOR * (time.thread_time() - began)

    def _chores(self, now):
        if self._listener.tracking is not None:
            self._listener.tracking.check()
        if now >= self._census_due:
            began = time.thread_time()
            self._take_census()
            self._census_due = time.monotonic() + max(_CENSUS_S, _CENSUS_FACTOR * (time.thread_time() - began))

    def _take_census(self):
        """All there are: some may have come unseen, as by setns(2) or unshare(2) in old processes, and others have gone."""
        found = self._lookout.all()
        if not found:
            return
        gone = self.places.taken() - found.keys()
        # Twice, as a process that is forked while one is looked for the other may be missed.
        for inode in gone & self._missing:
            self.places.end(inode)
        self._missing = gone - self._missing
        self.places.keep(found.keys())
        for inode, (name, path) in found.items():
            self.places.meet(inode, name, path)
