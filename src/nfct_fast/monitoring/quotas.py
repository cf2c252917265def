"""Whose namespaces are monitored where there is no room for all, and with how much receive memory.

Anybody can make network namespaces, as many as he likes. So the namespaces of each user have a quota, where a user is
told by the user namespace that they belong to, and all users together have three quarters at most: what the host's root
makes finds room.
"""

from nfct_fast.events.receive_memory import ReceiveMemory, Share

OURS = None  # the owner of namespaces of our own user namespace, or of the initial one
_IDLE_NS = 30_000_000_000  # a namespace without traffic for so long makes room for another
_USER, _USERS = 4, 3 / 4  # one user may have a fourth of all namespaces, all users together three quarters
_USER_MEMORY = 16  # one user may have a sixteenth of the receive memory
# Bytes of a receive buffer at first; it grows as it fills.
_OUR_BUFFER = 1 << 20  # ours: 1,600 flows
_LEAST_BUFFER, _USER_BUFFER = 4096, 1 << 16  # users': 6 to 100 flows, by how much memory there is


def owner(uid, userns):
    """The owner of a namespace, from what netns.owner() returns: a user, or a user namespace made by root."""
    return OURS if uid is None else (uid, 0) if uid > 0 else (uid, userns)


class Quotas:
    """Who may have how many namespaces monitored, with how much receive memory.

    Args:
        capacity: Namespaces that can be monitored, at most.
        memory: Bytes of receive buffers that all of them may request.
        first_buffer: Of these, what the first of ours gets.
    """

    def __init__(self, capacity, memory, first_buffer):
        self.capacity = max(1, min(capacity, memory // (4 * _LEAST_BUFFER)))
        self._least = max(_LEAST_BUFFER, min(_USER_BUFFER, memory // (4 * self.capacity)))
        self._receive_memory = ReceiveMemory(memory, self._least, self.capacity)
        self._first_buffer = first_buffer
        self._memory = {OURS: Share(self._receive_memory, memory)}

    def memory(self, owner):
        """The owner's Share of the receive memory, and the bytes that his next socket begins with."""
        if owner not in self._memory:
            self._memory[owner] = Share(self._receive_memory, self._receive_memory.total // _USER_MEMORY)
        share, size = self._memory[owner], self._least
        if owner is OURS:
            # The first may have half of what is not kept for others; the next ones leave a fourth of all to grow into.
            left = self._receive_memory.available
            room = left // 2 if self._first_buffer else min(_OUR_BUFFER, (left - self._receive_memory.total // 4) // 8)
            size, self._first_buffer = max(size, min(self._first_buffer or room, room)), 0
        return share, size

    def forget(self, owners):
        """Forget the Shares of all others than these owners and ourselves."""
        self._memory = {owner: share for owner, share in self._memory.items() if owner is OURS or owner in owners}

    def admit(self, owner, monitored, now):
        """Whether one more namespace of this owner may be monitored.

        A namespace with traffic is not replaced, except by an owner who has fewer.

        Args:
            owner: See owner().
            monitored: The monitored ones, each with its `owner` and `active`, when it last had traffic.
            now: The time of now; as `active`, CLOCK_MONOTONIC ns.

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
    """The one that has been idle longest, if that is longer than _IDLE_NS; else False."""
    oldest = min(candidates, key=_activity, default=None)
    return oldest if oldest is not None and now - oldest.active > _IDLE_NS else False
