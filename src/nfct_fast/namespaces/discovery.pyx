"""Finds the network namespaces of this host and follows them, in a thread of its own.

What is asked here of the kernel may take as long as a user likes: he decides how much there is in his namespaces, and
how many they are. So it is not on the way of a flow; what is found is handed over as an atlas.
"""
cimport cython
from libc.errno cimport errno
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc
from posix.unistd cimport close
from sys_socket cimport EFD_CLOEXEC, EFD_NONBLOCK, POLLIN, eventfd, eventfd_read, eventfd_write, poll, pollfd

from nfct_fast.namespaces.namespace_map cimport (
    PEER_NONE, PEER_UNKNOWN, namespace_map_finish, namespace_map_free, namespace_map_make, namespace_map_t,
    map_node_t, interface_t, routes_take,
)
from nfct_fast.namespaces.opener cimport Opener
from nfct_fast.namespaces.links cimport link_t
from nfct_fast.namespaces.namespace cimport namespace_take
from nfct_fast.kernel.clock cimport monotonic_ns
from nfct_fast.namespaces.watched_namespace cimport WatchedNamespace

import os
import select
import threading
import time

from nfct_fast.kernel import netns
from nfct_fast.namespaces.netns_finder import NamespaceFinder

cdef extern from * nogil:
    """
    static inline void *nfct_swap(void **at, void *value) { return __atomic_exchange_n(at, value, __ATOMIC_ACQ_REL); }
    static inline void *nfct_peek(void **at) { return __atomic_load_n(at, __ATOMIC_RELAXED); }
    static inline void nfct_store(unsigned long long *at, unsigned long long value) { __atomic_store_n(at, value, __ATOMIC_RELEASE); }
    static inline unsigned long long nfct_load(unsigned long long *at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
    """
    void *nfct_swap(void **at, void *value)
    void *nfct_peek(void **at)
    void nfct_store(uint64_t *at, uint64_t value)
    uint64_t nfct_load(uint64_t *at)

cdef enum:
    OURS_FACTOR = 20            # of the time a look at namespaces takes, until the next: 5 % for ours,
    USERS_FACTOR = 50          # 2 % for all others together,
    HEAVY_FACTOR = 400          # and a quarter of one for each of these
    SEARCH_FACTOR = 50
    DEFER_TTLS = 10             # for which what was left out is not looked at again
    OUR_WEIGHT = 4              # as many namespaces of ours as of four others
    MAX_NEW = 64               # that are entered in one search: then it is for the others' turn


