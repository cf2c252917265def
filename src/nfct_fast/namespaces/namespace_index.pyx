"""Find which network namespace of this host has an address, and look up sockets there.

A flow that is forwarded here may come from a container: its address is local in another namespace. But anyone can
configure any address in a namespace of their own. Therefore a namespace counts only if a packet from there can reach
the one in which the flow was seen.
"""
cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from sys_socket cimport AF_INET6

from nfct_fast.namespaces.local_routes cimport local_routes_t, routes_find
from nfct_fast.namespaces.namespace_map cimport (
    map_node_t, namespace_map_follow, namespace_map_free, namespace_map_has, namespace_map_t,
)
from nfct_fast.sockets.diag_message cimport diag_match_t
from nfct_fast.namespaces.direction cimport is_multicast
from nfct_fast.namespaces.opener cimport Opener
from nfct_fast.events.flow cimport tuple_t
from nfct_fast.namespaces.namespace cimport (
    namespace_lookup, namespace_t, namespace_tables_lookup, namespace_tables_survey,
)
from nfct_fast.kernel.clock cimport monotonic_ns
from nfct_fast.namespaces.discovery cimport Discovery
from nfct_fast.sockets.socket_info cimport socket_info_t
from nfct_fast.sockets.sock_diag cimport diag_ports, diag_survey

import resource
import weakref

from nfct_fast.kernel import netns

cdef enum:
    DRAIN_NS = 1_000_000        # least time between two rounds of discovery that unknown addresses cause
    WAIT_MS = 20                # longest wait for discovery
    WAIT_FACTOR = 50            # after a wait, there is none for this many times as long
    UNKNOWN_ADDRESS_NS = 10_000_000_000     # least time between two searches that one unknown address causes
    UNKNOWN_ADDRESSES = 256
    CACHED_ROUTES = 256
    CACHED_ROUTE_NS = 100_000_000    # how long a followed route is trusted: notifications cover only local routes
    # Following routes for t ns moves namespace_t.paid_until forward by FOLLOW_FACTOR * t, at most to 2 * FOLLOW_DEBT_NS
    # into the future; beyond FOLLOW_DEBT_NS none is followed. This allows 1 % of the time, and 2 ms (some hundred
    # addresses) without a pause.
    FOLLOW_FACTOR = 100
    FOLLOW_DEBT_NS = 200_000_000

cdef local_routes_t LOOPBACK_ONLY       # empty: routes_find() knows loopback without it
memset(&LOOPBACK_ONLY, 0, sizeof(LOOPBACK_ONLY))


cdef bint is_private(const tuple_t *tuple) noexcept nogil:
    # The ranges that containers use: RFC 1918, RFC 6598, link-local, and for IPv6 unique local.
    cdef const uint8_t *a = &tuple.src[0]
    if tuple.family == AF_INET6:
        return a[0] & 0xfe == 0xfc or a[0] == 0xfe and a[1] & 0xc0 == 0x80
    return (a[0] == 10 or a[0] == 172 and a[1] & 0xf0 == 16 or a[0] == 192 and a[1] == 168
            or a[0] == 100 and a[1] & 0xc0 == 64 or a[0] == 169 and a[1] == 254)


cdef uint32_t tuple_slot(const tuple_t *tuple) noexcept nogil:
    cdef uint64_t halves[2]
    memcpy(halves, tuple.src, 16)
    return <uint32_t>(((halves[0] ^ halves[1]) * <uint64_t>0x9e3779b97f4a7c15) >> 40) & (UNKNOWN_ADDRESSES - 1)


