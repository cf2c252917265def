"""Connection tracking that was turned on for us: what it does to the host, told at the start and when it becomes urgent.

A conntrack table that is full drops the packets of new connections, whoever they belong to.
"""
import os

from nfct_fast.events.tracking_rules import TrackingTable

_LEVELS = (80, 95)      # percent: each is told of when it is reached
_HYSTERESIS = 10              # and may be told of again once it has sunk so far below
_LEGACY = ("ip_tables_names", "ip6_tables_names")       # in /proc/net: the tables that iptables-legacy has in a namespace
# What uses conntrack without a ruleset.
_OTHER_USERS = ("/proc/thread-self/net/ip_vs", "/sys/module/openvswitch", "/sys/module/act_ct")


def _open(path):
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


class _TrackedNamespace:
    """Tracking in the namespace of the thread that makes it. Its files stay that namespace's."""

    def __init__(self, name, wanted):
        self.name = name
        self.table = None
        self.reported = 0           # the highest level told of
        self._count, self._max = (_open(f"/proc/sys/net/netfilter/nf_conntrack_{what}") for what in ("count", "max"))
        self._legacy = [_open(f"/proc/thread-self/net/{file}") for file in _LEGACY]
        try:
            self.table = TrackingTable(wanted, self.is_unshared)
        except BaseException:
            self.close()
            raise

    def is_unshared(self):
        """Whether nobody can use conntrack here but by nftables."""
        if any(map(os.path.exists, _OTHER_USERS)):
            return False
        # Without the module there is no such file, neither here nor in the namespace that the thread is in now.
        return all(not os.pread(fd, 1, 0) if fd >= 0 else not os.path.exists(f"/proc/thread-self/net/{file}")
                   for file, fd in zip(_LEGACY, self._legacy))

    def usage(self):
        """Entries, and how many there may be; None where it cannot be read."""
        try:
            return int(os.pread(self._count, 32, 0)), int(os.pread(self._max, 32, 0))
        except (OSError, ValueError):
            return None

    def take_warning(self):
        """What is to be told now of how full it is, or None."""
        usage = self.usage()
        if usage is None or not usage[1]:
            return None
        percent = 100 * usage[0] // usage[1]
        level = max((level for level in _LEVELS if percent >= level), default=0)
        if percent < self.reported - _HYSTERESIS:
            self.reported = level
        if level <= self.reported:
            return None
        self.reported = level
        return (f"{self.name}the conntrack table is {percent} % full, {usage[0]} of {usage[1]} entries: when it is full, new "
                "connections are dropped (raise net.netfilter.nf_conntrack_max)")

    def close(self):
        if self.table is not None:
            self.table.close()
        for fd in (self._count, self._max, *self._legacy):
            if fd >= 0:
                os.close(fd)
        self._count = self._max = -1
        self._legacy = [-1] * len(_LEGACY)


class Tracking:
    """The namespaces in which tracking was turned on for us. One thread at a time; news: what is to be told goes there."""

    def __init__(self, notices):
        self._namespaces = []
        self._notices = notices

    def add(self, name, wanted):
        """Turn it on in the calling thread's namespace, for these pairs of family and protocol; what remove() takes. OSError.

        See TrackingTable."""
        self._namespaces.append(_TrackedNamespace(name, wanted))
        return self._namespaces[-1]

    def remove(self, space) -> None:
        """Turn it off there."""
        if space in self._namespaces:
            self._namespaces.remove(space)
            space.close()

    def announce(self) -> None:
        """All are there: have it told what it means."""
        usages = [usage for space in self._namespaces if (usage := space.usage()) is not None]
        if usages:
            count, most = max(usages)
            self._notices.tell(f"connection tracking is turned on: {count} of at most {most} entries are in use "
                            f"(net.netfilter.nf_conntrack_max), and new connections are dropped when all are")

    def check(self) -> None:
        """Look how full the tables are, and whether somebody else has come to use conntrack; about once a second."""
        for space in self._namespaces:
            try:
                if space.table.relax_if_changed(space.is_unshared):
                    self._notices.tell(f"{space.name}all protocols are tracked from now on: somebody else has come to use nftables "
                                    "or conntrack")
            except OSError as error:
                # Theirs must not suffer from what is ours.
                space.table.close()
                space.table.restricted = False
                self._notices.tell(f"{space.name}connection tracking is turned off again, as somebody else has come to use nftables "
                                f"or conntrack, and it cannot be shared: {error}")
            if (warning := space.take_warning()) is not None:
                self._notices.tell(warning)

    def close(self) -> None:
        """Turn it off; closing twice is harmless. In a process that has it by fork: close the descriptors."""
        for space in self._namespaces:
            space.close()
