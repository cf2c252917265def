"""The flows of a live table, with who made them and the row each counts for, and the sums of the rows.

Flows come as records when they begin and end; in between, readings of the conntrack tables tell their bytes. Everything
has a limit: beyond it there is a row "? others", and flows that are only counted.
"""
cimport cython
from libc.stdlib cimport calloc, free, malloc, qsort
from libc.string cimport memcmp, memset
from nfct_fast.events.fingerprints cimport flow_fingerprint
from nfct_fast.events.flow cimport (
    EVENT_FLOW, EVENT_NEW, FLOW_COUNTERS, FLOW_RECOVERED, FLOW_REPLY, tuple_has_ports, tuple_invert, tuple_t)
from nfct_fast.live_table.flow_slots cimport BYTES_IN, BYTES_OUT, NO_SLOT
from nfct_fast.records.labels cimport ADDRESS_SIZE, address_write
from nfct_fast.records.owner cimport owner_object, owner_t, owner_uid
from nfct_fast.records.record cimport RECORD_FLOW
from nfct_fast.records.taken_records cimport TakenRecords

from nfct_fast.live_table.parties import GROUPINGS, OF_PARTIES, Party
from nfct_fast.live_table.row import Row, Totals
from nfct_fast.text.protocol import protocol_name

FLOWS = 1 << 18

cdef enum:
    PARTIES = 1 << 14        # the most at once, of which each has a Process: some 2 to 6 KB
    GROUPS = 1 << 14
    NO_GROUP = 0xffffffff
    OTHERS = 0               # number of the party and of the group of what there is no room for

cdef struct ranked_t:
    double by
    uint32_t slot


cdef int _compare(const void *left, const void *right) noexcept nogil:
    cdef const ranked_t *a = <const ranked_t *>left
    cdef const ranked_t *b = <const ranked_t *>right
    return (a.by < b.by) - (a.by > b.by) or (a.slot > b.slot) - (a.slot < b.slot)


cdef str _address(const unsigned char *address, unsigned char family):
    cdef char text[ADDRESS_SIZE]
    cdef int length = address_write(address, family, text)
    return text[:length].decode("ascii")


cdef str _socket(const unsigned char *address, int port, const tuple_t *tuple):
    text = _address(address, tuple.family)
    return f"{text}/{port}" if tuple_has_ports(tuple) else text


