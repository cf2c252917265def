/* Find all programs that used a tuple, by the tuple index, which has the last record of each.
 * SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef NFCT_FAST_OWNERS_USERS_H
#define NFCT_FAST_OWNERS_USERS_H

#include <nfct_fast/sockets/owners_find.h>

#define OWNERS_USERS OWNERS_SLOTS /* a bucket has no more records of one tuple */

/* Add the records of one key to the `count` in out, the latest first, and of each program only the latest. Return how
 * many there are then. */
static inline int owners_users_scan(const struct owners *self, const struct owners_key *key,
                                    const struct owners_key *tuple, uint64_t netns, uint64_t until,
                                    struct owners_record *out, int count)
{
    uint64_t hash = owners_hash(key, netns, self->seed);
    struct owners_record record;
    int slots = owners_slots(self);
    for (int i = owners_first_slot(self); i < slots; i++) {
        if (!owners_slot_read(self, hash, i, tuple, netns, &record) || record.who.time > until)
            continue;
        int at = 0, end;
        while (at < count && out[at].who.time >= record.who.time && !owners_is_program(&out[at], &record))
            at++;
        if (at < count && out[at].who.time >= record.who.time) /* a later record of the same program is there */
            continue;
        for (end = at; end < count && !owners_is_program(&out[end], &record); end++)
            ;
        if (at == OWNERS_USERS)
            continue;
        if (end == OWNERS_USERS)
            end--;
        else if (end == count)
            count++;
        memmove(&out[at + 1], &out[at], (size_t)(end - at) * sizeof(*out));
        out[at] = record;
    }
    return count;
}

/* Find the programs that used the tuple from `since` to `until`, CLOCK_BOOTTIME ns, the latest first. Return how many
 * there are. A socket that keeps sending gets no further record. The last program recorded before `since` therefore
 * made the conntrack entry, unless another was recorded just after `since`, as packets of a connected UDP socket are
 * recorded after conntrack has seen them. slack: the longest time between the record and the entry, ns. */
static inline int owners_users(const struct owners *self, const struct owners_key *tuple, uint64_t netns,
                               uint64_t since, uint64_t slack, uint64_t until, struct owners_record out[OWNERS_USERS])
{
    struct owners_key key, sender;
    int sends = owners_keys(tuple, &key, &sender);
    int count = owners_users_scan(self, &key, &key, netns, until, out, 0);
    if (sends)
        count = owners_users_scan(self, &sender, &key, netns, until, out, count);
    int used = 0;
    while (used < count && out[used].who.time >= since)
        used++;
    if (used < count && (used == 0 || out[used - 1].who.time > since + slack || out[used].who.time + slack >= since))
        used++;
    return used;
}

#endif
