"""The memory of the flows that are followed: numbered slots, and an index by what identifies a conntrack entry.

The kernel uses ids again, and addresses and ports too, so an entry is known by its id, tuple, zone and namespace
together, as long as it lives.
"""
cimport cython
from libc.stdlib cimport calloc, free as c_free, realloc
from libc.string cimport memcmp, memset

cdef enum:
    FIRST_ROOM = 1024


@cython.final
@cython.auto_pickle(False)
cdef class FlowSlots:
    """Room for up to `capacity` flows, 280 bytes each and 8 of index."""

    def __cinit__(self, uint32_t capacity):
        self.capacity = capacity
        self.used = 1
        if not self._grow():
            raise MemoryError("followed flows")

    def __dealloc__(self):
        c_free(self.at)
        c_free(self.index)

    cdef uint64_t _home(self, uint64_t fingerprint, uint64_t netns) noexcept nogil:
        return (fingerprint ^ netns * <uint64_t>0x9e3779b97f4a7c15) & self.mask

    cdef bint _grow(self) noexcept nogil:
        cdef uint32_t room = min(max(<uint32_t>FIRST_ROOM, 2 * self.room), self.capacity + 1)
        cdef uint64_t size = FIRST_ROOM * 2
        cdef followed_t *grown
        cdef uint32_t *index
        cdef uint32_t i
        if room == self.room:
            return False
        while size < 2 * <uint64_t>room:
            size *= 2
        grown = <followed_t *>realloc(self.at, room * sizeof(followed_t))
        if grown == NULL:
            return False
        self.at = grown
        index = <uint32_t *>calloc(size, sizeof(uint32_t))
        if index == NULL:
            return False
        memset(grown + self.room, 0, (room - self.room) * sizeof(followed_t))
        self.room = room
        c_free(self.index)
        self.index, self.mask = index, size - 1
        for i in range(1, self.used):
            if self.at[i].fingerprint and not self.at[i].ended:
                self._link(i)
        return True

    cdef void _link(self, uint32_t slot) noexcept nogil:
        cdef uint64_t at = self._home(self.at[slot].fingerprint, self.at[slot].netns)
        while self.index[at] != NO_SLOT:
            at = (at + 1) & self.mask
        self.index[at] = slot

    cdef uint32_t find(self, const flow_t *flow, uint64_t fingerprint, uint64_t netns) noexcept nogil:
        cdef uint64_t at = self._home(fingerprint, netns)
        cdef followed_t *known
        while self.index[at] != NO_SLOT:
            known = &self.at[self.index[at]]
            if (known.fingerprint == fingerprint and known.netns == netns
                    and memcmp(&known.orig, &flow.orig, sizeof(flow.orig)) == 0):
                return self.index[at]
            at = (at + 1) & self.mask
        return NO_SLOT

    cdef uint32_t put(self, const flow_t *flow, uint64_t fingerprint, uint64_t netns) noexcept nogil:
        cdef uint32_t slot = self.free_slot
        if slot != NO_SLOT:
            self.free_slot = self.at[slot].next_free
        elif self.used < self.room or self._grow():
            slot = self.used
            self.used += 1
        else:
            return NO_SLOT
        memset(&self.at[slot], 0, sizeof(followed_t))
        self.at[slot].fingerprint, self.at[slot].netns, self.at[slot].orig = fingerprint, netns, flow.orig
        self._link(slot)
        self.count += 1
        return slot

    cdef void unlink(self, uint32_t slot) noexcept nogil:
        cdef uint64_t hole = self._home(self.at[slot].fingerprint, self.at[slot].netns)
        cdef uint64_t at, home
        while self.index[hole] != slot:
            hole = (hole + 1) & self.mask
        # Move up those behind that would not be found across the hole.
        at = (hole + 1) & self.mask
        while self.index[at] != NO_SLOT:
            home = self._home(self.at[self.index[at]].fingerprint, self.at[self.index[at]].netns)
            if ((at - home) & self.mask) >= ((at - hole) & self.mask):
                self.index[hole] = self.index[at]
                hole = at
            at = (at + 1) & self.mask
        self.index[hole] = NO_SLOT

    cdef void free(self, uint32_t slot) noexcept nogil:
        self.at[slot].fingerprint = 0
        self.at[slot].next_free = self.free_slot
        self.free_slot = slot
        self.count -= 1
