"""Connection tracking that --track has turned on, and notices of what that means for the host.

When a conntrack table is full, the kernel drops the packets of new connections, whoever they belong to.
"""

import os

from nfct_fast.events.table_fill import TableFill
from nfct_fast.events.tracking_rules import TrackingTable

_LEVELS = (80, 95)  # percentages of the table in use at which a notice is given
_HYSTERESIS = 10  # percentage points by which the use must fall below a level before it is reported again
_LEGACY = ("ip_tables_names", "ip6_tables_names")  # in /proc/net: the namespace's iptables-legacy tables
# Paths that exist if something without a ruleset may use conntrack.
_OTHER_USERS = ("/proc/thread-self/net/ip_vs", "/sys/module/openvswitch", "/sys/module/act_ct")


def _open(path):
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


class _TrackedNamespace:
    """Tracking in the calling thread's network namespace, whose files it keeps open."""

    def __init__(self, name, wanted):
        self.name = name
        self.table = None
        self.reported = 0  # the highest of _LEVELS reported
        self._fill = TableFill()
        self._legacy = [_open(f"/proc/thread-self/net/{file}") for file in _LEGACY]
        try:
            self.table = TrackingTable(wanted, self.is_unshared)
        except BaseException:
            self.close()
            raise

    def is_unshared(self):
        """Return whether nothing but nftables rules can use conntrack here."""
        if any(map(os.path.exists, _OTHER_USERS)):
            return False
        # Without the module the file exists in no namespace, including the one the thread is in now.
        return all(
            not os.pread(fd, 1, 0) if fd >= 0 else not os.path.exists(f"/proc/thread-self/net/{file}")
            for file, fd in zip(_LEGACY, self._legacy)
        )

    def usage(self):
        """Return the number of entries and its limit; None if they cannot be read."""
        return self._fill.usage()

    def take_warning(self):
        """Return a notice if the use of the table has reached the next level, else None."""
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
        return (
            f"{self.name}the conntrack table is {percent} % full, {usage[0]} of {usage[1]} entries: when it is "
            "full, the kernel drops new connections. Raise net.netfilter.nf_conntrack_max"
        )

    def close(self):
        if self.table is not None:
            self.table.close()
        self._fill.close()
        for fd in self._legacy:
            if fd >= 0:
                os.close(fd)
        self._legacy = [-1] * len(_LEGACY)


class Tracking:
    """The namespaces in which connection tracking was turned on. One thread at a time. notices: a Notices."""

    def __init__(self, notices):
        self._namespaces = []
        self._notices = notices

    def add(self, name, wanted):
        """Turn tracking on in the calling thread's namespace.

        Args:
            name: The beginning of each notice about the namespace.
            wanted: Pairs of address family and protocol number.

        Returns:
            An object for remove().

        Raises:
            OSError: See TrackingTable.
        """
        self._namespaces.append(_TrackedNamespace(name, wanted))
        return self._namespaces[-1]

    def remove(self, space) -> None:
        """Turn tracking off in one namespace."""
        if space in self._namespaces:
            self._namespaces.remove(space)
            space.close()

    def announce(self) -> None:
        """Give notice that tracking is on, once all namespaces have been added."""
        usages = [usage for space in self._namespaces if (usage := space.usage()) is not None]
        if usages:
            count, most = max(usages)
            self._notices.add(
                f"connection tracking is turned on: {count} of at most {most} entries are in use "
                "(net.netfilter.nf_conntrack_max). When all are, the kernel drops new connections"
            )

    def check(self) -> None:
        """Give notice of tables that fill up, and track all protocols where something else has begun to use conntrack.

        To be called about once a second.
        """
        for space in self._namespaces:
            try:
                if space.table.relax_if_changed(space.is_unshared):
                    self._notices.add(
                        f"{space.name}all protocols are tracked from now on, because something else on "
                        "this host has begun to use nftables or conntrack"
                    )
            except OSError as error:
                # Others must not be harmed by our exemptions.
                space.table.close()
                space.table.restricted = False
                self._notices.add(
                    f"{space.name}connection tracking is turned off again, because something else on "
                    f"this host has begun to use nftables or conntrack and sharing it failed: {error}"
                )
            if (warning := space.take_warning()) is not None:
                self._notices.add(warning)

    def close(self) -> None:
        """Turn tracking off everywhere; closing twice is harmless. In a forked child, only close the descriptors."""
        for space in self._namespaces:
            space.close()
