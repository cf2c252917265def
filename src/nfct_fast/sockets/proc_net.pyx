"""Find the socket of a tuple in the tables of /proc/net: for ping and raw sockets, and where sock_diag is missing.

A table is read in large chunks into rows hashed by local port and remote end, and then serves every tuple of the batch.
Reading it takes milliseconds, a look-up in it less than a microsecond.

/proc/net does not show IPV6_V6ONLY: a listener on [::] that refuses IPv4 looks like one that accepts it.
"""
cimport cython
from libc.errno cimport EAGAIN, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memcmp, memcpy, memset
from posix.fcntl cimport O_RDONLY, openat
from posix.unistd cimport close

from netinet_in cimport (IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_RAW, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE,
                         TCP_CLOSE_WAIT, TCP_ESTABLISHED, TCP_LISTEN, TCP_SYN_RECV)
from procfs_calls cimport O_CLOEXEC
from sys_socket cimport AF_INET, AF_INET6

from nfct_fast.sockets.diag_message cimport DIAG_EQUAL, DIAG_GROUP, DIAG_OTHER, DIAG_WILD, diag_match_t
from nfct_fast.events.flow cimport tuple_set, tuple_t
from nfct_fast.kernel.clock cimport monotonic_ns
from nfct_fast.kernel.procfs cimport procfs_open
from nfct_fast.sockets.socket_info cimport (
    SOCK_EXACT, SOCK_LISTENER, SOCK_PROTOCOL, SOCK_UID, SOCK_WILDCARD, socket_info_t,
)
from nfct_fast.sockets.proc_net_table cimport (
    FORM_ICMP, FORM_V6, as_mapped, row_hash, row_t, table_free, table_load, table_t,
)

import os

cdef enum:    # index of the IPv4 table; the IPv6 table follows it
    TCP = 0
    UDP = 2
    UDPLITE = 4
    ICMP = 6
    RAW = 8
    TABLES = 10


cdef const char *table_name(int table) noexcept nogil:
    cdef const char **names = [b"tcp", b"tcp6", b"udp", b"udp6", b"udplite", b"udplite6", b"icmp", b"icmp6", b"raw",
                               b"raw6"]
    return names[table]


# Return how well a row fits: 0 not at all, otherwise more for each end that has exactly the address.
cdef int row_score(const row_t *row, const uint8_t *src, bint v4, const uint8_t *dst, uint16_t sport,
                   uint16_t dport) noexcept nogil:
    cdef int score = 1
    if row.sport != sport or (row.v4_only and not v4):
        return 0
    if row.bound:
        if memcmp(row.src, src, 16) != 0:
            return 0
        score += 2
    elif row.v4_only:
        score += 1
    if row.connected:
        if dst == NULL or row.dport != dport or memcmp(row.dst, dst, 16) != 0:
            return 0
        score += 4
    elif dst != NULL or row.dport:
        return 0
    return score


ctypedef struct best_t:
    const row_t *row
    int score
    uint8_t ambiguous


cdef void chain_best(const table_t *table, uint32_t hash, int state, const uint8_t *src, bint v4, const uint8_t *dst,
                     uint16_t sport, uint16_t dport, best_t *best) noexcept nogil:
    cdef uint32_t at
    cdef const row_t *row
    cdef int score
    if table.count == 0:
        return
    at = table.heads[hash & table.mask]
    while at:
        row = &table.rows[at - 1]
        at = row.next
        if state >= 0 and (row.state == TCP_LISTEN) != state:
            continue
        score = row_score(row, src, v4, dst, sport, dport)
        if score == 0 or score < best.score:
            continue
        if score > best.score:
            best.row = row
            best.score = score
            best.ambiguous = 0
        elif row.inode and best.row.inode == 0:
            best.row = row
        elif row.inode and row.inode != best.row.inode:
            best.ambiguous = 1