@cython.final
@cython.auto_pickle(False)
cdef class NamespaceIndex:
    """The network namespaces of this host, each with its addresses and a sock_diag socket.

    Call refresh() about once a second, since our sockets keep a namespace alive after its last process has ended. After
    start() a thread does the work. Entering other namespaces needs CAP_SYS_ADMIN, and finding those of other users'
    processes needs CAP_SYS_PTRACE. Namespaces that cannot be entered are counted in `skipped`.

    Args:
        space: The first monitored namespace, a Netns; None: the calling thread's own.
        limit: Most namespaces besides the monitored ones. Each takes five file descriptors, and all together at most
            5/16 of RLIMIT_NOFILE.
        ttl: Least seconds between two searches for namespaces.
        proc: Where /proc is mounted.
        diag: Whether to open a sock_diag socket in each namespace.
        spawn_helper: See Opener.
    """

    def __cinit__(self):
        self.opener = None
        self.generation = 1

    def __init__(self, space=None, *, int limit=128, double ttl=1.0, proc="/proc", bint diag=True, spawn_helper=None):
        self.close()
        self.opener = Opener(proc, spawn_helper)
        soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        limit = limit if soft_limit == resource.RLIM_INFINITY else min(limit, soft_limit // 16)
        self.proc = proc
        self.discovery = Discovery(limit=limit, ttl=ttl, proc=proc, diag=diag, opener=self.opener)
        self.finalizer = weakref.finalize(self, Discovery.stop, self.discovery)
        self.monitor(space)
        self._take_map()

    def start(self, drop_rights=None) -> None:
        """Run discovery in a thread until close(). The thread calls drop_rights() first, if given."""
        self.discovery.start(drop_rights)
        self.threaded = True

    def monitor(self, space=None) -> int:
        """Add a namespace to the monitored ones and return its number, counted from 0.

        From the next refresh_monitored() on, that number stands for the namespace in look-ups. A namespace that is
        monitored already keeps its number. The calling thread enters the namespace for a moment. Any thread may call
        this.

        Args:
            space: A Netns; None for the calling thread's namespace.

        Raises:
            OSError: The namespace cannot be entered, or its sockets cannot be opened.
        """
        if space is not None:
            return self.discovery.monitor(space)
        with netns.Netns(f"{self.proc}/thread-self/ns/net", "home") as own:
            return self.discovery.monitor(own)

    def stop_monitoring(self, int number) -> None:
        """Remove a namespace from the monitored ones; its number may be reused. Any thread may call this."""
        self.discovery.stop_monitoring(number)

    def __dealloc__(self):
        namespace_map_free(self.namespace_map)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        """Close all sockets and namespaces; a second call does nothing."""
        if self.finalizer is not None:
            self.finalizer()
        namespace_map_free(self.namespace_map)
        self.namespace_map = NULL
        self.threaded = False
        if self.opener is not None:
            self.opener.close()

    def abandon(self):
        """Close the descriptors in a forked child, without touching what another thread may have been changing."""
        if self.discovery is not None:
            self.discovery.stop()
        namespace_map_free(self.namespace_map)
        self.namespace_map = NULL
        if self.opener is not None:
            self.opener.close()

    def refresh(self) -> bool:
        """Search for new namespaces if an unknown address was seen, and close those that are gone.

        Takes one stat() per known namespace. /proc is searched only if there is reason to, at most every `ttl` seconds,
        and less often where that takes long. The calling thread enters other namespaces for a moment. After start()
        this only reports a failure of the discovery thread.

        Returns:
            Whether it searched.

        Raises:
            RuntimeError: The thread could not return from another namespace, or discovery has ended.
        """
        if self.namespace_map == NULL:
            raise ValueError("the namespace index is closed")
        self.opener.check()
        if self.opener.stranded:
            raise RuntimeError("the thread could not return from another network namespace")
        if self.threaded:
            if self.discovery.failure is not None:
                raise RuntimeError(f"network namespaces are not followed any more: {self.discovery.failure}")
            # Without flows nothing else frees the last map, which keeps namespaces alive that are gone otherwise.
            self._take_map()
            return False
        searched = self.discovery.round(True)
        self._take_map()
        return searched

    cdef bint _take_map(self) noexcept nogil:
        cdef namespace_map_t *fresh = self.discovery.take()
        if fresh == NULL:
            return False
        namespace_map_free(self.namespace_map)
        self.namespace_map = fresh
        self.generation += 1
        self.skipped = fresh.skipped
        memset(self.cached_routes, 0, sizeof(self.cached_routes))
        return True

    cdef bint _wait(self, bint search) noexcept nogil:
        """Wait for a round of discovery, unless the last wait was just before. Return whether there is a new map."""
        cdef uint64_t began = <uint64_t>monotonic_ns()
        cdef uint64_t now
        if began < self.wait_again_at:
            return False
        self.discovery.run_round(search, WAIT_MS)
        now = <uint64_t>monotonic_ns()
        # What is beyond the longest wait was the machine's, which a hypervisor may halt for seconds.
        self.wait_again_at = now + WAIT_FACTOR * min(now - began, WAIT_MS * <uint64_t>1_000_000)
        return self._take_map()

    cdef bint _work(self) noexcept with gil:
        try:
            self.discovery.round(False)
        except Exception:      # the next refresh() fails as well, and reports it
            pass
        return self._take_map()

    cdef int find_address(self, int monitored, const tuple_t *tuple, int after) noexcept nogil:
        cdef int i
        if self.monitored_routes(monitored) == NULL:
            return -1
        # The flow was seen in the monitored namespace: an address that is local there means that namespace, even if
        # others have it too. A multicast group means its members there.
        if self.is_local(monitored, tuple) or is_multicast(&tuple.src[0], tuple.family):
            return monitored if after < 0 else -1
        # With a hundred containers, asking each one would take a quarter of the time that a flow takes.
        if after < 0 and self.namespace_map.reachable.slots != NULL and routes_find(
                &self.namespace_map.reachable, &tuple.src[0], tuple.family) < 0:
            return -1
        for i in range(after + 1, self.namespace_map.count):
            if i != monitored and namespace_map_has(self.namespace_map, monitored, i, &tuple.src[0], tuple.family):
                return i
        return -1

    cdef bint is_local(self, int monitored, const tuple_t *tuple) noexcept nogil:
        # Cached, since this is called twice for each end of a flow, often with the same address flow after flow, and
        # routes_find() takes 5 ns for each of three to six prefix lengths.
        cdef is_local_t *known = &self.known_addresses[tuple_slot(tuple) ^ monitored & (UNKNOWN_ADDRESSES - 1)]
        cdef const local_routes_t *own
        if (known.generation != self.generation or known.monitored != monitored or known.family != tuple.family
                or memcmp(known.addr, tuple.src, 16) != 0):
            own = self.monitored_routes(monitored)
            if own == NULL:
                return False
            memcpy(known.addr, tuple.src, 16)
            known.generation, known.monitored, known.family = self.generation, monitored, tuple.family
            known.yes = routes_find(own, &tuple.src[0], tuple.family) >= 0
        return known.yes

    cdef bint look_again(self, const tuple_t *tuple, bint search) noexcept nogil:
        cdef uint64_t now = self.refreshed_at       # of the batch: reading the clock took as long as all the rest
        cdef unknown_address_t *unknown = &self.unknown_addresses[tuple_slot(tuple)]
        if not search and is_private(tuple) and not (
                unknown.until > now and memcmp(unknown.addr, tuple.src, 16) == 0):
            memcpy(unknown.addr, tuple.src, 16)
            unknown.until = now + <uint64_t>UNKNOWN_ADDRESS_NS
            search = True
        if search:
            self.discovery.search_wanted = True
        if self._take_map():
            return True
        if now - self.drained_at < <uint64_t>DRAIN_NS:
            return False
        self.drained_at = now
        return self._wait(search) if self.threaded else self._work()

    cdef int _follow_routes(self, int monitored, int index, const tuple_t *end) noexcept nogil:
        """Return where the monitored namespace's routes to end.src lead; -1: not certain, or `index` is out of time."""
        cdef namespace_t *namespace = self.namespace_map.nodes[index].namespace
        cdef cached_route_t *cached = &self.cached_routes[tuple_slot(end) ^ (monitored & (CACHED_ROUTES - 1))]
        cdef uint64_t began = <uint64_t>monotonic_ns()
        if cached.until > began and cached.monitored == monitored and memcmp(cached.addr, end.src, 16) == 0:
            return cached.index
        if namespace.paid_until > began + <uint64_t>FOLLOW_DEBT_NS:
            return -1
        memcpy(cached.addr, end.src, 16)
        cached.monitored = monitored
        cached.index = namespace_map_follow(self.namespace_map, monitored, &end.src[0], end.family)
        cached.until = <uint64_t>monotonic_ns()
        namespace.paid_until = min(max(namespace.paid_until, began) + FOLLOW_FACTOR * (cached.until - began),
                                   cached.until + 2 * <uint64_t>FOLLOW_DEBT_NS)
        cached.until += <uint64_t>CACHED_ROUTE_NS
        return cached.index

    cdef bint may_come_from(self, int monitored, int index, const tuple_t *end) noexcept nogil:
        cdef const map_node_t *origin
        if self.monitored_routes(monitored) == NULL or not 0 <= index < self.namespace_map.count:
            return False
        if self.namespace_map.nodes[index].namespace == NULL:
            return False
        if index == monitored:
            return True
        origin = &self.namespace_map.nodes[index]
        if origin.connected_group != self.namespace_map.nodes[monitored].connected_group:
            return False
        # The owner of the monitored namespace can make any address appear there, which proves nothing about the
        # namespaces of other owners.
        if self.namespace_map.nodes[monitored].owner and origin.owner != self.namespace_map.nodes[monitored].owner:
            return False
        if origin.owner and self._follow_routes(monitored, index, end) != index:
            return False
        origin.namespace.used_at = self.refreshed_at
        return True

    cdef int lookup_at(self, int index, const tuple_t *tuple, bint listener, socket_info_t *out) noexcept nogil:
        cdef map_node_t *node = &self.namespace_map.nodes[index]
        cdef const local_routes_t *addresses = &node.addresses.routes if node.addresses != NULL else &LOOPBACK_ONLY
        return namespace_lookup(node.namespace, addresses, tuple, listener, out)

    cdef int survey_at(self, int index, const tuple_t *tuple, diag_match_t *out, int room) noexcept nogil:
        return diag_survey(&self.namespace_map.nodes[index].namespace.diag, tuple, out, room)

    cdef int ports_at(self, int index, uint8_t proto, uint8_t *taken, int most) noexcept nogil:
        return diag_ports(&self.namespace_map.nodes[index].namespace.diag, proto, taken, most)

    cdef int tables_lookup(self, int index, const tuple_t *tuple, int64_t when, socket_info_t *out) noexcept nogil:
        return namespace_tables_lookup(self.namespace_map.nodes[index].namespace, self.opener, tuple, when, out)

    cdef int tables_survey(self, int index, const tuple_t *tuple, int64_t when, diag_match_t *out,
                           int room) noexcept nogil:
        return namespace_tables_survey(self.namespace_map.nodes[index].namespace, self.opener, tuple, when, out, room)

    cdef void refresh_monitored(self) noexcept nogil:
        self.refreshed_at = <uint64_t>monotonic_ns()
        if self.namespace_map == NULL:
            return
        if self.discovery.is_behind():
            if self.threaded:
                self._wait(False)
            else:
                self._work()
        self._take_map()

    cdef const local_routes_t *monitored_routes(self, int index) noexcept nogil:
        cdef const map_node_t *node
        if self.namespace_map == NULL or not 0 <= index < self.namespace_map.monitored_count:
            return NULL
        node = &self.namespace_map.nodes[index]
        if node.namespace == NULL:
            return NULL
        return &node.addresses.routes if node.addresses != NULL else &LOOPBACK_ONLY

    cdef uint64_t cookie(self, int index) noexcept nogil:
        return self.namespace_map.nodes[index].namespace.cookie if 0 <= index < self.namespace_map.count else 0

    @property
    def spoofed(self) -> int:
        """Datagrams ignored because a process sent them, not the kernel."""
        return self.discovery.spoofed

    def namespaces(self) -> dict:
        """Return the known namespaces as {inode: name}; the monitored ones come first."""
        monitored = [space for space in self.discovery.monitored if space is not None]
        return {space.inode: space.name for space in [*monitored, *self.discovery.namespaces.values()]}
