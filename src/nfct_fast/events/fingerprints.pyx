"""Fingerprints of conntrack entries, 64 bits each, in a log and in a hash set: they tell which flows were reported.

Most fingerprints are never looked up. Adding one to a set takes a cache miss, a tenth of the time that a flow takes;
appending it to a log takes almost nothing. So flows are logged, and a set is built from the log only when a dump needs
it.

Within a namespace an entry is identified by its id, tuple and zone. The id alone is not enough: it is the kernel's hash
of the entry's address and tuple (nf_ct_get_id, Linux 5.2), 32 bits, which two live entries may share. With 64 bits
mixed from all of these, two of a million entries collide with a probability of 3 in 100 million.
"""
from libc.errno cimport ENOMEM
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy
from nfct_fast.events.flow cimport NUMBER_ID, NUMBER_ZONE
from sys_socket cimport AF_INET
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, PROT_READ, PROT_WRITE, mmap, mremap, munmap

cdef extern from "<sys/mman.h>" nogil:
    enum: MREMAP_MAYMOVE

cdef enum:
    MIN_SLOTS = 1024         # initial size of a set or log


cdef uint64_t *_map_words(uint64_t *old, uint64_t before, uint64_t count) noexcept nogil:
    """Map memory for `count` words: the first `before` words of `old`, unless that is NULL, and then zeros.

    Return NULL if memory is exhausted; `old` is then unchanged. The memory is mapped, not malloc()ed: freed within
    malloc's heap, 16 MiB stayed resident after a sweep.
    """
    cdef void *result
    if old == NULL:
        result = mmap(NULL, count * sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    else:
        result = mremap(old, before * sizeof(uint64_t), count * sizeof(uint64_t), MREMAP_MAYMOVE)
    return <uint64_t *>result if result != MAP_FAILED else NULL


cdef void _unmap_words(uint64_t *numbers, uint64_t count) noexcept nogil:
    if numbers != NULL:
        munmap(numbers, count * sizeof(uint64_t))       # cannot fail for a whole mapping


cdef inline uint64_t _mix(uint64_t state, uint64_t value) noexcept nogil:
    # The finalizer of splitmix64 (Steele, Lea and Flood, 2014).
    state = (state ^ value) * <uint64_t>0x9e3779b97f4a7c15
    state = (state ^ (state >> 30)) * <uint64_t>0xbf58476d1ce4e5b9
    state = (state ^ (state >> 27)) * <uint64_t>0x94d049bb133111eb
    return state ^ (state >> 31)


cdef uint64_t flow_fingerprint(const flow_t *flow) noexcept nogil:
    cdef uint64_t words[4]
    cdef uint32_t source, target
    cdef uint64_t result = 0
    cdef int i
    if flow.orig.family == AF_INET:
        # Mix as few words as possible: each takes 5 ns, since it depends on the one before.
        memcpy(&source, flow.orig.src, 4)
        memcpy(&target, flow.orig.dst, 4)
        result = _mix(result, <uint64_t>source << 32 | target)
    else:
        memcpy(words, flow.orig.src, 16)
        memcpy(words + 2, flow.orig.dst, 16)
        for i in range(4):
            result = _mix(result, words[i])
    result = _mix(result, <uint64_t>flow.orig.sport << 48 | <uint64_t>flow.orig.dport << 32 | flow.numbers[NUMBER_ID])
    result = _mix(result, <uint64_t>flow.orig.proto << 48 | <uint64_t>flow.orig.icmp_id << 32
                  | <uint64_t>flow.orig.icmp_type << 16 | flow.numbers[NUMBER_ZONE])
    return result or 1


cdef uint64_t *_slot(uint64_t *slots, uint64_t mask, uint64_t fingerprint) noexcept nogil:
    cdef uint64_t at = fingerprint & mask
    while slots[at] != 0 and slots[at] != fingerprint:
        at = (at + 1) & mask
    return slots + at


cdef bint _holds(uint64_t size, uint64_t count) noexcept nogil:
    # Keep the set at most three quarters full.
    return 4 * count <= 3 * size


cdef int fingerprint_set_reserve(fingerprint_set_t *set, uint64_t count) noexcept nogil:
    cdef uint64_t size = set.mask + 1 if set.slots != NULL else MIN_SLOTS
    cdef uint64_t *slots
    cdef uint64_t i
    while not _holds(size, count):
        size *= 2
    if set.slots != NULL and size == set.mask + 1:
        return 0
    slots = _map_words(NULL, 0, size)
    if slots == NULL:
        return -ENOMEM
    if set.slots != NULL:
        for i in range(set.mask + 1):
            if set.slots[i]:
                _slot(slots, size - 1, set.slots[i])[0] = set.slots[i]
    _unmap_words(set.slots, set.mask + 1)
    set.slots = slots
    set.mask = size - 1
    return 0


cdef int fingerprint_set_add(fingerprint_set_t *set, uint64_t fingerprint) noexcept nogil:
    cdef uint64_t *slot
    if set.slots == NULL or not _holds(set.mask + 1, set.count + 1):
        if fingerprint_set_reserve(set, set.count + 1) < 0:
            return -ENOMEM
    slot = _slot(set.slots, set.mask, fingerprint)
    if slot[0]:
        return 0
    slot[0] = fingerprint
    set.count += 1
    return 1


cdef bint fingerprint_set_has(const fingerprint_set_t *set, uint64_t fingerprint) noexcept nogil:
    return set.slots != NULL and _slot(set.slots, set.mask, fingerprint)[0] != 0


cdef int fingerprint_log_add(fingerprint_log_t *log, uint64_t fingerprint) noexcept nogil:
    cdef uint64_t capacity
    cdef uint64_t *grown
    if log.count == log.capacity:
        capacity = 2 * log.capacity if log.capacity else MIN_SLOTS
        grown = _map_words(log.entries, log.capacity, capacity)
        if grown == NULL:
            return -ENOMEM
        log.entries = grown
        log.capacity = capacity
    log.entries[log.count] = fingerprint
    log.count += 1
    return 0


cdef void fingerprint_log_free(fingerprint_log_t *log) noexcept nogil:
    _unmap_words(log.entries, log.capacity)
    log.entries = NULL
    log.count = log.capacity = 0


cdef int fingerprint_set_add_log(fingerprint_set_t *set, const fingerprint_log_t *log, uint64_t begin,
                                 uint64_t end) noexcept nogil:
    cdef uint64_t i
    for i in range(begin, end):
        if fingerprint_set_add(set, log.entries[i]) < 0:
            return -ENOMEM
    return 0


cdef void fingerprint_set_free(fingerprint_set_t *set) noexcept nogil:
    _unmap_words(set.slots, set.mask + 1)
    set.slots = NULL
    set.mask = set.count = 0
