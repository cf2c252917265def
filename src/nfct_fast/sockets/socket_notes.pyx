"""Notes of who created, connected or used a socket, written by cgroup BPF programs and read without system calls.

They name the owners even of closed sockets and exited processes, without a scan. bpf/owners.bpf.c says what each hook
notes; this module reads the notes.

Covered:
- TCP, whose tuple is known before the SYN leaves;
- UDP and UDP-Lite: unconnected sockets with each destination, connected ones, and another source address set by a
  control message;
- ping sockets and raw sockets of any protocol, SCTP and DCCP, by their packets;
- sockets that only io_uring holds;
- IPv4, IPv6, and IPv4 over AF_INET6, which is stored with its IPv4 tuple;
- servers: who created or bound a socket, by its cookie; who accepted a connection, if accept(2) returned the peer's
  address; and how often the sockets of a port have changed.

Not covered:
- sockets connected before the start, until they connect again; unconnected UDP sockets, until they send again;
- a process that sends on a connected UDP, ping or raw socket that another process connected or created: that one is
  named instead. The same goes for the further subflows of MPTCP, which the kernel connects itself;
- packets that belong to no process's socket: forwarded packets, the kernel's own, tunnels, AF_PACKET, AF_XDP;
- addresses that another program at the same cgroup rewrites after ours (programs of lower cgroups run before ours).

Conntrack reports a flow before the egress hook runs, which is where connected UDP, ping, raw and SCTP sockets get their
tuple. A reader on another CPU can therefore look a few microseconds too early. It should then find the socket by
sock_diag and call lookup_cookie(), or look again.

This file has more than 400 lines: one class owns the maps from their creation to their end, and a fifth of the file
explains why a kernel refuses them.
"""
import os
import socket
import struct

cimport cython
from libc.errno cimport EACCES, EBADF, EINVAL, ENOSYS, EOPNOTSUPP, EPERM
from libc.stdint cimport uint16_t
from libc.string cimport memcpy, memset
from posix.unistd cimport close

from nfct_fast.kernel.initial_namespaces import is_initial
from nfct_fast.kernel.privileges import lacking
from nfct_fast.processes.cgroup_filesystem import find_mount
from nfct_fast.events.flow cimport tuple_set, tuple_t
from nfct_fast.processes.owners_cgroup cimport owners_cgroup_mount
from nfct_fast.sockets.owners_find cimport (
    OWNERS_AGAIN, OWNERS_GROWING_BUCKETS, OWNERS_GROWING_RECORDS, OWNERS_KERNEL, OWNERS_MAP_BUCKETS, OWNERS_MAP_EVENTS,
    OWNERS_MAP_RECORDS, OWNERS_PORTS, owners_approach, owners_bytes, owners_close, owners_complete_since, owners_found,
    owners_grown_at, owners_init, owners_is_watched, owners_key, owners_larger_map, owners_lookup, owners_lookup_cookie,
    owners_open, owners_past, owners_port, owners_port_changes, owners_prepare, owners_probe, owners_record,
    owners_retire, owners_retired, owners_switch, owners_take_larger, owners_users, owners_watch, owners_written,
    task_types, task_types_read,
)


cdef extern from "<netinet/in.h>" nogil:
    enum: IPPROTO_ICMP, IPPROTO_ICMPV6

cdef int64_t WINDOW_NS = 1_000_000_000   # interval over which is_due() counts notes

HOOKS = {OWNERS_CREATE: "create", OWNERS_CONNECT: "connect", OWNERS_SEND: "send", OWNERS_ACCEPT: "accept",
         OWNERS_BIND: "bind"}
MATCHES = {OWNERS_EXACT: "exact", OWNERS_NO_SOURCE: "no-source"}

# CAP_PERFMON is for bpf_get_current_comm(): without it the verifier returns EINVAL.
CAPABILITIES = ("net_admin", "perfmon", "bpf")


cdef void record_copy(bpf_owner_t *out, const owners_record *record) noexcept nogil:
    memset(out, 0, sizeof(out[0]))
    out.cookie = record.cookie
    out.netns_cookie = record.netns
    out.cgroup_id = record.who.cgroup
    out.time = record.who.time
    out.id = record.who.id
    out.uid = record.who.uid
    out.gid = record.who.gid
    memcpy(out.comm, record.who.comm, sizeof(out.comm))
    out.hook = record.key.hook
    out.is_kernel = record.key.flags & OWNERS_KERNEL != 0
    out.again = record.key.flags & OWNERS_AGAIN != 0