@cython.final
@cython.auto_pickle(False)
cdef class Discovery:
    """limit: namespaces besides homes at most, five descriptors each; ttl: seconds between two searches; proc: where /proc
    is mounted; diag: open sock_diag sockets; door: enters namespaces.

    Without start() it does nothing but in round().
    """

    def __cinit__(self, *, int limit, double ttl, str proc, bint diag, Opener opener not None):
        self.monitored_fd = self.wake = self.done = -1
        self.limit, self.ttl, self.diag, self.opener = limit, ttl, diag, opener
        self.finder = NamespaceFinder(proc)
        self.namespaces, self.monitored, self.skipped, self.deferred = {}, [], set(), {}
        self.search_due = self.users_due = self.checked_at = float("-inf")
        self.lock = threading.Lock()
        self.poll, self.monitored_poll = select.epoll(), select.epoll()
        self.monitored_fd = self.monitored_poll.fileno()
        self.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        self.done = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.wake < 0 or self.done < 0:
            raise OSError(errno, os.strerror(errno), "eventfd")
        self.poll.register(self.wake, select.EPOLLIN)
        self.pid = os.getpid()

    def __dealloc__(self):
        namespace_map_free(self.new_map)
        self._close()

    cdef void _close(self) noexcept nogil:
        if self.wake >= 0:
            close(self.wake)
        if self.done >= 0:
            close(self.done)
        self.wake = self.done = -1

    def start(self, settled=None):
        """Run in a thread until stop(). settled: called in it before, to give up privileges."""
        self.thread = threading.Thread(target=self._run, name="nfct-discovery", args=(settled,), daemon=True)
        self.thread.start()

    def stop(self):
        """End the thread and let go of all namespaces; a second call does nothing. In a forked child only the latter."""
        self.stopping = True
        self.finder.stop()
        if self.thread is not None and self.pid == os.getpid():
            eventfd_write(self.wake, 1)
            if threading.current_thread() is not self.thread:
                self.thread.join()
        self.thread = None
        self.namespaces, self.monitored = {}, []
        namespace_map_free(self.take())
        self.poll.close()
        self.monitored_poll.close()
        self.finder.close()
        self._close()

    def _run(self, settled):
        try:
            if settled is not None:
                settled()
            while not self.stopping:
                self.round(True, self._idle())
        except BaseException as error:
            self.failure = error

    def _idle(self):
        """Seconds until something is to be done that nobody tells of."""
        now = time.monotonic()
        times = [self.search_due] if self.search_wanted else [self.checked_at + self.ttl]
        for space in self.namespaces.values():
            if (<WatchedNamespace>space).changed or (<WatchedNamespace>space).too_large:
                times.append(max((<WatchedNamespace>space).due, self.users_due if space.uid is not None else 0.0))
        return max(0.0, min([1.0] + [when - now for when in times]))

    def monitor(self, netns not None) -> int:
        """Take a Netns among those that are listened in; its number. Enters it for a moment. OSError."""
        with self.lock:
            space = self.namespaces.get(netns.inode)
            if space is None:
                space = WatchedNamespace(netns, self.diag, self.opener)
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
        """It is not listened in any more; its number may be given again."""
        with self.lock:
            space = self.monitored[number]
            if space is not None:
                self.monitored[number] = None
                self._remove(space)
                self._publish()

    def look(self) -> None:
        """Have the next round search for namespaces."""
        self.search_wanted = True

    def round(self, bint search, double patience=0.0) -> bool:
        """Take in what changed, within `patience` seconds; search: and look for new namespaces, if there is cause and time.

        Whether it searched. RuntimeError if the thread cannot come back from another namespace.
        """
        searched = False
        events = self.poll.poll(patience)
        if self.stopping:
            return False
        with self.lock:
            asked = nfct_load(&self.requested)
            began = time.monotonic()
            for fd, _ in events:
                if fd == self.wake:
                    self._drain()
            self._mark_changed({fd for fd, _ in events})
            self._read(began)
            if began >= self.checked_at + self.ttl:
                self.checked_at = began
                self.search_wanted = self.search_wanted or not all([space.is_there() for space in self.namespaces.values()])
            if search and self.search_wanted and began >= self.search_due:
                searched = True
                self._search()
            self._connect()
            if self.changed:
                self._publish()
            self.is_stale = False
            nfct_store(&self.completed, asked)
            eventfd_write(self.done, 1)
        return searched

    def _drain(self):
        cdef uint64_t count
        eventfd_read(self.wake, &count)

    def _mark_changed(self, fds):
        for space in self.namespaces.values():
            if space.fileno() in fds:
                (<WatchedNamespace>space).changed = True

    def _read(self, now):
        """The changes that were heard of, of ours first."""
        cdef WatchedNamespace space
        theirs = [space for space in self.namespaces.values() if space.uid is not None and (space.changed or space.too_large)]
        for space in self.namespaces.values():
            if space.uid is None and space.changed and space.due <= now:
                self.is_stale = self.is_stale or space.monitored
                self._reread(space, OURS_FACTOR)
        if self.users_due > now:
            return
        began = time.monotonic()
        for space in theirs:
            if space.due <= now:
                self._reread(space, HEAVY_FACTOR)
        self.users_due = time.monotonic()
        self.users_due += USERS_FACTOR * (self.users_due - began)

    def _reread(self, WatchedNamespace space, int factor):
        began = time.monotonic()
        fd = space.fileno()
        refused = space.too_large
        if space.read():
            self.changed = True
            # A link that leads to where nobody was yet.
            if space.uid is None and space.linked_nsids() - space.nsids.keys():
                self.search_wanted = True
        now = time.monotonic()
        space.due = now + (DEFER_TTLS * self.ttl if space.too_large else factor * (now - began))
        if space.too_large:
            self.skipped.add(space.inode)
        else:
            self.skipped.discard(space.inode)
            if refused:
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
        # Closing its sockets takes them out of the polls: they have no other descriptor.
        del self.namespaces[space.inode]
        self.closed_foreign += space.foreign
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
                # Others may stand behind it.
                self._connect()
        self.search_wanted = self.search_wanted or new == MAX_NEW
        self.changed = self.changed or len(self.skipped) != skipped
        # On a router unknown addresses never end: spend 2 % on them at most (3 us a process for each search).
        spent = time.thread_time() - spent
        self.search_due = time.monotonic() + max(self.ttl, min(SEARCH_FACTOR * spent, SEARCH_FACTOR * self.ttl))

    def _try_add(self, inode, name, path):
        """Whether it was entered. Those of users count only if they are linked to one that is known."""
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
            worst = self._least_needed()
            self._remove(worst)
            self.skipped.add(worst.inode)
            self.deferred[worst.inode] = time.monotonic() + DEFER_TTLS * self.ttl
        return True

    def _is_linked(self, int fd):
        for space in self.namespaces.values():
            if space.linked_nsids() - space.nsids.keys() and space.nsid_of(fd) is not None:
                return True
        return False

    cdef WatchedNamespace _least_needed(self):
        """The one to be given up: without a way to a home, then of who has most; but those with traffic stay."""
        cdef WatchedNamespace space
        near = set()
        for space in self.monitored:
            if space is not None:
                near.add(space.connected_group)
        uids, users = {}, {}
        members = [space for space in self.namespaces.values() if not space.monitored]
        for space in members:
            if space.connected_group in near:
                uids[space.uid] = uids.get(space.uid, 0) + (1 / OUR_WEIGHT if space.uid is None else 1)
                users[space.userns] = users.get(space.userns, 0) + 1
        now = monotonic_ns()
        ranks = []
        for space in members:
            far = space.connected_group not in near
            idle = now - <int64_t>space.namespace.used_at
            ranks.append((far, uids.get(space.uid, 0), users.get(space.userns, 0) if space.uid is not None else 0, idle,
                          space.inode))
        return self.namespaces[max(ranks)[4]]

    def _connect(self):
        """Whom the numbers mean that links lead to, and what is connected with what."""
        cdef WatchedNamespace space, other
        if not self.changed:
            return
        for space in self.namespaces.values():
            unknown = space.linked_nsids() - space.nsids.keys()
            for other in [*[home for home in self.monitored if home is not None], *self.namespaces.values()]:
                if not unknown:
                    break
                if other is not space and other.inode not in space.nsids.values():
                    number = space.nsid_of(other.namespace.ns)
                    if number is not None:
                        space.nsids[number] = other.inode
                        unknown.discard(number)
        realm = 0
        for space in self.namespaces.values():
            space.connected_group = 0
        neighbours = {}
        for space in self.namespaces.values():
            for number in space.linked_nsids():
                if number in space.nsids:
                    neighbours.setdefault(space.inode, set()).add(space.nsids[number])
                    neighbours.setdefault(space.nsids[number], set()).add(space.inode)
        for space in self.namespaces.values():
            if space.connected_group:
                continue
            realm += 1
            todo = [space.inode]
            while todo:
                other = self.namespaces[todo.pop()]
                if not other.connected_group:
                    other.connected_group = realm
                    todo += neighbours.get(other.inode, ())

    cdef int _publish(self) except -1:
        """Everything known, as a new atlas."""
        cdef WatchedNamespace space
        cdef namespace_map_t *namespace_map
        cdef map_node_t *place
        cdef const link_t *link
        cdef uint64_t i
        self._connect()
        owners = {}
        members = [space for space in self.namespaces.values() if not space.monitored]
        order = [*self.monitored, *members]
        namespace_map = namespace_map_make(len(order), len(self.monitored))
        if namespace_map == NULL:
            raise MemoryError
        namespace_map.skipped = len(self.skipped)
        try:
            places = {space.inode: index for index, space in enumerate(order) if space is not None}
            for index, space in enumerate(order):
                if space is None:
                    continue
                place = &namespace_map.nodes[index]
                place.namespace = namespace_take(space.namespace)
                place.addresses = routes_take(space.routes)
                place.connected_group = space.connected_group
                place.owner = 0
                if space.uid is not None:
                    place.owner = owners.setdefault((space.uid, space.userns if space.uid <= 0 else 0), len(owners) + 1)
                place.interfaces = <interface_t *>calloc(space.links.count + 1, sizeof(interface_t))
                if place.interfaces == NULL:
                    raise MemoryError
                place.interface_count = space.links.count
                for i in range(space.links.count):
                    link = &space.links.at[i]
                    place.interfaces[i].ifindex, place.interfaces[i].master = link.ifindex, link.master
                    place.interfaces[i].other, place.interfaces[i].kind = link.other, link.kind
                    place.interfaces[i].to = PEER_NONE if link.nsid < 0 else places.get(space.nsids.get(link.nsid),
                                                                                  PEER_UNKNOWN)
            if namespace_map_finish(namespace_map) < 0:
                raise MemoryError
        except BaseException:
            namespace_map_free(namespace_map)
            raise
        self.changed = False
        namespace_map_free(<namespace_map_t *>nfct_swap(<void **>&self.new_map, namespace_map))
        return 0

    cdef namespace_map_t *take(self) noexcept nogil:
        # Asked for each flow to an address that nobody here has, and nearly always in vain: a look costs less than a swap.
        if nfct_peek(<void **>&self.new_map) == NULL:
            return NULL
        return <namespace_map_t *>nfct_swap(<void **>&self.new_map, NULL)

    cdef bint is_behind(self) noexcept nogil:
        cdef pollfd ready
        ready.fd, ready.events, ready.revents = self.monitored_fd, POLLIN, 0
        return self.is_stale or poll(&ready, 1, 0) > 0

    cdef bint run_round(self, bint search, int patience) noexcept nogil:
        cdef uint64_t number, count
        cdef int64_t until = monotonic_ns() + patience * <int64_t>1_000_000
        cdef int64_t left
        cdef pollfd ready
        if search:
            self.search_wanted = True
        number = nfct_load(&self.requested) + 1
        nfct_store(&self.requested, number)
        eventfd_write(self.wake, 1)
        while nfct_load(&self.completed) < number:
            left = (until - monotonic_ns()) // 1_000_000
            if left <= 0:
                return False
            ready.fd, ready.events, ready.revents = self.done, POLLIN, 0
            poll(&ready, 1, <int>left)
            eventfd_read(self.done, &count)
        return True

    @property
    def foreign(self) -> int:
        """Datagrams that the kernel did not send."""
        return self.closed_foreign + sum([space.foreign for space in list(self.namespaces.values())])
