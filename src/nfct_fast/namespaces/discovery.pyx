"""Find the network namespaces of this host and follow their changes, in a thread of its own.

How long the kernel's answers take is up to users, who can make any number of namespaces and fill them. Therefore no
flow waits for them: the results are handed over as a namespace map, by an atomic exchange.
"""
cimport cython
from libc.stdint cimport int64_t, uint64_t
from sys_socket cimport POLLIN, poll, pollfd

from nfct_fast.kernel.clock cimport monotonic_ns
from nfct_fast.kernel.wakeup cimport Wakeup
from nfct_fast.namespaces.map_builder cimport build_map, connect_namespaces
from nfct_fast.namespaces.namespace_map cimport namespace_map_free, namespace_map_t
from nfct_fast.namespaces.opener cimport Opener
from nfct_fast.namespaces.watched_namespace cimport WatchedNamespace

import os
import select
import threading
import time

from nfct_fast.kernel import netns
from nfct_fast.namespaces.netns_finder import NamespaceFinder

cdef extern from * nogil:
    """
    #include <stdint.h>
    static inline void *nfct_swap(void **at, void *value) { return __atomic_exchange_n(at, value, __ATOMIC_ACQ_REL); }
    static inline void *nfct_peek(void **at) { return __atomic_load_n(at, __ATOMIC_RELAXED); }
    """
    void *nfct_swap(void **at, void *value)
    void *nfct_peek(void **at)

# After work that took t seconds of processor time, the next of its kind waits FACTOR * t.
cdef enum:
    OURS_FACTOR = 20            # reading one of our namespaces: takes 5 % of the time
    USERS_FACTOR = 50           # reading the namespaces of all users together: takes 2 %
    HEAVY_FACTOR = 400          # reading one namespace of a user: takes 0.25 %
    SEARCH_FACTOR = 50          # searching all processes: takes 2 %
    DEFER_TTLS = 10             # a namespace that was left out is not entered again for this many times `ttl`
    OUR_WEIGHT = 4              # when one has to be removed, this many namespaces of ours count like one of a user
    MAX_NEW = 64                # most namespaces entered in one search


