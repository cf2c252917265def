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
    STEP_STAYS, STEP_UNKNOWN, namespace_map_close, namespace_map_free, namespace_map_make, namespace_map_t, place_t,
    step_t, table_take,
)
from nfct_fast.namespaces.opener cimport Opener
from nfct_fast.namespaces.links cimport link_t
from nfct_fast.namespaces.namespace cimport namespace_take
from nfct_fast.kernel.procfs cimport procfs_monotonic_ns
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
    THEIRS_FACTOR = 50          # 2 % for all others together,
    HEAVY_FACTOR = 400          # and a quarter of one for each of these
    SEARCH_FACTOR = 50
    ASIDE_TTLS = 10             # for which what was left out is not looked at again
    OUR_WEIGHT = 4              # as many namespaces of ours as of four others
    NEW_MOST = 64               # that are entered in one search: then it is for the others' turn


@cython.final
@cython.auto_pickle(False)
cdef class Discovery:
    """limit: namespaces besides homes at most, five descriptors each; ttl: seconds between two searches; proc: where /proc
    is mounted; diag: open sock_diag sockets; door: enters namespaces.

    Without start() it does nothing but in round().
    """

    def __cinit__(self, *, int limit, double ttl, str proc, bint diag, Opener opener not None):
        self.homes_fd = self.wake = self.answer = -1
        self.limit, self.ttl, self.diag, self.opener = limit, ttl, diag, opener
        self.lookout = NamespaceFinder(proc)
        self.spaces, self.homes, self.skipped, self.aside = {}, [], set(), {}
        self.due = self.theirs_due = self.checked = float("-inf")
        self.lock = threading.Lock()
        self.poll, self.homes_poll = select.epoll(), select.epoll()
        self.homes_fd = self.homes_poll.fileno()
        self.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        self.answer = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.wake < 0 or self.answer < 0:
            raise OSError(errno, os.strerror(errno), "eventfd")
        self.poll.register(self.wake, select.EPOLLIN)
        self.pid = os.getpid()

    def __dealloc__(self):
        namespace_map_free(self.fresh)
        self._close()

    cdef void _close(self) noexcept nogil:
        if self.wake >= 0:
            close(self.wake)
        if self.answer >= 0:
            close(self.answer)
        self.wake = self.answer = -1

    def start(self, settled=None):
        """Run in a thread until stop(). settled: called in it before, to give up privileges."""
        self.thread = threading.Thread(target=self._run, name="nfct-scout", args=(settled,), daemon=True)
        self.thread.start()

    def stop(self):
        """End the thread and let go of all namespaces; a second call does nothing. In a forked child only the latter."""
        self.stopping = True
        self.lookout.stop()
        if self.thread is not None and self.pid == os.getpid():
            eventfd_write(self.wake, 1)
            if threading.current_thread() is not self.thread:
                self.thread.join()
        self.thread = None
        self.spaces, self.homes = {}, []
        namespace_map_free(self.take())
        self.poll.close()
        self.homes_poll.close()
        self.lookout.close()
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
        times = [self.due] if self.wanted else [self.checked + self.ttl]
        for space in self.spaces.values():
            if (<WatchedNamespace>space).pending or (<WatchedNamespace>space).refused:
                times.append(max((<WatchedNamespace>space).due, self.theirs_due if space.uid is not None else 0.0))
        return max(0.0, min([1.0] + [when - now for when in times]))

    def add_home(self, netns not None) -> int:
        """Take a Netns among those that are listened in; its number. Enters it for a moment. OSError."""
        with self.lock:
            space = self.spaces.get(netns.inode)
            if space is None:
                space = WatchedNamespace(netns, self.diag, self.opener)
                self._add(space)
            if not (<WatchedNamespace>space).heard:
                number = self.homes.index(None) if None in self.homes else len(self.homes)
                self.homes[number:number + 1] = [space]
                (<WatchedNamespace>space).heard = True
                (<WatchedNamespace>space).slot = number
                if space.uid is None:
                    self.homes_poll.register(space.fileno(), select.EPOLLIN)
            self._post()
            return (<WatchedNamespace>space).slot

    def remove_home(self, int number) -> None:
        """It is not listened in any more; its number may be given again."""
        with self.lock:
            space = self.homes[number]
            if space is not None:
                self.homes[number] = None
                self._drop(space)
                self._post()

    def look(self) -> None:
        """Have the next round search for namespaces."""
        self.wanted = True

    def round(self, bint search, double patience=0.0) -> bool:
        """Take in what changed, within `patience` seconds; search: and look for new namespaces, if there is cause and time.

        Whether it searched. RuntimeError if the thread cannot come back from another namespace.
        """
        searched = False
        events = self.poll.poll(patience)
        if self.stopping:
            return False
        with self.lock:
            asked = nfct_load(&self.asked)
            began = time.monotonic()
            for fd, _ in events:
                if fd == self.wake:
                    self._drain()
            self._hear({fd for fd, _ in events})
            self._read(began)
            if began >= self.checked + self.ttl:
                self.checked = began
                self.wanted = self.wanted or not all([space.is_there() for space in self.spaces.values()])
            if search and self.wanted and began >= self.due:
                searched = True
                self._search()
            self._link()
            if self.changed:
                self._post()
            self.reading = False
            nfct_store(&self.answered, asked)
            eventfd_write(self.answer, 1)
        return searched

    def _drain(self):
        cdef uint64_t count
        eventfd_read(self.wake, &count)

    def _hear(self, fds):
        for space in self.spaces.values():
            if space.fileno() in fds:
                (<WatchedNamespace>space).pending = True

    def _read(self, now):
        """The changes that were heard of, of ours first."""
        cdef WatchedNamespace space
        theirs = [space for space in self.spaces.values() if space.uid is not None and (space.pending or space.refused)]
        for space in self.spaces.values():
            if space.uid is None and space.pending and space.due <= now:
                self.reading = self.reading or space.heard
                self._reread(space, OURS_FACTOR)
        if self.theirs_due > now:
            return
        began = time.monotonic()
        for space in theirs:
            if space.due <= now:
                self._reread(space, HEAVY_FACTOR)
        self.theirs_due = time.monotonic()
        self.theirs_due += THEIRS_FACTOR * (self.theirs_due - began)

    def _reread(self, WatchedNamespace space, int factor):
        began = time.monotonic()
        fd = space.fileno()
        refused = space.refused
        if space.read():
            self.changed = True
            # A link that leads to where nobody was yet.
            if space.uid is None and space.led_to() - space.numbers.keys():
                self.wanted = True
        now = time.monotonic()
        space.due = now + (ASIDE_TTLS * self.ttl if space.refused else factor * (now - began))
        if space.refused:
            self.skipped.add(space.inode)
        else:
            self.skipped.discard(space.inode)
            if refused:
                self.poll.register(space.fileno(), select.EPOLLIN | select.EPOLLONESHOT)
            elif fd >= 0:
                self.poll.modify(fd, select.EPOLLIN | select.EPOLLONESHOT)

    def _add(self, WatchedNamespace space):
        self.spaces[space.inode] = space
        if space.fileno() >= 0:
            self.poll.register(space.fileno(), select.EPOLLIN | select.EPOLLONESHOT)
        if space.refused:
            space.due = time.monotonic() + ASIDE_TTLS * self.ttl
            self.skipped.add(space.inode)
        self.changed = True

    def _drop(self, WatchedNamespace space):
        # Closing its sockets takes them out of the polls: they have no other descriptor.
        del self.spaces[space.inode]
        self.before += space.foreign
        for other in self.spaces.values():
            for number in [number for number, inode in other.numbers.items() if inode == space.inode]:
                del other.numbers[number]
        self.changed = True

    def _search(self):
        began, spent, skipped = time.monotonic(), time.thread_time(), len(self.skipped)
        found = self.lookout.all()
        if not found:
            return
        self.wanted = False
        for inode, space in list(self.spaces.items()):
            if inode in found:
                space.fingerprint_set_as(*found[inode])
            elif not (<WatchedNamespace>space).heard:
                self._drop(space)
        self.skipped &= self.spaces.keys()
        self.aside = {inode: until for inode, until in self.aside.items() if inode in found and until > began}
        new = 0
        for inode, (name, path) in found.items():
            if inode in self.spaces:
                continue
            if inode in self.aside or new == NEW_MOST:
                self.skipped.add(inode)
                continue
            if self._enlist(inode, name, path):
                new += 1
                # Others may stand behind it.
                self._link()
        self.wanted = self.wanted or new == NEW_MOST
        self.changed = self.changed or len(self.skipped) != skipped
        # On a router unknown addresses never end: spend 2 % on them at most (3 us a process for each search).
        spent = time.thread_time() - spent
        self.due = time.monotonic() + max(self.ttl, min(SEARCH_FACTOR * spent, SEARCH_FACTOR * self.ttl))

    def _enlist(self, inode, name, path):
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
        if len(self.spaces) - len(self.homes) + self.homes.count(None) > self.limit:
            self._link()
            worst = self._worst()
            self._drop(worst)
            self.skipped.add(worst.inode)
            self.aside[worst.inode] = time.monotonic() + ASIDE_TTLS * self.ttl
        return True

    def _is_linked(self, int fd):
        for space in self.spaces.values():
            if space.led_to() - space.numbers.keys() and space.number_of(fd) is not None:
                return True
        return False

    cdef WatchedNamespace _worst(self):
        """The one to be given up: without a way to a home, then of who has most; but those with traffic stay."""
        cdef WatchedNamespace space
        near = set()
        for space in self.homes:
            if space is not None:
                near.add(space.realm)
        uids, users = {}, {}
        members = [space for space in self.spaces.values() if not space.heard]
        for space in members:
            if space.realm in near:
                uids[space.uid] = uids.get(space.uid, 0) + (1 / OUR_WEIGHT if space.uid is None else 1)
                users[space.userns] = users.get(space.userns, 0) + 1
        now = procfs_monotonic_ns()
        ranks = []
        for space in members:
            far = space.realm not in near
            idle = now - <int64_t>space.member.used
            ranks.append((far, uids.get(space.uid, 0), users.get(space.userns, 0) if space.uid is not None else 0, idle,
                          space.inode))
        return self.spaces[max(ranks)[4]]

    def _link(self):
        """Whom the numbers mean that links lead to, and what is connected with what."""
        cdef WatchedNamespace space, other
        if not self.changed:
            return
        for space in self.spaces.values():
            unknown = space.led_to() - space.numbers.keys()
            for other in [*[home for home in self.homes if home is not None], *self.spaces.values()]:
                if not unknown:
                    break
                if other is not space and other.inode not in space.numbers.values():
                    number = space.number_of(other.member.ns)
                    if number is not None:
                        space.numbers[number] = other.inode
                        unknown.discard(number)
        realm = 0
        for space in self.spaces.values():
            space.realm = 0
        beside = {}
        for space in self.spaces.values():
            for number in space.led_to():
                if number in space.numbers:
                    beside.setdefault(space.inode, set()).add(space.numbers[number])
                    beside.setdefault(space.numbers[number], set()).add(space.inode)
        for space in self.spaces.values():
            if space.realm:
                continue
            realm += 1
            todo = [space.inode]
            while todo:
                other = self.spaces[todo.pop()]
                if not other.realm:
                    other.realm = realm
                    todo += beside.get(other.inode, ())

    cdef int _post(self) except -1:
        """Everything known, as a new atlas."""
        cdef WatchedNamespace space
        cdef namespace_map_t *namespace_map
        cdef place_t *place
        cdef const link_t *link
        cdef uint64_t i
        self._link()
        owners = {}
        members = [space for space in self.spaces.values() if not space.heard]
        order = [*self.homes, *members]
        namespace_map = namespace_map_make(len(order), len(self.homes))
        if namespace_map == NULL:
            raise MemoryError
        namespace_map.skipped = len(self.skipped)
        try:
            places = {space.inode: index for index, space in enumerate(order) if space is not None}
            for index, space in enumerate(order):
                if space is None:
                    continue
                place = &namespace_map.places[index]
                place.member = namespace_take(space.member)
                place.addresses = table_take(space.table)
                place.realm = space.realm
                place.owner = 0
                if space.uid is not None:
                    place.owner = owners.setdefault((space.uid, space.userns if space.uid <= 0 else 0), len(owners) + 1)
                place.steps = <step_t *>calloc(space.links.count + 1, sizeof(step_t))
                if place.steps == NULL:
                    raise MemoryError
                place.step_count = space.links.count
                for i in range(space.links.count):
                    link = &space.links.at[i]
                    place.steps[i].ifindex, place.steps[i].master = link.ifindex, link.master
                    place.steps[i].other, place.steps[i].kind = link.other, link.kind
                    place.steps[i].to = STEP_STAYS if link.nsid < 0 else places.get(space.numbers.get(link.nsid),
                                                                                  STEP_UNKNOWN)
            if namespace_map_close(namespace_map) < 0:
                raise MemoryError
        except BaseException:
            namespace_map_free(namespace_map)
            raise
        self.changed = False
        namespace_map_free(<namespace_map_t *>nfct_swap(<void **>&self.fresh, namespace_map))
        return 0

    cdef namespace_map_t *take(self) noexcept nogil:
        # Asked for each flow to an address that nobody here has, and nearly always in vain: a look costs less than a swap.
        if nfct_peek(<void **>&self.fresh) == NULL:
            return NULL
        return <namespace_map_t *>nfct_swap(<void **>&self.fresh, NULL)

    cdef bint is_behind(self) noexcept nogil:
        cdef pollfd ready
        ready.fd, ready.events, ready.revents = self.homes_fd, POLLIN, 0
        return self.reading or poll(&ready, 1, 0) > 0

    cdef bint ask(self, bint search, int patience) noexcept nogil:
        cdef uint64_t number, count
        cdef int64_t until = procfs_monotonic_ns() + patience * <int64_t>1_000_000
        cdef int64_t left
        cdef pollfd ready
        if search:
            self.wanted = True
        number = nfct_load(&self.asked) + 1
        nfct_store(&self.asked, number)
        eventfd_write(self.wake, 1)
        while nfct_load(&self.answered) < number:
            left = (until - procfs_monotonic_ns()) // 1_000_000
            if left <= 0:
                return False
            ready.fd, ready.events, ready.revents = self.answer, POLLIN, 0
            poll(&ready, 1, <int>left)
            eventfd_read(self.answer, &count)
        return True

    @property
    def foreign(self) -> int:
        """Datagrams that the kernel did not send."""
        return self.before + sum([space.foreign for space in list(self.spaces.values())])