cdef void owner_copy(bpf_owner_t *out, const owners_found *found) noexcept nogil:
    record_copy(out, &found.record)
    out.other_time = found.other_time
    out.match = found.match


cdef void key_fill(owners_key *key, const tuple_t *tuple) noexcept nogil:
    memset(key, 0, sizeof(owners_key))
    memcpy(key.src, tuple.src, 16)
    memcpy(key.dst, tuple.dst, 16)
    key.family = tuple.family
    key.proto = tuple.proto
    if tuple.proto == IPPROTO_ICMP or tuple.proto == IPPROTO_ICMPV6:
        key.sport = tuple.icmp_id
        key.dport = <uint16_t>tuple.icmp_type << 8 | tuple.icmp_code
    else:
        key.sport = tuple.sport
        key.dport = tuple.dport


def netns_cookie():
    """Return the cookie of the calling thread's network namespace, or None before Linux 5.14."""
    # 71 is SO_NETNS_COOKIE in asm-generic/socket.h. parisc and sparc have other numbers, but no JIT for the programs.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            return struct.unpack("=Q", probe.getsockopt(socket.SOL_SOCKET, 71, 8))[0]
        except OSError:
            return None


def check_pid_namespace():
    """Raise OSError if this process does not see the pids that notes have."""
    if not is_initial("pid"):
        raise OSError("BPF reports pids of the initial pid namespace, and this process is in another one")


def _reason(int error, step, program, log):
    what = f"cannot {step} the BPF program {program}" if program else f"cannot make a BPF {step}"
    if error == EBADF:
        return f"{what}: not a cgroup v2 directory"
    if error == EPERM and step == "attach":
        return f"{what}: the cgroup has a program that was attached without BPF_F_ALLOW_MULTI, which excludes others"
    if error == EPERM:
        return f"{what}: refused in spite of the capabilities (user namespace, seccomp or lockdown?)"
    if error == ENOSYS:
        return f"{what}: this kernel has no bpf(2)"
    if error == EOPNOTSUPP and not program:
        return f"{what}: {step} is not supported"
    if error == EINVAL or error == EACCES:
        lines = [line for line in log.splitlines() if line and not line.startswith(("processed", "verification"))]
        reason = f": {lines.pop()}" if lines else ""
        return f"{what}: kernel {os.uname().release} rejects it (5.15 or later is needed){reason}"
    return f"{what}: {os.strerror(error)}"