cdef int fill_info(const best_t *best, uint8_t kind, socket_info_t *out) noexcept nogil:
    memset(out, 0, sizeof(out[0]))
    out.inode = best.row.inode
    out.kind = kind
    out.state = best.row.state
    out.ambiguous = best.ambiguous
    # Sockets in TIME_WAIT and the like are listed with inode 0 and uid 0, which means that the user is unknown.
    if best.row.inode or best.row.uid:
        out.uid = best.row.uid
        out.has = SOCK_UID
    return 1


cdef int tables_search(procnet_t *net, int first, int last, bint tcp, const uint8_t *src, bint v4, const uint8_t *dst,
                       uint16_t sport, uint16_t dport, bint exact_only, socket_info_t *out) noexcept nogil:
    cdef best_t exact, wildcard
    cdef int i
    memset(&exact, 0, sizeof(exact))
    memset(&wildcard, 0, sizeof(wildcard))
    for i in range(first, last + 1):
        chain_best(&net.tables[i], row_hash(sport, dst, dport), 0 if tcp else -1, src, v4, dst, sport, dport, &exact)
    # An established connection without an inode is waiting in its listener's accept queue.
    if exact.row != NULL and not (tcp and exact.row.inode == 0 and (
            exact.row.state == TCP_ESTABLISHED or exact.row.state == TCP_SYN_RECV
            or exact.row.state == TCP_CLOSE_WAIT)):
        return fill_info(&exact, SOCK_EXACT, out)
    if exact_only:
        return 0
    for i in range(first, last + 1):
        chain_best(&net.tables[i], row_hash(sport, NULL, 0), 1 if tcp else -1, src, v4, NULL, sport, 0, &wildcard)
    if wildcard.row != NULL:
        return fill_info(&wildcard, SOCK_LISTENER if tcp else SOCK_WILDCARD, out)
    return fill_info(&exact, SOCK_EXACT, out) if exact.row != NULL else 0


cdef int tables_refresh(procnet_t *net, int first, int last, int64_t when, int64_t now) noexcept nogil:
    # Read again the tables that are older than the event. Return 0, or -EAGAIN if min_interval forbids it for some.
    cdef int i, form, rc = 0
    cdef table_t *table
    for i in range(first, last + 1):
        table = &net.tables[i]
        if table.loaded_at and table.loaded_at >= when:
            continue
        if table.loaded_at and now - table.loaded_at < net.min_interval:
            rc = -EAGAIN
            continue
        form = FORM_V6 * (i & 1) | FORM_ICMP * (i >> 1 << 1 == ICMP)
        table_load(table, net.open(net.context, table_name(i)), form, now)
        net.loads += 1
    return rc


cdef int tables_lookup(procnet_t *net, int first, int last, bint tcp, const uint8_t *src, bint v4, const uint8_t *dst,
                       uint16_t sport, uint16_t dport, int64_t when, socket_info_t *out) noexcept nogil:
    cdef int64_t now = monotonic_ns()
    cdef bint recent = True
    cdef int i, rc
    if when <= 0 or when > now:
        when = now
    for i in range(first, last + 1):
        recent = recent and net.tables[i].loaded_at and when - net.tables[i].loaded_at <= net.max_age
    # A socket of exactly this tuple is trusted for max_age. A listener or "no socket" never is, as a better match may
    # have been opened since the table was read.
    if recent and tables_search(net, first, last, tcp, src, v4, dst, sport, dport, True, out):
        return 1
    rc = tables_refresh(net, first, last, when, now)
    if tables_search(net, first, last, tcp, src, v4, dst, sport, dport, rc != 0, out):
        return 1
    for i in range(first, last + 1):
        if rc == 0:
            rc = net.tables[i].error
    return rc


