"""Decide whose namespaces are monitored if there is not room for all, and with how much receive memory.

Anyone can make any number of network namespaces. So there is a quota for the namespaces of each user, who is identified
by the user namespace that owns them, and all users together get at most three quarters of the places. The rest is left
for the namespaces of the host's root.
"""

from nfct_fast.events.receive_memory import ReceiveMemory, Share

OURS = None  # the owner of namespaces of our own user namespace, or of the initial one
_IDLE_NS = 30_000_000_000  # a namespace without traffic for this long makes room for another
_USER, _USERS = 4, 3 / 4  # one user may have a quarter of all places, all users together three quarters
_USER_MEMORY = 16  # one user may have a sixteenth of the receive memory
# Initial bytes of a receive buffer, which grows as it fills.
_OUR_BUFFER = 1 << 20  # of a namespace of ours: room for 1,600 flows
_LEAST_BUFFER, _USER_BUFFER = 4096, 1 << 16  # of a user's: room for 6 to 100 flows, depending on the memory left


def owner(uid, userns):
    """Return the owner of a namespace, given what netns.owner() returns: a user, or a user namespace made by root."""
    return OURS if uid is None else (uid, 0) if uid > 0 else (uid, userns)


class Quotas:
    """The quotas of all owners: how many namespaces each may have monitored, and with how much receive memory.

    Args:
        capacity: The most namespaces that can be monitored at once.
        memory: Bytes of receive buffers that all of them together may request.
        first_buffer: Bytes of these that the first of our namespaces gets.
    """

    def __init__(self, capacity, memory, first_buffer):
        self.capacity = max(1, min(capacity, memory // (4 * _LEAST_BUFFER)))
        self._least = max(_LEAST_BUFFER, min(_USER_BUFFER, memory // (4 * self.capacity)))
        self._receive_memory = ReceiveMemory(memory, self._least, self.capacity)
        self._first_buffer = first_buffer
        self._memory = {OURS: Share(self._receive_memory, memory)}

    def memory(self, owner):
        """Return the owner's Share of the receive memory, and the initial bytes of the owner's next receive buffer."""
        if owner not in self._memory:
            self._memory[owner] = Share(self._receive_memory, self._receive_memory.total // _USER_MEMORY)
        share, size = self._memory[owner], self._least
        if owner is OURS:
            # Our first buffer may have half of what is not reserved for others; later ones leave a quarter to grow
            # into.
            left = self._receive_memory.available
            room = left // 2 if self._first_buffer else min(_OUR_BUFFER, (left - self._receive_memory.total // 4) // 8)
            size, self._first_buffer = max(size, min(self._first_buffer or room, room)), 0
        return share, size

    def forget(self, owners):
        """Forget the Shares of all owners except these and ourselves."""
        self._memory = {owner: share for owner, share in self._memory.items() if owner is OURS or owner in owners}

    def admit(self, owner, monitored, now):
        """Decide whether one more namespace of this owner may be monitored.

        A namespace with traffic is replaced only by one of an owner who has fewer.

        Args:
            owner: See owner().
            monitored: The monitored namespaces, each with its `owner`, and `active`, the time of its last traffic.
            now: The present time, CLOCK_MONOTONIC ns like `active`.

        Returns:
            True, False, or the one of `monitored` that has to make room.
        """
        by_owner = {}
        for one in monitored:
            by_owner.setdefault(one.owner, []).append(one)
        own = by_owner.get(owner, [])
        ours = by_owner.pop(OURS, [])
        users = sum(map(len, by_owner.values()))
        if owner is not OURS and len(own) >= max(1, self.capacity // _USER):
            return _idle(own, now)
        if len(monitored) < self.capacity and (owner is OURS or users < max(1, int(self.capacity * _USERS))):
            return True
        if not by_owner:
            return _idle(ours, now)
        most = max(by_owner.values(), key=len)
        if owner is not OURS and len(most) <= len(own) + 1:
            return _idle(own, now)
        return min(most, key=_activity)


def _activity(one):
    return one.active


def _idle(candidates, now):
    """Return the one that has been idle longest, if that is longer than _IDLE_NS; else False."""
    oldest = min(candidates, key=_activity, default=None)
    return oldest if oldest is not None and now - oldest.active > _IDLE_NS else False
