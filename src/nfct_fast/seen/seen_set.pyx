"""A set of hashes with the time when each was last seen, in open addressing: 16 bytes each, never more than `limit`.

When it is full, an eighth gives way at once, as to find the oldest takes a walk through all: 30 to 60 ms for 786,432.
Whoever has most loses most, and of theirs those that were not seen for longest: every user above a level that is the
same for all is cut down to it. Users of the system are counted by themselves, all others together may have half of the
room. So nobody can have another user's entries forgotten but by having fewer than that user.

The hashes are keyed (first_seen.pyx): nobody can choose ones that collide, or that lie in a row.
"""
cimport cython
from libc.errno cimport ENOMEM
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, PROT_READ, PROT_WRITE, mmap, munmap

cdef enum:
    FEWEST = 1 << 12             # slots: 64 KiB
    AGE_STEP = 6 * 3600          # seconds; first_seen.pyx notes no finer times

cdef extern from *:
    """
    /* A load, not a prefetch instruction, as in owners_find.h. */
    static inline void nfct_fast_touch(const void *at)
    {
        uint64_t word = *(const volatile uint64_t *)at;
        __asm__ volatile("" : : "r"(word));
    }
    """
    void nfct_fast_touch(const void *address) noexcept nogil


cdef uint8_t _age(uint32_t last, uint32_t now) noexcept nogil:
    """The age of an entry in steps that become longer: four of 6 h, then four for each doubling."""
    cdef uint32_t steps = (now - last) // AGE_STEP if now > last else 0
    cdef uint32_t length = 0
    while steps >> length:
        length += 1
    return <uint8_t>steps if length < 3 else <uint8_t>(4 * (length - 2) + (steps >> (length - 3) & 3))


cdef seen_entry_t *_slots(uint64_t size) noexcept nogil:
    cdef void *result = mmap(NULL, size * sizeof(seen_entry_t), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                             -1, 0)
    return <seen_entry_t *>result if result != MAP_FAILED else NULL


