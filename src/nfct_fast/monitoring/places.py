"""The namespaces that are heard, those that wait for their turn, and those for which there is no place."""
import collections
import contextlib
import errno
import time

from nfct_fast.kernel import netns
from nfct_fast.monitoring.shares import OURS, owner

_ASIDE_S = 10           # for which what found no place is not tried again
_QUEUE = 256            # namespaces of one user that wait for their turn


class _Heard:
    """A namespace that has a place."""

    def __init__(self, owner, source):
        self.owner, self.source = owner, source
        self._born = time.monotonic_ns()

    @property
    def active(self):
        """When it last had traffic, or came; monotonic ns."""
        return max(self._born, self.source.last_event_at)


class MonitoredNamespaces:
    """Hears namespaces by a Listener, as Shares allow; news: where it is told that there is no place for some.

    One thread at a time, but for reading the counts. Nothing here looks for namespaces.
    """

    def __init__(self, listener, shares, news):
        self._listener, self._shares, self._news = listener, shares, news
        self._heard = {}        # {inode: _Heard}
        self._leaving = {}      # the same: the reader has not let them go yet
        self._ours = {}         # {inode: (name, path)}: they wait for a place
        self._queues = collections.OrderedDict()    # {owner: {inode: (name, path)}}: users' wait for their turn, too
        self._aside = {}        # {inode: (whose, monotonic s until which it is not tried again)}
        self._unheard = set()   # those that were counted as such, and are still there
        self._told = False
        self.came = self.went = self.unheard = 0

    @property
    def most(self) -> int:
        """How many can be heard at once."""
        return self._shares.places

    def taken(self) -> set:
        """Inodes of those that are heard."""
        return set(self._heard)

    def meet(self, inode, name, path) -> None:
        """Such a namespace is there."""
        if (inode in self._heard or inode in self._leaving or inode in self._ours
                or any(inode in queue for queue in self._queues.values())):
            return
        try:
            with netns.Netns(path, name) as space:
                if space.inode == inode:
                    whose = owner(*netns.owner(space.fileno()))
                    # The number of one that is gone is given again at once, perhaps to somebody else's.
                    aside, until = self._aside.get(inode, (None, 0))
                    if aside != whose or until < time.monotonic():
                        self.queue(inode, name, path, whose)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno != errno.ENOTTY:     # a name that has no namespace yet
                self._put_aside(inode, None, error)

    def queue(self, inode, name, path, whose) -> None:
        """Have it wait for its turn."""
        queue = self._ours if whose is OURS else self._queues.setdefault(whose, {})
        if whose is not OURS and len(queue) >= _QUEUE:
            self._put_aside(inode, whose)
        else:
            queue[inode] = name, path

    def of_ours(self, count):
        """The first of ours that wait, `count` at most, as open Netns."""
        for inode, (name, path) in list(self._ours.items())[:count]:
            with contextlib.suppress(OSError):
                space = netns.Netns(path, name)
                if space.inode == inode:
                    yield space

    def next_of_ours(self, greet=True) -> None:
        """All of ours that wait."""
        waiting, self._ours = self._ours, {}
        for inode, (name, path) in waiting.items():
            self._try(inode, name, path, OURS, greet)

    def next_of_users(self, greet=True) -> bool:
        """One of the user whose turn it is; whether there was any."""
        if not self._queues:
            return False
        whose, queue = self._queues.popitem(last=False)
        inode = next(iter(queue))
        name, path = queue.pop(inode)
        if queue:
            self._queues[whose] = queue
        self._try(inode, name, path, whose, greet)
        return True

    def _try(self, inode, name, path, whose, greet=True):
        try:
            with netns.Netns(path, name) as space:
                if space.inode == inode:
                    self.hear(space, whose, greet)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._put_aside(inode, whose, error)

    def hear(self, space, whose, greet=True, needed=False) -> None:
        """Hear an open Netns, if there is a place for it. greet: and tell what is in its table. needed: OSError if it cannot be."""
        place = self._shares.place(whose, list(self._heard.values()), time.monotonic_ns())
        if place is False:
            self._put_aside(space.inode, whose)
            return
        if place is not True:
            inode = next(inode for inode, heard in self._heard.items() if heard is place)
            self._retire(inode)
            self._put_aside(inode, place.owner)
        # Those on their way out still have theirs.
        if len(self._heard) + len(self._leaving) >= self._shares.places:
            self.queue(space.inode, space.name, space.path, whose)
            return
        try:
            source = self._listener.open(space, *self._shares.memory(whose), greet)
        except OSError as error:
            if needed:
                raise
            self._put_aside(space.inode, whose, error)
            return
        self._heard[space.inode] = _Heard(whose, source)
        self.came += greet

    def _put_aside(self, inode, whose, error=None):
        """It is not heard for now, which is counted, and told once. error: why; there is no place for it."""
        self._aside[inode] = whose, time.monotonic() + _ASIDE_S
        if inode in self._unheard:
            return
        self._unheard.add(inode)
        self.unheard += 1
        if not self._told:
            self._told = True
            why = "there are too many" if error is None else error.strerror or str(error)
            if error is not None and error.errno in (errno.EMFILE, errno.ENFILE):
                why = "too many open files; allow more (ulimit -n, LimitNOFILE= in a unit)"
            self._news.tell(f"some network namespaces are not heard: {why}; {self.most} can be at once, a fourth of these of one "
                            "user, and those with traffic stay (--debug tells at the end how many were not)")

    def end(self, inode) -> None:
        """It is not there any more."""
        if inode in self._heard:
            self._retire(inode)
            self.went += 1

    def _retire(self, inode):
        # What it still has is read, by the reader.
        heard = self._leaving[inode] = self._heard.pop(inode)
        self._listener.retire(heard.source)

    def collect(self) -> None:
        """Free what the reader has let go."""
        if self._leaving:
            self._listener.collect()
            self._leaving = {inode: heard for inode, heard in self._leaving.items() if not heard.source.closed}

    def keep(self, inodes) -> None:
        """These are all there are: forget what is known of others, but of those that are heard."""
        self._aside = {inode: aside for inode, aside in self._aside.items() if inode in inodes}
        self._unheard &= inodes
        self._shares.forget({heard.owner for heard in (*self._heard.values(), *self._leaving.values())} | self._queues.keys())
