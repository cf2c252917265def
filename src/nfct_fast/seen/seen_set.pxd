"""A bounded set of hashes, from which those give way that were not seen for longest."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    SEEN_GROUPS = 1024       # of users: the first half for those of the system
    SEEN_SYSTEM = 512
    SEEN_AGES = 64
    SEEN_FULL = 0xffff       # seen_entry_t.count of a subject that has used up its marks

# As it stands in the file, too.
ctypedef struct seen_entry_t:
    uint64_t hash            # 0: no entry
    uint32_t last            # seconds since the epoch when it was last seen, to some hours
    uint16_t group           # of the user to whom it is counted; below SEEN_GROUPS
    uint16_t count           # of a subject: marks since `last`, or SEEN_FULL; else 0

# Used by one thread at a time.
cdef class SeenSet:
    cdef seen_entry_t *slots
    cdef uint64_t mask               # slots - 1
    cdef readonly uint32_t count     # of entries
    cdef readonly uint32_t limit
    cdef readonly uint64_t forgotten     # entries that had to give way
    cdef uint32_t counts[SEEN_GROUPS]
    cdef uint32_t (*ages)[SEEN_AGES]     # of each group, how many entries have which age
    # The entry with a hash, which is valid until the next add(); NULL: there is none.
    cdef seen_entry_t *find(self, uint64_t hash) noexcept nogil
    # Begin to load the memory where a hash is.
    cdef void approach(self, uint64_t hash) noexcept nogil
    # Add or replace an entry, for which others give way if there is no room: 0, or -ENOMEM.
    cdef int add(self, const seen_entry_t *entry) noexcept nogil
    cdef void _put(self, const seen_entry_t *entry) noexcept nogil
    cdef int _rebuild(self, uint64_t size, const uint8_t *oldest, uint32_t *excess, uint32_t now) noexcept nogil
    cdef uint32_t _level(self, int first, uint64_t goal) noexcept nogil
    cdef int _make_room(self, uint32_t now) noexcept nogil
