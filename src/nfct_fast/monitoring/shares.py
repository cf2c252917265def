"""Whose namespaces are heard where there is no room for all, and with how much receive memory.

Anybody can make network namespaces, as many as he likes. So those of users, by whose user namespace they belong to, have a share
each, and all users together no more than three quarters: what the host's root makes finds room.
"""
from nfct_fast.events.receive_memory import ReceiveMemory, Share

OURS = None             # the owner of what was made in our own user namespace, or in the initial one
_IDLE_NS = 30_000_000_000
_USER, _USERS = 4, 3 / 4        # one user has a fourth of all places; all of them together so many
_USER_MEMORY = 16               # and of the receive memory a sixteenth
_OUR_BUFFER = 1 << 20           # bytes asked for at first: 1,600 flows,
_LEAST_BUFFER, _USER_BUFFER = 4096, 1 << 16     # and 6 to 100, where little memory is allowed; they grow as they fill


def owner(uid, userns):
    """Who has a share of his own, of what netns.owner() says: a user, or what root gave a user namespace to."""
    return OURS if uid is None else (uid, 0) if uid > 0 else (uid, userns)


class Shares:
    """places: namespaces at most; memory: bytes of receive buffers that all may ask for; home: of these for the first of ours."""

    def __init__(self, places, memory, home):
        self.places = max(1, min(places, memory // (4 * _LEAST_BUFFER)))
        self._least = max(_LEAST_BUFFER, min(_USER_BUFFER, memory // (4 * self.places)))
        self._allowance = ReceiveMemory(memory, self._least, self.places)
        self._home = home
        self._memory = {OURS: Share(self._allowance, memory)}

    def memory(self, owner):
        """The Share of receive memory an owner has, and what a socket of his begins with."""
        if owner not in self._memory:
            self._memory[owner] = Share(self._allowance, self._allowance.total // _USER_MEMORY)
        share, size = self._memory[owner], self._least
        if owner is OURS:
            # The first may have half of what is not kept for others; the further ones leave a fourth of all to grow into.
            left = self._allowance.available
            room = left // 2 if self._home else min(_OUR_BUFFER, (left - self._allowance.total // 4) // 8)
            size, self._home = max(size, min(self._home or room, room)), 0
        return share, size

    def forget(self, owners):
        """These are the only owners that there are still namespaces of."""
        self._memory = {owner: share for owner, share in self._memory.items() if owner is OURS or owner in owners}

    def place(self, owner, held, now):
        """Whether there is a place for one more: True, False, or the one of those `held` that is to make room.

        held: what has a place, each with `owner` and `active`, when it last had traffic (monotonic ns). Those with traffic stay,
        but where another has less.
        """
        by_owner = {}
        for one in held:
            by_owner.setdefault(one.owner, []).append(one)
        own = by_owner.get(owner, [])
        ours = by_owner.pop(OURS, [])
        users = sum(map(len, by_owner.values()))
        if owner is not OURS and len(own) >= max(1, self.places // _USER):
            return _idle(own, now)
        if len(held) < self.places and (owner is OURS or users < max(1, int(self.places * _USERS))):
            return True
        if not by_owner:
            return _idle(ours, now)
        most = max(by_owner.values(), key=len)
        if owner is not OURS and len(most) <= len(own) + 1:
            return _idle(own, now)
        return min(most, key=_activity)


def _activity(one):
    return one.active


def _idle(among, now):
    """The one that has been idle longest, if that is long."""
    oldest = min(among, key=_activity, default=None)
    return oldest if oldest is not None and now - oldest.active > _IDLE_NS else False