cdef int procnet_lookup(procnet_t *net, const tuple_t *tuple, int64_t when, socket_info_t *out) noexcept nogil:
    cdef uint8_t src[16]
    cdef uint8_t dst[16]
    cdef bint v4 = tuple.family == AF_INET
    cdef int v6 = 0 if v4 else 1
    cdef int table, rc
    memset(out, 0, sizeof(out[0]))
    if v4:
        as_mapped(src, tuple.src)
        as_mapped(dst, tuple.dst)
    else:
        memcpy(src, tuple.src, 16)
        memcpy(dst, tuple.dst, 16)
    if tuple.proto == IPPROTO_TCP or tuple.proto == IPPROTO_UDP or tuple.proto == IPPROTO_UDPLITE:
        table = TCP if tuple.proto == IPPROTO_TCP else UDP if tuple.proto == IPPROTO_UDP else UDPLITE
        # AF_INET6 sockets can use IPv4 as well, AF_INET sockets only IPv4.
        return tables_lookup(net, table + v6, table + 1, table == TCP, src, v4, dst, tuple.sport, tuple.dport, when,
                             out)
    if tuple.proto == (IPPROTO_ICMP if v4 else IPPROTO_ICMPV6):
        rc = tables_lookup(net, ICMP + v6, ICMP + v6, False, src, v4, dst, tuple.icmp_id, 0, when, out)
        if rc:
            return rc
    rc = tables_lookup(net, RAW + v6, RAW + v6, False, src, v4, dst, tuple.proto, 0, when, out)
    if rc == 1:
        out.kind = SOCK_PROTOCOL
    return rc


# Return how the local end of a row fits an address; DIAG_OTHER if its socket cannot send from that address.
cdef uint8_t row_local(const row_t *row, const uint8_t *src, bint v4) noexcept nogil:
    if row.v4_only and not v4:
        return DIAG_OTHER
    if not row.bound:
        return DIAG_WILD
    if memcmp(row.src, src, 16) == 0:
        return DIAG_EQUAL
    if row.src[12] & 0xf0 == 0xe0 if row.v4_only else row.src[0] == 0xff:
        return DIAG_GROUP
    return DIAG_OTHER


cdef int table_survey(table_t *table, bint v6, bint tcp, bint raw, const uint8_t *src, bint v4, uint16_t port,
                      diag_match_t *out, int room, int count) noexcept nogil:
    cdef const row_t *row
    cdef uint8_t local
    cdef uint32_t i
    for i in range(table.count):
        row = &table.rows[i]
        # A raw socket of protocol 255 (IPPROTO_RAW) writes the IP header itself, with any protocol in it.
        if row.sport != port and not (raw and row.sport == IPPROTO_RAW):
            continue
        if tcp and row.state != TCP_LISTEN:
            continue
        local = row_local(row, src, v4)
        if local == DIAG_OTHER or tcp and local == DIAG_GROUP:
            continue
        if count < room:
            memset(&out[count], 0, sizeof(out[0]))
            out[count].local = local
            out[count].remote = DIAG_OTHER if row.connected else DIAG_WILD
            out[count].family = AF_INET6 if v6 else AF_INET
            out[count].sock.inode = row.inode
            out[count].sock.state = row.state
            if row.inode or row.uid:
                out[count].sock.uid = row.uid
                out[count].sock.has = SOCK_UID
        count += 1
    return count


cdef int procnet_survey(procnet_t *net, const tuple_t *tuple, int64_t when, diag_match_t *out, int room) noexcept nogil:
    cdef uint8_t src[16]
    cdef bint v4 = tuple.family == AF_INET
    cdef bint tcp = tuple.proto == IPPROTO_TCP
    cdef int64_t now = monotonic_ns()
    cdef int first, last, i, rc, count = 0
    cdef bint raw = False
    cdef uint16_t port = tuple.sport
    if v4:
        as_mapped(src, tuple.src)
    else:
        memcpy(src, tuple.src, 16)
    if tcp or tuple.proto == IPPROTO_UDP or tuple.proto == IPPROTO_UDPLITE:
        first = TCP if tcp else UDP if tuple.proto == IPPROTO_UDP else UDPLITE
        last = first + 1
        first += 0 if v4 else 1
    else:
        raw = True
        port = tuple.proto
        first = last = RAW + (0 if v4 else 1)
    rc = tables_refresh(net, first, last, now if when <= 0 or when > now else when, now)
    if rc < 0:
        return rc
    for i in range(first, last + 1):
        if net.tables[i].error:
            return net.tables[i].error
        count = table_survey(&net.tables[i], i & 1, tcp, raw, src, v4, port, out, room, count)
    return count