@cython.final
@cython.auto_pickle(False)
cdef class Discovery:
    """A watch on the namespaces of this host that publishes maps of them. Before start() it works only within round().

    Args:
        limit: Most namespaces besides the monitored ones; each takes five file descriptors.
        ttl: Least seconds between two searches.
        proc: Where /proc is mounted.
        diag: Whether to open a sock_diag socket in each namespace.
        opener: The Opener of sockets in other namespaces.
    """

    def __cinit__(self, *, int limit, double ttl, str proc, bint diag, Opener opener not None):
        self.monitored_fd = -1
        self.limit, self.ttl, self.diag, self.opener = limit, ttl, diag, opener
        self.finder = NamespaceFinder(proc)
        self.namespaces, self.monitored, self.skipped, self.deferred = {}, [], set(), {}
        self.search_due = self.users_due = self.checked_at = float("-inf")
        self.lock = threading.Lock()
        self.poll, self.monitored_poll = select.epoll(), select.epoll()
        self.monitored_fd = self.monitored_poll.fileno()
        self.wake, self.done = Wakeup(), Wakeup()
        self.poll.register(self.wake, select.EPOLLIN)
        self.pid = os.getpid()

    def __dealloc__(self):
        namespace_map_free(self.new_map)

    def start(self, drop_rights=None):
        """Run in a thread until stop(). The thread calls drop_rights() first, if given."""
        self.thread = threading.Thread(target=self._run, name="nfct-discovery", args=(drop_rights,), daemon=True)
        self.thread.start()

    def stop(self):
        """End the thread and close all namespaces; a second call does nothing. A forked child only closes them."""
        self.stopping = True
        self.finder.stop()
        if self.thread is not None and self.pid == os.getpid():
            self.wake.notify()
            if threading.current_thread() is not self.thread:
                self.thread.join()
        self.thread = None
        self.namespaces, self.monitored = {}, []
        namespace_map_free(self.take())
        self.poll.close()
        self.monitored_poll.close()
        self.finder.close()
        self.wake.close()
        self.done.close()

    def _run(self, drop_rights):
        try:
            if drop_rights is not None:
                drop_rights()
            while not self.stopping:
                self.round(True, self._idle())
        except BaseException as error:
            self.failure = error

    def _idle(self):
        """Return the seconds until the next task that no descriptor announces."""
        now = time.monotonic()
        times = [self.search_due] if self.search_wanted else [self.checked_at + self.ttl]
        for space in self.namespaces.values():
            if (<WatchedNamespace>space).changed or (<WatchedNamespace>space).too_large:
                times.append(max((<WatchedNamespace>space).due, self.users_due if space.uid is not None else 0.0))
        return max(0.0, min([1.0] + [when - now for when in times]))

    def monitor(self, added not None) -> int:
        """Add a Netns to the monitored namespaces and return its number. The thread enters it for a moment. OSError."""
        with self.lock:
            space = self.namespaces.get(added.inode)
            if space is None:
                space = WatchedNamespace(added, self.diag, self.opener)
                self._add(space)
            if not (<WatchedNamespace>space).monitored:
                number = self.monitored.index(None) if None in self.monitored else len(self.monitored)
                self.monitored[number:number + 1] = [space]
                (<WatchedNamespace>space).monitored = True
                (<WatchedNamespace>space).number = number
                if space.uid is None:
                    self.monitored_poll.register(space.fileno(), select.EPOLLIN)
            self._publish()
            return (<WatchedNamespace>space).number

    def stop_monitoring(self, int number) -> None:
        """Remove a namespace from the monitored ones; its number may be reused."""
        with self.lock:
            space = self.monitored[number]
            if space is not None:
                self.monitored[number] = None
                self._remove(space)
                self._publish()

    def look(self) -> None:
        """Have the next round search for namespaces."""
        self.search_wanted = True

    def round(self, bint search, double timeout=0.0) -> bool:
        """Wait for changes and publish a map that has them.

        Args:
            search: Whether to search for new namespaces as well, if there is reason to and the last search was long
                enough ago.
            timeout: Seconds to wait for a change.

        Returns:
            Whether it searched.

        Raises:
            RuntimeError: The thread cannot return from another namespace.
        """
        searched = False
        events = self.poll.poll(timeout)
        if self.stopping:
            return False
        with self.lock:
            requested = self.requested
            began = time.monotonic()
            for fd, _ in events:
                if fd == self.wake.fd:
                    self.wake.drain()
            self._mark_changed({fd for fd, _ in events})
            self._read(began)
            if began >= self.checked_at + self.ttl:
                self.checked_at = began
                if not all([space.is_there() for space in self.namespaces.values()]):
                    self.search_wanted = True
            if search and self.search_wanted and began >= self.search_due:
                searched = True
                self._search()
            self._connect()
            if self.changed:
                self._publish()
            self.is_stale = False
            self.completed = requested
            self.done.notify()
        return searched

    def _mark_changed(self, fds):
        for space in self.namespaces.values():
            if space.fileno() in fds:
                (<WatchedNamespace>space).changed = True

    def _read(self, now):
        """Read the namespaces that have changed, ours first."""
        cdef WatchedNamespace space
        users = [space for space in self.namespaces.values()
                 if space.uid is not None and (space.changed or space.too_large)]
        for space in self.namespaces.values():
            if space.uid is None and space.changed and space.due <= now:
                self.is_stale = self.is_stale or space.monitored
                self._reread(space, OURS_FACTOR)
        if self.users_due > now:
            return
        spent = time.thread_time()
        for space in users:
            if space.due <= now:
                self._reread(space, HEAVY_FACTOR)
        self.users_due = time.monotonic() + USERS_FACTOR * (time.thread_time() - spent)

    def _reread(self, WatchedNamespace space, int factor):
        spent = time.thread_time()
        fd = space.fileno()
        was_too_large = space.too_large
        if space.read():
            self.changed = True
            # If a link of our namespace leads into one that is not known yet, search for that.
            if space.uid is None and space.linked_nsids() - space.nsids.keys():
                self.search_wanted = True
        spent = time.thread_time() - spent
        space.due = time.monotonic() + (DEFER_TTLS * self.ttl if space.too_large else factor * spent)
        if space.too_large:
            self.skipped.add(space.inode)
        else:
            self.skipped.discard(space.inode)
            if was_too_large:
                self.poll.register(space.fileno(), select.EPOLLIN | select.EPOLLONESHOT)
            elif fd >= 0:
                self.poll.modify(fd, select.EPOLLIN | select.EPOLLONESHOT)

    def _add(self, WatchedNamespace space):
        self.namespaces[space.inode] = space
        if space.fileno() >= 0:
            self.poll.register(space.fileno(), select.EPOLLIN | select.EPOLLONESHOT)
        if space.too_large:
            space.due = time.monotonic() + DEFER_TTLS * self.ttl
            self.skipped.add(space.inode)
        self.changed = True

    def _remove(self, WatchedNamespace space):
        # No other descriptor refers to its sockets, so closing them removes them from both epolls.
        del self.namespaces[space.inode]
        self.closed_spoofed += space.spoofed
        for other in self.namespaces.values():
            for number in [number for number, inode in other.nsids.items() if inode == space.inode]:
                del other.nsids[number]
        self.changed = True

    def _search(self):
        began, spent, skipped = time.monotonic(), time.thread_time(), len(self.skipped)
        found = self.finder.all()
        if not found:
            return
        self.search_wanted = False
        for inode, space in list(self.namespaces.items()):
            if inode in found:
                space.set_path(*found[inode])
            elif not (<WatchedNamespace>space).monitored:
                self._remove(space)
        self.skipped &= self.namespaces.keys()
        self.deferred = {inode: until for inode, until in self.deferred.items() if inode in found and until > began}
        new = 0
        for inode, (name, path) in found.items():
            if inode in self.namespaces:
                continue
            if inode in self.deferred or new == MAX_NEW:
                self.skipped.add(inode)
                continue
            if self._try_add(inode, name, path):
                new += 1
                # Users' namespaces may be linked to the one just added.
                self._connect()
        self.search_wanted = self.search_wanted or new == MAX_NEW
        self.changed = self.changed or len(self.skipped) != skipped
        # A router sees new unknown addresses all the time: spend at most 2 % of the time on searches (3 us per
        # process).
        spent = time.thread_time() - spent
        self.search_due = time.monotonic() + max(self.ttl, min(SEARCH_FACTOR * spent, SEARCH_FACTOR * self.ttl))

    def _try_add(self, inode, name, path):
        """Enter a namespace and watch it, a user's only if it is linked to a known one. Return whether it did."""
        try:
            with netns.Netns(path, name) as space:
                if space.inode != inode:
                    return False
                if netns.owner(space.fileno())[0] is not None and not self._is_linked(space.fileno()):
                    return False
                self._add(WatchedNamespace(space, self.diag, self.opener))
        except OSError:
            self.skipped.add(inode)
            return False
        if len(self.namespaces) - len(self.monitored) + self.monitored.count(None) > self.limit:
            self._connect()
            surplus = self._least_needed()
            self._remove(surplus)
            self.skipped.add(surplus.inode)
            self.deferred[surplus.inode] = time.monotonic() + DEFER_TTLS * self.ttl
        return True

    def _is_linked(self, int fd):
        for space in self.namespaces.values():
            if space.linked_nsids() - space.nsids.keys() and space.nsid_of(fd) is not None:
                return True
        return False

    cdef WatchedNamespace _least_needed(self):
        """Choose a namespace to remove: one not connected to a monitored one, else an idle one of the largest owner."""
        cdef WatchedNamespace space
        reachable = set()
        for space in self.monitored:
            if space is not None:
                reachable.add(space.connected_group)
        uids, users = {}, {}
        candidates = [space for space in self.namespaces.values() if not space.monitored]
        for space in candidates:
            if space.connected_group in reachable:
                uids[space.uid] = uids.get(space.uid, 0) + (1 / OUR_WEIGHT if space.uid is None else 1)
                users[space.userns] = users.get(space.userns, 0) + 1
        now = monotonic_ns()
        ranks = []
        for space in candidates:
            idle = now - <int64_t>space.namespace.used_at
            ranks.append((space.connected_group not in reachable, uids.get(space.uid, 0),
                          users.get(space.userns, 0) if space.uid is not None else 0, idle, space.inode))
        return self.namespaces[max(ranks)[4]]

    def _connect(self):
        if self.changed:
            connect_namespaces(self.namespaces, self.monitored)

    cdef int _publish(self) except -1:
        """Make a map of everything known. It replaces the previous one if that has not been taken yet."""
        cdef namespace_map_t *new_map
        self._connect()
        new_map = build_map(self.namespaces, self.monitored, len(self.skipped))
        self.changed = False
        namespace_map_free(<namespace_map_t *>nfct_swap(<void **>&self.new_map, new_map))
        return 0

    cdef namespace_map_t *take(self) noexcept nogil:
        # Called for each flow to an address outside this host, and there is rarely a new map: a load costs less than an
        # exchange.
        if nfct_peek(<void **>&self.new_map) == NULL:
            return NULL
        return <namespace_map_t *>nfct_swap(<void **>&self.new_map, NULL)

    cdef bint is_behind(self) noexcept nogil:
        cdef pollfd ready
        ready.fd, ready.events, ready.revents = self.monitored_fd, POLLIN, 0
        return self.is_stale or poll(&ready, 1, 0) > 0

    cdef bint run_round(self, bint search, int timeout_ms) noexcept nogil:
        cdef uint64_t number
        cdef int64_t until = monotonic_ns() + timeout_ms * <int64_t>1_000_000
        cdef int64_t left
        cdef pollfd ready
        if search:
            self.search_wanted = True
        number = self.requested + 1
        self.requested = number
        self.wake.notify()
        while self.completed < number:
            left = (until - monotonic_ns()) // 1_000_000
            if left <= 0:
                return False
            ready.fd, ready.events, ready.revents = self.done.fd, POLLIN, 0
            poll(&ready, 1, <int>left)
            self.done.drain()
        return True

    @property
    def spoofed(self) -> int:
        """Datagrams ignored because a process sent them, not the kernel."""
        return self.closed_spoofed + sum([space.spoofed for space in list(self.namespaces.values())])
