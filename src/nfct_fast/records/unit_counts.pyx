"""Counts by systemd unit and container, of which a host may have any number in the course of a year.

1,000 are told apart. When there are more, those that had no flow for ten minutes make room, and what finds none is
counted together. Only names that the host's root chose are counted: see cgroup.pyx.
"""
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset
from nfct_fast.processes.cgroup cimport cgroup_names_t, span_t

import os

cdef extern from "nfct_fast/text/siphash.h" nogil:
    uint64_t nfct_fast_text_hash(const uint64_t *key, const char *data, size_t length)

cdef enum:
    SLOTS = 4096             # a power of two, four times UNITS_MOST: chains stay short
    HINTS = 512              # a power of two
    FIRST = 2                # the number of the first that has a name

cdef int64_t IDLE_NS = 600 * <int64_t>1_000_000_000      # longer than anybody's scrape interval
cdef int64_t SWEEP_NS = 1_000_000_000


cdef int units_open(unit_counts_t *units) except -1:
    cdef bytes secret = os.urandom(sizeof(units.key))
    memcpy(units.key, <const char *>secret, sizeof(units.key))
    # Pages that are not touched take no memory.
    units.units = <unit_count_t *>calloc(UNITS_MOST + FIRST, sizeof(unit_count_t))
    units.slots = <uint16_t *>calloc(SLOTS, sizeof(uint16_t))
    units.hints = <uint16_t *>calloc(HINTS, sizeof(uint16_t))
    units.count = FIRST
    if units.units == NULL or units.slots == NULL or units.hints == NULL:
        units_free(units)
        raise MemoryError("counts of units")
    return 0


cdef void units_free(unit_counts_t *units) noexcept nogil:
    free(units.units)
    free(units.slots)
    free(units.hints)
    units.units = NULL
    units.slots = units.hints = NULL


cdef inline bint _is(const unit_count_t *unit, const span_t *name, const span_t *runtime,
                     bint container) noexcept nogil:
    return (unit.size == name.size and unit.runtime_size == runtime.size and unit.is_container == container
            and memcmp(unit.text, name.at, name.size) == 0
            and (runtime.size == 0 or memcmp(unit.text + name.size, runtime.at, runtime.size) == 0))


cdef inline uint32_t _slot(const unit_counts_t *units, const char *name, size_t size) noexcept nogil:
    return <uint32_t>nfct_fast_text_hash(units.key, name, size) & (SLOTS - 1)


cdef void _place(unit_counts_t *units, int number) noexcept nogil:
    cdef uint32_t at = _slot(units, units.units[number].text, units.units[number].size)
    while units.slots[at]:
        at = (at + 1) & (SLOTS - 1)
    units.slots[at] = <uint16_t>(number + 1)


cdef void _sweep(unit_counts_t *units, int64_t now) noexcept nogil:
    """Drop those that have not been used for long. At most once a second, as it looks at all."""
    cdef int kept = FIRST
    cdef int i
    if now - units.swept < SWEEP_NS:
        return
    units.swept = now
    for i in range(FIRST, units.count):
        if now - units.units[i].used < IDLE_NS:
            if kept != i:
                units.units[kept] = units.units[i]
            kept += 1
    if kept == units.count:
        return
    units.count = kept
    memset(units.slots, 0, SLOTS * sizeof(uint16_t))
    memset(units.hints, 0, HINTS * sizeof(uint16_t))
    for i in range(FIRST, kept):
        _place(units, i)


cdef int _number(unit_counts_t *units, const span_t *name, const span_t *runtime, bint container,
                 int64_t now) noexcept nogil:
    cdef uint32_t at = _slot(units, name.at, name.size)
    cdef unit_count_t *unit
    while units.slots[at]:
        if _is(&units.units[units.slots[at] - 1], name, runtime, container):
            return units.slots[at] - 1
        at = (at + 1) & (SLOTS - 1)
    if units.count == UNITS_MOST + FIRST:
        _sweep(units, now)
    if units.count == UNITS_MOST + FIRST or name.size + runtime.size > UNIT_ROOM:
        return UNIT_OTHER
    unit = &units.units[units.count]
    memset(unit, 0, sizeof(unit[0]))
    unit.size, unit.runtime_size, unit.is_container = <uint16_t>name.size, <uint16_t>runtime.size, container
    memcpy(unit.text, name.at, name.size)
    if runtime.size:
        memcpy(unit.text + name.size, runtime.at, runtime.size)
    _place(units, units.count)
    units.count += 1
    return units.count - 1


cdef unit_count_t *units_find(unit_counts_t *units, const cgroup_names_t *names, const void *hint,
                              int64_t now) noexcept nogil:
    cdef bint container = names != NULL and names.container.size > 0
    cdef const span_t *name
    cdef span_t runtime
    cdef uint16_t *hinted
    cdef unit_count_t *unit
    if names == NULL or names.container.size == 0 and names.unit.size == 0:
        return &units.units[UNIT_UNKNOWN]
    name = &names.container if container else &names.unit
    memset(&runtime, 0, sizeof(runtime))
    if container:
        runtime = names.runtime
    # Without the hint, hashing the name would take most of the time.
    hinted = &units.hints[(<uintptr_t>hint >> 6 ^ <uintptr_t>hint >> 15) & (HINTS - 1)]
    unit = &units.units[hinted[0]]
    if hinted[0] < FIRST or not _is(unit, name, &runtime, container):
        hinted[0] = <uint16_t>_number(units, name, &runtime, container, now)
        unit = &units.units[hinted[0]]
    unit.used = now
    return unit