cdef void procnet_init(procnet_t *net, procnet_open_t open, void *context, int64_t max_age,
                       int64_t min_interval) noexcept nogil:
    memset(net, 0, sizeof(net[0]))
    net.open, net.context = open, context
    net.max_age = max_age
    net.min_interval = min_interval


cdef void procnet_free(procnet_t *net) noexcept nogil:
    cdef int i
    for i in range(TABLES):
        table_free(&net.tables[i])
        memset(&net.tables[i], 0, sizeof(net.tables[i]))


cdef int open_below(void *context, const char *name) noexcept nogil:
    cdef int fd = openat((<ProcNet>context).dir, name, O_RDONLY | O_CLOEXEC)
    return fd if fd >= 0 else -errno


@cython.final
@cython.auto_pickle(False)
cdef class ProcNet:
    """The socket tables of one network namespace. One thread at a time.

    Args:
        directory: /proc/thread-self/net for the network namespace of the calling thread, /proc/PID/net for another's.
        max_age: Seconds for which an exact match in a table that was already read is trusted.
        min_interval: Seconds between two readings of one table.

    Raises:
        OSError: The directory cannot be opened.
    """

    def __cinit__(self, directory="/proc/thread-self/net", double max_age=0.02, double min_interval=0.0):
        cdef bytes path = os.fsencode(directory)
        self.dir = procfs_open(path)
        procnet_init(&self.net, open_below, <void *>self, <int64_t>(max_age * 1e9), <int64_t>(min_interval * 1e9))
        if self.dir < 0:
            raise OSError(-self.dir, os.strerror(-self.dir), directory)

    def __dealloc__(self):
        procnet_free(&self.net)
        if self.dir >= 0:
            close(self.dir)

    cdef int lookup(self, const tuple_t *tuple, int64_t when, socket_info_t *out) noexcept nogil:
        return procnet_lookup(&self.net, tuple, when, out)

    @property
    def loads(self) -> int:
        """Return the number of tables read so far."""
        return self.net.loads

    def find(self, int proto, src, sport, dst, dport, when=0):
        """Find the socket whose local end is `src`, `sport` and whose remote end is `dst`, `dport`.

        Args:
            proto: IPPROTO_* number.
            src, dst: Addresses in any form that ipaddress accepts.
            sport, dport: Ports; for ICMP echo `sport` is the id.
            when: CLOCK_MONOTONIC ns; a table read before that is read again. 0 for now.

        Returns:
            A dict of inode, uid, kind, state and ambiguous, or None if there is no such socket. An unknown uid or inode
            is None.

        Raises:
            BlockingIOError: `min_interval` does not allow reading the table again yet.
            OSError: A table cannot be read.
        """
        cdef tuple_t tuple
        cdef socket_info_t found
        cdef int rc
        tuple_set(&tuple, proto, src, sport, dst, dport)
        tuple.icmp_id = sport
        rc = self.lookup(&tuple, when, &found)
        if rc < 0:
            raise OSError(-rc, os.strerror(-rc))
        if rc == 0:
            return None
        return {"inode": found.inode or None, "uid": found.uid if found.has & SOCK_UID else None, "kind": found.kind,
                "state": found.state, "ambiguous": bool(found.ambiguous)}

    def sizes(self):
        """Return the rows and seconds of each table's last reading, as a dict of name to (int, float)."""
        return {table_name(i).decode(): (self.net.tables[i].count, self.net.tables[i].cost / 1e9)
                for i in range(TABLES) if self.net.tables[i].loaded_at}