@cython.final
@cython.auto_pickle(False)
cdef class FollowedFlows:
    """All flows that are followed, in rows by one of parties.GROUPINGS.

    Args:
        grouping: What rows stand for.
        capacity: How many flows are followed at once; of what comes beyond, only the beginning is counted.
        gone_after: Seconds for which readings do not find a flow until it has ended: its end may still be queued.
    """

    def __cinit__(self, grouping="process", capacity=FLOWS, double gone_after=5):
        self.gone_after = <int64_t>(gone_after * 1e9)
        self.slots = FlowSlots(capacity)
        self.parties = <party_t *>calloc(PARTIES, sizeof(party_t))
        self.groups = <group_t *>calloc(GROUPS, sizeof(group_t))
        if self.parties == NULL or self.groups == NULL:
            raise MemoryError("followed flows")
        self.party_numbers, self.party_keys, self.party_objects, self.free_parties = {}, [None], [Party(None)], []
        self.round = 1
        self.regroup(grouping)

    def __dealloc__(self):
        free(self.parties)
        free(self.groups)

    def regroup(self, grouping) -> None:
        """Put all flows in rows of another kind. What rows counted since the start is then that of these flows."""
        cdef followed_t *flow
        cdef group_t *group
        cdef uint32_t i, to
        if grouping not in GROUPINGS:
            raise ValueError(f"grouping {grouping!r}: must be one of {', '.join(GROUPINGS)}")
        self.grouping = grouping
        memset(self.groups, 0, GROUPS * sizeof(group_t))
        self.group_numbers, self.group_keys, self.free_groups = {}, [None], []
        self.group_names, self.group_parties = ["? others"], [self.party_objects[OTHERS]]
        for i in range(len(self.party_objects)):
            self.parties[i].group = NO_GROUP
        for i in range(1, self.slots.used):
            flow = &self.slots.at[i]
            if flow.fingerprint == 0:
                continue
            to = self._group_of(flow.party, flow)
            self._join_group(i, to)
            if to == NO_GROUP:
                continue
            group = &self.groups[to]
            for side in range(2):
                group.window[side] += flow.window[side]
                group.total[side] += flow.total[side]
                group.rate[side] += flow.rate[side]

    def take(self, TakenRecords records not None) -> None:
        """Take what is left of a batch of records of Conntrack(events="NEW", flows=True)."""
        cdef record_t *record
        cdef int i
        self.identity = records.presentation.identity
        for i in range(records.consumed, records.count):
            record = &records.records[i]
            if record.kind != RECORD_FLOW:
                continue
            if record.flow.type == EVENT_NEW:
                self._begin(record)
            elif record.flow.type == EVENT_FLOW:
                self._end(record)
        records.consume(records.count)

    cdef int _begin(self, record_t *record) except -1:
        cdef uint64_t fingerprint = flow_fingerprint(&record.flow)
        cdef uint64_t netns = record.flow.netns_inode
        cdef uint32_t slot = self.slots.find(&record.flow, fingerprint, netns)
        cdef bint is_new = not record.flow.has & FLOW_RECOVERED
        cdef uint32_t party, group
        cdef followed_t *flow
        cdef followed_t unfollowed
        cdef tuple_t inverse
        if slot != NO_SLOT:
            if not is_new:
                return 0
            self._close(slot, record.flow.time, False)      # its end was lost, and the entry's memory is used again
        party = self._party_of(record)
        self.all.began += is_new
        slot = self.slots.put(&record.flow, fingerprint, netns)
        if slot == NO_SLOT:
            self.unfollowed += 1
            unfollowed.orig = record.flow.orig
            group = self._group_of(party, &unfollowed)
            if group != NO_GROUP:
                self.groups[group].began += is_new
                self.groups[group].active = record.flow.time
            return 0
        flow = &self.slots.at[slot]
        flow.party, flow.began, flow.is_responder = party, record.flow.time, record.is_responder
        flow.round = self.round
        if record.flow.has & FLOW_REPLY:
            flow.reply = record.flow.reply
            tuple_invert(&flow.orig, &inverse)
            flow.is_translated = memcmp(inverse.src, flow.reply.src, 36) != 0     # addresses and ports
        if not is_new and record.flow.has & FLOW_COUNTERS:
            flow.told[0], flow.told[1] = record.flow.bytes[0], record.flow.bytes[1]     # it may have begun long ago
        self.parties[party].flows += 1
        self.live += 1
        group = self._group_of(party, flow)
        self._join_group(slot, group)
        if group != NO_GROUP:
            self.groups[group].began += is_new
            self.groups[group].active = record.flow.time
        return 0

    cdef int _end(self, record_t *record) except -1:
        cdef uint32_t slot = self.slots.find(&record.flow, flow_fingerprint(&record.flow), record.flow.netns_inode)
        if slot != NO_SLOT:
            if record.flow.has & FLOW_COUNTERS:
                self._count(&self.slots.at[slot], record.flow.bytes)
            self._close(slot, record.flow.time, True)
        return 0

    cdef void _join_group(self, uint32_t slot, uint32_t group) noexcept:
        self.slots.at[slot].group = group
        if group != NO_GROUP:
            self.groups[group].flows += 1
            self.groups[group].live += self.slots.at[slot].ended == 0

    cdef void _count(self, followed_t *flow, const uint64_t *counters) noexcept:
        cdef uint64_t more
        cdef int i, side
        for i in range(2):
            # Less than before: the entry is another one, whose beginning was lost.
            more = counters[i] - flow.told[i] if counters[i] >= flow.told[i] else counters[i]
            flow.told[i] = counters[i]
            side = BYTES_IN if (i == 0) == flow.is_responder else BYTES_OUT
            flow.window[side] += more
            flow.total[side] += more
            self.all.window[side] += more
            self.all.total[side] += more
            if flow.group != NO_GROUP:
                self.groups[flow.group].window[side] += more
                self.groups[flow.group].total[side] += more

    cdef void _close(self, uint32_t slot, int64_t now, bint keep) noexcept:
        cdef followed_t *flow = &self.slots.at[slot]
        self.slots.unlink(slot)
        flow.ended = now or 1
        self.live -= 1
        self.closed += 1
        if flow.group != NO_GROUP:
            self.groups[flow.group].live -= 1
            self.groups[flow.group].active = now
        if not keep or self.slots.count > self.slots.capacity // 4 * 3:      # room for live ones comes first
            self._drop(slot)

    cdef void _drop(self, uint32_t slot) noexcept:
        """Forget a flow that has ended."""
        cdef followed_t *flow = &self.slots.at[slot]
        self.closed -= 1
        self.parties[flow.party].flows -= 1
        if flow.group != NO_GROUP:
            self.groups[flow.group].flows -= 1
        self.slots.free(slot)

    cdef uint32_t _party_of(self, const record_t *record) except? 0:
        cdef const owner_t *owner = &record.owner
        cdef uint32_t uid = 0
        cdef uint32_t number
        cdef bint known = owner_uid(owner, &uid)
        if owner.process != NULL:
            key = (owner.process.pid, owner.process.start)
        else:
            key = (None, owner.reason, uid if known else None)
        found = self.party_numbers.get(key)
        if found is not None:
            number = found
            if self.parties[number].process != owner.process:
                self.party_objects[number].update(owner_object(owner, self.identity))
                self.parties[number].process, self.parties[number].group = owner.process, NO_GROUP
            return number
        if not self.free_parties and len(self.party_objects) == PARTIES:
            return OTHERS
        party = Party(owner_object(owner, self.identity))
        if self.free_parties:
            number = self.free_parties.pop()
            self.party_keys[number], self.party_objects[number] = key, party
        else:
            number = <uint32_t>len(self.party_objects)
            self.party_keys.append(key)
            self.party_objects.append(party)
        self.party_numbers[key] = number
        memset(&self.parties[number], 0, sizeof(party_t))
        self.parties[number].process, self.parties[number].group = owner.process, NO_GROUP
        return number

    cdef uint32_t _group_of(self, uint32_t party, const followed_t *flow) except? 0:
        if self.grouping == "flow":
            return NO_GROUP
        if self.grouping in OF_PARTIES:
            if party == OTHERS:
                return OTHERS
            if self.parties[party].group == NO_GROUP:
                key, name = self.party_objects[party].row(self.grouping)
                self.parties[party].group = self._find_group(key, name, self.party_objects[party])
                if self.parties[party].group == OTHERS:
                    self.parties[party].group = NO_GROUP     # there may be room later
                    return OTHERS
            return self.parties[party].group
        if self.grouping == "port":
            key = (flow.orig.proto, flow.orig.dport if tuple_has_ports(&flow.orig) else None)
        else:
            key = (flow.orig.family, (<const char *>flow.orig.dst)[:16])
        found = self.group_numbers.get(key)
        if found is None:
            if self.grouping == "port":
                name = protocol_name(flow.orig.family, flow.orig.proto)[5:]
                name += "" if key[1] is None else f"/{key[1]}"
            else:
                name = _address(flow.orig.dst, flow.orig.family)
            return self._find_group(key, name, self.party_objects[party])
        self.group_parties[found] = self.party_objects[party]
        return found

    cdef uint32_t _find_group(self, key, name, party) except? 0:
        cdef uint32_t group
        found = self.group_numbers.get(key)
        if found is not None:
            self.group_names[found], self.group_parties[found] = name, party
            return found
        if self.free_groups:
            group = self.free_groups.pop()
            self.group_keys[group], self.group_names[group], self.group_parties[group] = key, name, party
        elif len(self.group_keys) < GROUPS:
            group = <uint32_t>len(self.group_keys)
            self.group_keys.append(key)
            self.group_names.append(name)
            self.group_parties.append(party)
        else:
            return OTHERS
        memset(&self.groups[group], 0, sizeof(group_t))
        self.group_numbers[key] = group
        return group

    def begin_reading(self) -> None:
        """Begin a reading of all tables, of whose entries join() is told."""
        self.round += 1
        self.found = self.found_uncounted = 0

    cdef void join(self, const flow_t *entries, int count, uint64_t netns) noexcept:
        cdef uint32_t slot
        cdef int i
        self.found += count
        for i in range(count):
            self.found_uncounted += not entries[i].has & FLOW_COUNTERS
            slot = self.slots.find(&entries[i], flow_fingerprint(&entries[i]), netns)
            if slot == NO_SLOT:
                continue        # not wanted, or its beginning is still to be read
            self.slots.at[slot].round, self.slots.at[slot].missed = self.round, 0
            if entries[i].has & FLOW_COUNTERS:
                self._count(&self.slots.at[slot], entries[i].bytes)

    def end_reading(self, bint complete, int64_t now) -> None:
        """End it: of what is not in a table any more the end was not told, as of flows older than any listener.

        Args:
            complete: All tables were read, and whole.
            now: ns since the epoch.
        """
        cdef followed_t *flow
        cdef uint32_t i
        self.entries, self.uncounted = self.found, self.found_uncounted
        if not complete:
            return
        for i in range(1, self.slots.used):
            flow = &self.slots.at[i]
            if flow.fingerprint and not flow.ended and flow.round < self.round:
                if flow.missed and now - flow.missed >= self.gone_after:
                    self._close(i, now, True)
                else:
                    flow.missed = flow.missed or now

    def end_interval(self, double seconds, int64_t now, int64_t keep) -> Totals:
        """Turn what was counted since the last call into rates, and forget what ended long ago.

        Args:
            seconds: Since the last call.
            now: ns since the epoch.
            keep: ns for which what has ended is kept.
        """
        cdef followed_t *flow
        cdef group_t *group
        cdef uint32_t i
        cdef int side
        for i in range(1, self.slots.used):
            flow = &self.slots.at[i]
            if flow.fingerprint == 0:
                continue
            if flow.ended and now - flow.ended > keep:
                self._drop(i)
                continue
            for side in range(2):
                flow.rate[side] = flow.window[side] / seconds
                flow.window[side] = 0
        for i in range(len(self.group_keys)):
            group = &self.groups[i]
            _rate(group, seconds)
            if group.live:
                group.active = now
            elif group.flows == 0 and now - group.active > keep and self.group_keys[i] is not None:
                del self.group_numbers[self.group_keys[i]]
                self.group_keys[i] = self.group_names[i] = self.group_parties[i] = None
                self.free_groups.append(i)
        for i in range(1, len(self.party_objects)):
            if self.parties[i].flows == 0 and self.party_objects[i] is not None:
                del self.party_numbers[self.party_keys[i]]
                self.party_keys[i] = self.party_objects[i] = None
                self.free_parties.append(i)
        _rate(&self.all, seconds)
        return Totals(self.live, self.closed, self.all.began_rate, self.all.rate[BYTES_IN], self.all.rate[BYTES_OUT],
                      self.all.total[BYTES_IN], self.all.total[BYTES_OUT], self.entries, self.uncounted,
                      self.unfollowed)

    def rows(self, str sort="bytes", int most=1000) -> list[Row]:
        """The rows as of the last interval, in no order. Of rows for flows the `most` that come first by `sort`."""
        cdef group_t *group
        cdef uint32_t i
        if self.grouping == "flow":
            return self._ranked(NO_GROUP, sort, most)
        rows = []
        for i in range(len(self.group_keys)):
            group = &self.groups[i]
            if self.group_keys[i] is None and not (i == OTHERS and (group.flows or group.active)):
                continue
            rows.append(Row(self.group_keys[i], self.group_names[i], self.group_parties[i], group.live,
                            group.began_rate, group.rate[BYTES_IN], group.rate[BYTES_OUT], group.total[BYTES_IN],
                            group.total[BYTES_OUT], group.live == 0))
        return rows

    def flows_of(self, key, int most=100) -> list[Row]:
        """The flows that count for a row, those with the most bytes/s first; [] if the row is gone."""
        if self.grouping == "flow":
            found = key[0]
            alive = 0 < found < self.slots.used and self.slots.at[<uint32_t>found].began == key[1]
            return [self._flow_row(found)] if alive and self.slots.at[<uint32_t>found].fingerprint else []
        found = OTHERS if key is None else self.group_numbers.get(key)
        return [] if found is None else self._ranked(found, "bytes", most)

    cdef list _ranked(self, uint32_t group, str sort, int most):
        cdef uint32_t room = 2 * most
        cdef ranked_t *found = <ranked_t *>malloc(room * sizeof(ranked_t))
        cdef uint32_t count = 0
        cdef uint32_t i
        cdef double least = -1
        cdef int kind = ("bytes", "in", "out", "flows").index(sort) if sort in ("bytes", "in", "out") else 3
        cdef followed_t *flow
        if found == NULL:
            raise MemoryError("rows")
        for i in range(1, self.slots.used):
            flow = &self.slots.at[i]
            if flow.fingerprint == 0 or flow.group != group:
                continue
            found[count].slot = i
            found[count].by = (
                flow.rate[BYTES_IN] + flow.rate[BYTES_OUT] + (0 if flow.ended else 1e-9) if kind == 0
                else flow.rate[BYTES_IN] if kind == 1 else flow.rate[BYTES_OUT] if kind == 2 else <double>flow.began)
            count += found[count].by >= least
            if count == room:       # keep the better half, and then only what is better than its last
                qsort(found, count, sizeof(ranked_t), _compare)
                count = most
                least = found[count - 1].by
        qsort(found, count, sizeof(ranked_t), _compare)
        try:
            return [self._flow_row(found[i].slot) for i in range(min(count, <uint32_t>most))]
        finally:
            free(found)

    cdef object _flow_row(self, uint32_t slot):
        cdef followed_t *flow = &self.slots.at[slot]
        name = (f"{protocol_name(flow.orig.family, flow.orig.proto)[5:]} "
                f"{_socket(flow.orig.src, flow.orig.sport, &flow.orig)} > "
                f"{_socket(flow.orig.dst, flow.orig.dport, &flow.orig)}")
        if flow.is_translated:
            name += (f" (as {_socket(flow.reply.dst, flow.reply.dport, &flow.reply)} > "
                     f"{_socket(flow.reply.src, flow.reply.sport, &flow.reply)})")
        return Row((slot, flow.began), name, self.party_objects[flow.party], flow.ended == 0, 0.0,
                   flow.rate[BYTES_IN], flow.rate[BYTES_OUT], flow.total[BYTES_IN], flow.total[BYTES_OUT],
                   flow.ended != 0)


cdef void _rate(group_t *group, double seconds) noexcept:
    cdef int side
    for side in range(2):
        group.rate[side] = group.window[side] / seconds
        group.window[side] = 0
    group.began_rate = group.began / seconds
    group.began = 0
