/* Search the ring itself for uses of a tuple before its newest record, as the index has only the last one of a program.
 * SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef NFCT_FAST_OWNERS_PAST_H
#define NFCT_FAST_OWNERS_PAST_H

#include <nfct_fast/sockets/owners_find.h>

#define OWNERS_PAST 32768 /* records searched at most, in about 0.1 ms: those of 0.3 s at 100,000 flows a second */
/* ns by which the record of an interrupted writer may be older than its position in the ring suggests. */
#define OWNERS_LATE 20000000ul

/* Find the last use of the tuple between two times, CLOCK_BOOTTIME ns. Return 1 if there is one, 0 if not, -E2BIG if
 * there are too many records since. */
static inline int owners_past(const struct owners *self, const struct owners_key *tuple, uint64_t netns, uint64_t from,
                              uint64_t until, struct owners_found *out)
{
    uint64_t grown_at = owners_grown_at(self);
    uint64_t head = __atomic_load_n(&self->state->head, __ATOMIC_ACQUIRE);
    int found = 0;
    out->match = OWNERS_EXACT;
    out->other_time = 0;
    if (head & OWNERS_GROWN && !grown_at) /* another thread is in owners_switch() */
        return -E2BIG;
    head &= OWNERS_GROWN - 1;
    for (uint64_t count = head - 1; count; count--) {
        int grown = grown_at && count >= grown_at;
        if ((grown_at && !grown ? grown_at : head) - count >= self->records[grown])
            return found;
        uint64_t position = grown ? count | OWNERS_GROWN : count;
        const struct owners_record *record = owners_at(self, position);
        struct owners_record copy;
        if (head - count > OWNERS_PAST)
            return -E2BIG;
        if (__atomic_load_n(&record->who.time, __ATOMIC_RELAXED) + OWNERS_LATE < from)
            return found;
        if (record->key.sport != tuple->sport || record->key.dport != tuple->dport ||
            !owners_read(self, position, &copy) || !owners_fits(&copy, tuple, netns) || copy.who.time < from ||
            copy.who.time > until)
            continue;
        if (!found) {
            out->record = copy;
            found = 1;
        } else if (!owners_is_program(&copy, &out->record) && copy.who.time > out->other_time)
            out->other_time = copy.who.time;
    }
    return found;
}

#define OWNERS_MARGIN 64 /* records that may be overwritten while owners_complete_since() runs */

/* Return the time since which the records are complete, CLOCK_BOOTTIME ns: older ones may have been overwritten. 0:
 * none ever was. */
static inline uint64_t owners_complete_since(const struct owners *self)
{
    uint64_t grown_at = owners_grown_at(self);
    uint64_t head = __atomic_load_n(&self->state->head, __ATOMIC_ACQUIRE) & (OWNERS_GROWN - 1);
    int grown = grown_at && head - grown_at >= self->records[1];
    uint64_t end = grown || !grown_at ? head : grown_at;
    struct owners_record record;
    if (end <= self->records[grown])
        return 0;
    /* Writers may be replacing the oldest records right now. */
    for (uint64_t at = end - self->records[grown] + OWNERS_MARGIN; at < end; at++)
        if (owners_read(self, grown ? at | OWNERS_GROWN : at, &record))
            return record.who.time;
    return ~0ul;
}

#endif