@cython.final
@cython.auto_pickle(False)
cdef class SeenSet:
    """At most `limit` entries; memory is taken as they come. Raises MemoryError, ValueError."""

    def __cinit__(self, limit):
        if not 1024 <= limit <= 1 << 26:
            raise ValueError(f"first_seen {limit}: must be from 1024 to {1 << 26}")
        self.limit = limit
        self.slots = _slots(FEWEST)
        self.ages = <uint32_t (*)[SEEN_AGES]>calloc(SEEN_GROUPS, sizeof(self.ages[0]))
        if self.slots == NULL or self.ages == NULL:
            raise MemoryError("first seen")
        self.mask = FEWEST - 1

    def __dealloc__(self):
        if self.slots != NULL:
            munmap(self.slots, (self.mask + 1) * sizeof(seen_entry_t))
        free(self.ages)

    cdef seen_entry_t *find(self, uint64_t hash) noexcept nogil:
        cdef uint64_t at = hash & self.mask
        while self.slots[at].hash:
            if self.slots[at].hash == hash:
                return &self.slots[at]
            at = at + 1 & self.mask
        return NULL

    cdef void approach(self, uint64_t hash) noexcept nogil:
        nfct_fast_touch(&self.slots[hash & self.mask])

    cdef int add(self, const seen_entry_t *entry) noexcept nogil:
        cdef seen_entry_t *known = self.find(entry.hash)
        cdef int result = 0
        if known != NULL:
            self.counts[known.group] -= 1
            self.counts[entry.group] += 1
            known[0] = entry[0]
            return 0
        if self.count >= self.limit:
            result = self._make_room(entry.last)
        elif self.count >= (self.mask + 1) // 4 * 3:
            result = self._rebuild(2 * (self.mask + 1), NULL, NULL, 0)
        if result < 0:
            return result
        self._put(entry)
        return 0

    cdef void _put(self, const seen_entry_t *entry) noexcept nogil:
        """Add an entry that is not there, and for which there is a slot."""
        cdef uint64_t at = entry.hash & self.mask
        while self.slots[at].hash:
            at = at + 1 & self.mask
        self.slots[at] = entry[0]
        self.counts[entry.group] += 1
        self.count += 1

    cdef int _rebuild(self, uint64_t size, const uint8_t *oldest, uint32_t *excess, uint32_t now) noexcept nogil:
        """Have `size` slots, without the entries older than `oldest` of their group, and `excess` of those as old."""
        cdef seen_entry_t *old = self.slots
        cdef uint64_t mask = self.mask
        cdef uint64_t i
        cdef uint8_t age
        cdef seen_entry_t *slots = _slots(size)
        if slots == NULL:
            return -ENOMEM
        self.slots, self.mask, self.count = slots, size - 1, 0
        memset(self.counts, 0, sizeof(self.counts))
        for i in range(mask + 1):
            if old[i].hash == 0:
                continue
            if oldest != NULL:
                age = _age(old[i].last, now)
                if age > oldest[old[i].group]:
                    self.forgotten += 1
                    continue
                if age == oldest[old[i].group] and excess[old[i].group]:
                    excess[old[i].group] -= 1
                    self.forgotten += 1
                    continue
            self._put(&old[i])
        munmap(old, (mask + 1) * sizeof(seen_entry_t))
        return 0

    cdef uint32_t _level(self, int first, uint64_t goal) noexcept nogil:
        """The highest number of entries to which all groups from `first` on can be cut so that `goal` are gone."""
        cdef uint32_t low = 0, high = self.limit, middle
        cdef uint64_t gone
        cdef int i
        while low < high:
            middle = low + (high - low + 1) // 2
            gone = 0
            for i in range(first, SEEN_GROUPS):
                gone += self.counts[i] - middle if self.counts[i] > middle else 0
            if gone >= goal:
                low = middle
            else:
                high = middle - 1
        return low

    cdef int _make_room(self, uint32_t now) noexcept nogil:
        cdef uint8_t oldest[SEEN_GROUPS]
        cdef uint32_t excess[SEEN_GROUPS]
        cdef uint64_t others = 0, i
        cdef uint32_t level
        cdef int group, first, age
        for group in range(SEEN_SYSTEM, SEEN_GROUPS):
            others += self.counts[group]
        first = SEEN_SYSTEM if others > self.limit // 2 else 0
        level = self._level(first, self.limit // 8)
        memset(self.ages, 0, SEEN_GROUPS * sizeof(self.ages[0]))
        for i in range(self.mask + 1):
            if self.slots[i].hash:
                self.ages[self.slots[i].group][_age(self.slots[i].last, now)] += 1
        for group in range(SEEN_GROUPS):
            oldest[group], excess[group] = SEEN_AGES - 1, 0
            if group < first or self.counts[group] <= level:
                continue
            excess[group] = self.counts[group] - level
            age = SEEN_AGES - 1
            while age > 0 and self.ages[group][age] <= excess[group]:
                excess[group] -= self.ages[group][age]
                age -= 1
            oldest[group] = <uint8_t>age
        return self._rebuild(self.mask + 1, oldest, excess, now)

    def load(self, bytes entries not None) -> int:
        """Add what dump() returned, the later of two that are the same; return how many are no entries, left out."""
        cdef seen_entry_t entry
        cdef const char *at = entries
        cdef size_t left = len(entries)
        cdef int refused = 0
        while left >= sizeof(entry):
            memcpy(&entry, at, sizeof(entry))
            at += sizeof(entry)
            left -= sizeof(entry)
            if entry.hash == 0 or entry.group >= SEEN_GROUPS:
                refused += 1
            elif self.add(&entry) < 0:
                raise MemoryError("first seen")
        return refused + (left != 0)

    def dump(self) -> bytes:
        """Return all entries."""
        cdef uint64_t i
        cdef uint64_t at = 0
        cdef seen_entry_t *out = <seen_entry_t *>malloc((self.count + 1) * sizeof(seen_entry_t))
        if out == NULL:
            raise MemoryError("first seen")
        for i in range(self.mask + 1):
            if self.slots[i].hash:
                out[at] = self.slots[i]
                at += 1
        try:
            return (<const char *>out)[:at * sizeof(seen_entry_t)]
        finally:
            free(out)

    def shares(self) -> tuple[int, ...]:
        """Return how many entries each group of users has."""
        cdef int i
        return tuple([self.counts[i] for i in range(SEEN_GROUPS)])