@cython.final
@cython.auto_pickle(False)
cdef class SocketNotes:
    """The BPF programs, attached for as long as this object is open, and look-ups in their notes.

    Opening takes about 0.13 s. CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (and CAP_SYS_ADMIN to mount) are needed for that
    only. Nothing remains in the kernel after close() or the death of the process. A child forked meanwhile keeps the
    programs attached until it calls exec or exits. Several objects can be open at once.

    Args:
        notes: How many notes are kept before the oldest is replaced, rounded up to a power of two. A socket that binds
            and then sends takes two. Each takes 152 bytes of kernel memory: 76 MiB for the default, plus 6 MiB in any
            case.
        first: How many notes there is room for until grow() is called; None: all. Eight bytes for each of `notes` are
            used from the start.
        cgroup: A cgroup v2 directory: only processes in it and below it are noted. By default it is the root of the
            hierarchy, which is mounted privately if it is not mounted.
        packets: Whether to attach the only program that runs for each packet sent. Without it the notes lack ping, raw,
            SCTP and DCCP sockets, have connected UDP sockets by cookie only, and unconnected UDP sockets without a
            source address, so that forwarded flows are not found. Per packet the kernel takes about 0.1 us to call the
            program, which itself takes 0.035 us.
        btf: The file with the kernel's BTF.

    Raises:
        OSError: The programs cannot be loaded; the message says what is missing.
    """

    def __cinit__(self, *, notes=300_000, first=None, cgroup=None, packets=True, btf="/sys/kernel/btf/vmlinux"):
        cdef bint each = packets
        cdef uint32_t records = 1024, small = 1024
        cdef task_types tasks
        cdef int fd, rc
        cdef bytes types = b"" if btf is None else os.fsencode(btf)
        owners_init(&self._owners)
        if not 1 <= notes <= 1 << 24:
            raise ValueError(f"notes must be from 1 to {1 << 24}")
        while records < notes:
            records *= 2
        while small < records and (first is None or small < first):
            small *= 2
        mount = find_mount()
        self.cgroup = cgroup or mount and os.fsdecode(mount)
        if self.cgroup is None:
            fd = owners_cgroup_mount()
            if fd < 0:
                raise OSError(-fd, f"no cgroup v2 is mounted, and mounting it failed: {os.strerror(-fd)}")
            self.cgroup = "(own mount)"
        else:
            fd = os.open(self.cgroup, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # ino 1 is the root of the hierarchy; in a container's cgroup namespace "/" is not.
            self.covers_all = os.fstat(fd).st_ino == 1
            rc = task_types_read(&tasks, types)
            if rc < 0:
                what = f"no {tasks.missing.decode()} in" if tasks.missing != NULL else f"{os.strerror(-rc)}:"
                self.processes_missing = f"{what} {btf}, the kernel's description of its types"
            else:
                try:
                    self._load(fd, small, records, each, &tasks)
                except PermissionError:
                    raise
                except OSError as error:
                    self.processes_missing = error.strerror
            if self.processes_missing is not None:
                self._load(fd, small, records, each, NULL)
        finally:
            os.close(fd)
        self.notes = records
        self.packets = each
        self._open = True

    cdef int _load(self, int fd, uint32_t records, uint32_t larger, bint each, const task_types *tasks) except -1:
        cdef int rc
        with nogil:
            rc = owners_open(&self._owners, fd, records, larger, larger, each, tasks)
        if rc < 0:
            step = self._owners.step.decode()
            program = self._owners.program.decode() if self._owners.program else None
            log = (<bytes>self._owners.log).decode(errors="replace")
            owners_close(&self._owners)
            missing = lacking(CAPABILITIES) if -rc in (EPERM, EACCES, EINVAL) else None
            if missing:
                raise PermissionError(EPERM, f"cannot load BPF programs: {' and '.join(missing)} missing")
            raise OSError(-rc, _reason(-rc, step, program, log))
        return 0

    def __dealloc__(self):
        owners_close(&self._owners)

    def close(self):
        """Detach the programs and free the memory. No other thread may be looking up notes."""
        self._open = False
        owners_close(&self._owners)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    @property
    def memory(self):
        """Bytes of kernel memory used."""
        return owners_bytes(&self._owners)

    cdef bint is_due(self, int64_t now) noexcept nogil:
        cdef uint64_t written
        cdef int64_t passed = now - self._since
        if not self._open or self._owners.records[1] == 0 or owners_grown_at(&self._owners):
            return False
        written = owners_written(&self._owners) - self._counted
        # Grow at half of what one user may write in that time, before any of the user's notes are refused.
        if passed < WINDOW_NS and written >= self._owners.records[0] // 8:
            return True
        if passed >= WINDOW_NS:
            self._since, self._counted = now, self._counted + written
            return written // (passed // WINDOW_NS) >= self._owners.records[0] // 8
        return False

    cdef void retire(self, int64_t now) noexcept nogil:
        if not self._open or owners_grown_at(&self._owners) == 0 or self._owners.retired:
            return
        if self._owners.state.retired == 0:
            if owners_written(&self._owners) + 1 - owners_grown_at(&self._owners) >= self._owners.records[1]:
                owners_retire(&self._owners)
                self._since = now
        elif now - self._since >= WINDOW_NS:       # every program that was writing a note then has finished
            owners_retired(&self._owners)

    def grow(self, make=None):
        """Make room for all notes; existing ones stay valid. One thread at a time, while others may look up notes.

        Args:
            make: A function (outer, kind, entries) that makes a map and returns its descriptor, as owners_larger_map()
                does; None to make it here.

        Raises:
            OSError: A map cannot be made; nothing has changed then.
        """
        cdef int fd, rc, kind
        if not self._open:
            raise ValueError("SocketNotes is closed")
        if self._owners.records[1] == 0 or owners_grown_at(&self._owners):
            return
        for kind, which, entries in ((OWNERS_GROWING_RECORDS, OWNERS_MAP_RECORDS, self._owners.records[1]),
                                     (OWNERS_GROWING_BUCKETS, OWNERS_MAP_BUCKETS, self._owners.buckets[1])):
            outer = self._owners.maps[which]
            fd = owners_larger_map(outer, kind, entries) if make is None else make(outer, kind, entries)
            if fd < 0:
                raise OSError(-fd, f"cannot make a larger map for the notes: {os.strerror(-fd)}")
            with nogil:
                rc = owners_take_larger(&self._owners, kind, fd)
                close(fd)
            if rc < 0:
                raise OSError(-rc, f"cannot map the larger map for the notes: {os.strerror(-rc)}")
        owners_switch(&self._owners)

    def counters(self):
        """Return counters since the start, as a dict.

        written: notes written.
        replaced: of these, notes that newer ones have replaced as the ring was full.
        room: how many notes there is room for now.
        displaced: notes that can no longer be found although they were not the oldest, as many tuples shared a bucket.
        collided: notes that were dropped because two writers met.
        limited: notes refused because their user, who is not root, wrote more than a quarter of `room` within a second.
        programs_lost: forks, executions and exits for which the ring had no room.
        wakeups: how often the ring of process events was half full, see fileno().
        """
        if not self._open:
            raise ValueError("SocketNotes is closed")
        written, grown_at = int(owners_written(&self._owners)), int(owners_grown_at(&self._owners))
        room, larger = int(self._owners.records[0]), int(self._owners.records[1])
        replaced = max(0, (grown_at - 1 if grown_at else written) - room)
        if grown_at:
            room = larger
            replaced += max(0, written - (grown_at - 1) - room)
        return {"written": written, "replaced": replaced, "room": room,
                "displaced": self._owners.state.displaced, "collided": self._owners.state.collided,
                "limited": self._owners.state.limited,
                "programs_lost": self._owners.state.events_lost, "wakeups": self._owners.state.wakeups}

    def fileno(self):
        """Return a descriptor that is readable once the ring of process events is half full, or -1 without the ring."""
        return -1 if not self._open or self.processes_missing is not None else self._owners.maps[OWNERS_MAP_EVENTS]

    cdef int lookup(self, const tuple_t *tuple, uint64_t netns_cookie, bpf_owner_t *out) noexcept nogil:
        cdef owners_key key
        cdef owners_probe probe
        if not self._open:
            return 0
        key_fill(&key, tuple)
        owners_prepare(&self._owners, &key, netns_cookie, &probe)
        return self.lookup_prepared(&probe, out)

    cdef int lookup_prepared(self, const owners_probe *probe, bpf_owner_t *out) noexcept nogil:
        cdef owners_found found
        cdef int rc
        if not self._open:
            return 0
        rc = owners_lookup(&self._owners, probe, &found)
        if rc > 0:
            owner_copy(out, &found)
        return rc

    cdef int lookup_past(self, const tuple_t *tuple, uint64_t netns_cookie, uint64_t begin, uint64_t until,
                         bpf_owner_t *out) noexcept nogil:
        cdef owners_key key
        cdef owners_found found
        cdef int rc
        if not self._open:
            return 0
        key_fill(&key, tuple)
        rc = owners_past(&self._owners, &key, netns_cookie, begin, until, &found)
        if rc > 0:
            owner_copy(out, &found)
        return rc

    cdef uint64_t complete_since(self) noexcept nogil:
        return owners_complete_since(&self._owners) if self._open else 0

    cdef int lookup_users(self, const tuple_t *tuple, uint64_t netns_cookie, uint64_t since, uint64_t slack,
                          uint64_t until, bpf_owner_t *out) noexcept nogil:
        cdef owners_key key
        cdef owners_record found[USERS]
        cdef int i, count
        if not self._open:
            return 0
        key_fill(&key, tuple)
        count = owners_users(&self._owners, &key, netns_cookie, since, slack, until, found)
        for i in range(count):
            record_copy(&out[i], &found[i])
        return count

    cdef uint32_t port_changes(self, uint64_t netns_cookie, uint8_t proto, uint16_t port) noexcept nogil:
        return owners_port_changes(&self._owners, netns_cookie, proto, port) if self._open else 0

    cdef void all_port_changes(self, uint64_t netns_cookie, uint8_t proto, uint32_t *out) noexcept nogil:
        if self._open:
            memcpy(out, self._owners.port + owners_port(netns_cookie, proto, 0, self._owners.seed),
                   OWNERS_PORTS * sizeof(uint32_t))

    cdef uint64_t watch(self, uint64_t cookie) noexcept nogil:
        return owners_watch(&self._owners, cookie) if self._open else 0

    cdef bint is_watched(self, uint64_t cookie, uint64_t watch_id) noexcept nogil:
        return self._open and owners_is_watched(&self._owners, cookie, watch_id)

    cdef void prepare(self, const tuple_t *tuple, uint64_t netns_cookie, owners_probe *out) noexcept nogil:
        cdef owners_key key
        out.netns = 0
        if self._open:
            key_fill(&key, tuple)
            owners_prepare(&self._owners, &key, netns_cookie, out)

    cdef void approach(self, const owners_probe *probes, int count) noexcept nogil:
        if self._open:
            owners_approach(&self._owners, probes, count)

    cdef int lookup_cookie(self, uint64_t cookie, bpf_owner_t *out) noexcept nogil:
        cdef owners_found found
        cdef int rc
        if not self._open:
            return 0
        rc = owners_lookup_cookie(&self._owners, cookie, &found)
        if rc > 0:
            owner_copy(out, &found)
        return rc

    def find(self, proto, src, sport, dst, dport, netns_cookie):
        """Find the newest note of a tuple, as seen from its socket. Return a dict, or None if there is none.

        Args:
            proto: IPPROTO_* number.
            src, dst: Addresses in any form that ipaddress accepts.
            sport, dport: Ports; for ICMP `sport` is the id and `dport` is type << 8 | code.
            netns_cookie: Cookie of the socket's network namespace.
        """
        cdef tuple_t tuple
        tuple_fill(&tuple, proto, src, sport, dst, dport)
        return self._answer(&tuple, netns_cookie)

    cdef object _answer(self, const tuple_t *tuple, uint64_t netns_cookie):
        cdef bpf_owner_t owner
        return owner_dict(&owner) if self.lookup(tuple, netns_cookie, &owner) else None

    def find_cookie(self, cookie):
        """Find the newest note of the socket with this cookie (SO_COOKIE). Return a dict, or None if there is none."""
        cdef bpf_owner_t owner
        return owner_dict(&owner) if self.lookup_cookie(cookie, &owner) else None

    def repeat(self, count, proto, src, sport, dst, dport, netns_cookie):
        """Look up one tuple `count` times and return how often it was found, for benchmarks."""
        cdef tuple_t tuple
        cdef uint64_t times = count, cookie = netns_cookie, found
        tuple_fill(&tuple, proto, src, sport, dst, dport)
        with nogil:
            found = lookup_repeat(self, &tuple, cookie, times)
        return found


cdef process_ring *owners_ring(SocketNotes self) noexcept nogil:
    return &self._owners.ring


cdef uint64_t owners_lost(SocketNotes self) noexcept nogil:
    return self._owners.state.events_lost if self._open else 0


cdef uint64_t owners_lost_at(SocketNotes self) noexcept nogil:
    return self._owners.state.lost_at if self._open else 0


cdef uint64_t lookup_repeat(SocketNotes self, const tuple_t *tuple, uint64_t cookie, uint64_t times) noexcept nogil:
    cdef bpf_owner_t owner
    cdef uint64_t found = 0
    while times:
        times -= 1
        found += self.lookup(tuple, cookie, &owner) == 1
    return found


cdef int tuple_fill(tuple_t *out, proto, src, sport, dst, dport) except -1:
    if proto not in (IPPROTO_ICMP, IPPROTO_ICMPV6):
        return tuple_set(out, proto, src, sport, dst, dport)
    tuple_set(out, proto, src, 0, dst, 0)
    out.icmp_id = sport
    out.icmp_type = dport >> 8
    out.icmp_code = dport & 0xff
    return 0


cdef dict owner_dict(const bpf_owner_t *owner):
    return {
        "pid": owner.id.tgid, "start": owner.id.start, "exec": owner.id.exec, "uid": owner.uid, "gid": owner.gid,
        "comm": (<bytes>owner.comm[:16]).split(b"\0", 1)[0].decode(errors="backslashreplace"),
        "cgroup_id": owner.cgroup_id, "netns_cookie": owner.netns_cookie, "cookie": owner.cookie,
        "time": owner.time, "other_time": owner.other_time or None, "again": bool(owner.again),
        "hook": HOOKS[owner.hook], "match": MATCHES[owner.match],
    }
