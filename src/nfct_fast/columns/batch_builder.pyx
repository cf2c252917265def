"""Fills the columns of a batch from records, without the GIL.

What many rows have in common is handled once: the texts of a process, labels, the name of a protocol. All else is
written row by row; a value that is unknown is 0, so that no memory of ours leaves with a batch.
"""
cimport cython
from libc.errno cimport ENOMEM
from libc.stdint cimport INT64_MAX, int8_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, malloc
from libc.string cimport memcmp, memcpy, memset, strlen
from sys_socket cimport AF_INET, AF_INET6

from nfct_fast.columns.batch cimport batch_object
from nfct_fast.columns.process_facts cimport facts_clear, facts_find, facts_spread
from nfct_fast.columns.table cimport (
    COLUMN_COMMUNITY_ID, COLUMN_COMMUNITY_ID_NAT, COLUMN_DIRECTION, COLUMN_DPORT, COLUMN_DST, COLUMN_DST_PACKED,
    COLUMN_ICMP_CODE, COLUMN_ICMP_ID, COLUMN_ICMP_TYPE, COLUMN_ID, COLUMN_MARK, COLUMN_NETNS, COLUMN_ORIGINAL_BYTES,
    COLUMN_ORIGINAL_PACKETS, COLUMN_OWNER, COLUMN_PEER, COLUMN_PROTO, COLUMN_PROTONUM, COLUMN_RECOVERED,
    COLUMN_REPLY_BYTES, COLUMN_REPLY_DPORT, COLUMN_REPLY_DST, COLUMN_REPLY_DST_PACKED, COLUMN_REPLY_PACKETS,
    COLUMN_REPLY_SPORT, COLUMN_REPLY_SRC, COLUMN_REPLY_SRC_PACKED, COLUMN_SPORT, COLUMN_SRC, COLUMN_SRC_PACKED,
    COLUMN_START, COLUMN_STATE, COLUMN_STATUS, COLUMN_STOP, COLUMN_TIME, COLUMN_TIMEOUT, COLUMN_TYPE, COLUMN_USE,
    COLUMN_ZONE, DICTIONARY_DIRECTION, DICTIONARY_GROUP, DICTIONARY_MATCH, DICTIONARY_PROTO, DICTIONARY_REASON,
    DICTIONARY_TYPE, DICTIONARY_USER, OWNER_CGROUP_ID, OWNER_COOKIE, OWNER_GID_COLUMN, OWNER_GROUP, OWNER_INODE,
    OWNER_MATCH, OWNER_PID, OWNER_REASON, OWNER_UID_COLUMN, OWNER_USER, VALID_COMMUNITY_ID, VALID_COMMUNITY_ID_NAT,
    VALID_COUNTERS, VALID_DIRECTION, VALID_ICMP, VALID_ID, VALID_NETNS, VALID_OWNER, VALID_PORTS, VALID_REPLY,
    VALID_REPLY_PORTS, VALID_START, VALID_STATE, VALID_STATUS, VALID_STOP, VALID_TIMEOUT, VALID_USE, bit_set,
    dictionary_number, spare_drop, spare_t, table_drop, table_finish, table_new, table_resize, table_t,
)
from nfct_fast.columns.table cimport (
    COLUMN_DURATION, COLUMN_FIRST_SEEN, COLUMN_FORGOTTEN, COLUMN_OUTCOME, DICTIONARY_FIRST_SEEN, DICTIONARY_OUTCOME,
    VALID_DURATION, VALID_FIRST_SEEN, VALID_OUTCOME,
)
from nfct_fast.events.community_id cimport COMMUNITY_ID_SIZE, community_id_differs, community_id_write
from nfct_fast.events.flow cimport (
    EVENT_COUNT, FLOW_COUNTERS, FLOW_FORGOTTEN, FLOW_RECOVERED, FLOW_REPLY, FLOW_START, FLOW_STATE, FLOW_STATUS,
    FLOW_STOP, NUMBER_ID, NUMBER_MARK, NUMBER_TIMEOUT, NUMBER_USE, NUMBER_ZONE, flow_t, number_is_known,
    tuple_has_ports, tuple_t,
)
from nfct_fast.events.outcome cimport OUTCOME_COUNT, flow_duration, flow_outcome
from nfct_fast.kernel.clock cimport monotonic_ns
from nfct_fast.processes.account_names cimport ACCOUNT_NAME_MAX
from nfct_fast.processes.identity cimport Identity
from nfct_fast.records.labels cimport address_write, direction_name, event_name, first_seen_name, outcome_name
from nfct_fast.records.owner cimport (
    MATCH_COUNT, REASON_COUNT, REASON_REMOTE, match_name, owner_gid, owner_t, owner_uid, reason_name,
)
from nfct_fast.records.presentation cimport Presentation
from nfct_fast.records.record cimport RECORD_LOSS, SEEN_ALL, loss_t, record_t
from nfct_fast.text.protocol cimport protocol_write

import os
import sys

cdef enum:
    FEWEST = 256                 # rows that there is room for at first
    MOST_AT_FIRST = 65536
    TEXT_LIMIT = 64 << 20        # bytes of the processes' texts in one batch: offsets in Arrow have 31 bits
    IPPROTO_ICMP = 1
    IPPROTO_ICMPV6 = 58


cdef inline void _put_8(table_t *table, int column, uint8_t value) noexcept nogil:
    (<uint8_t *>table.data[column])[table.rows] = value


cdef inline void _put_16(table_t *table, int column, uint16_t value) noexcept nogil:
    (<uint16_t *>table.data[column])[table.rows] = value


cdef inline void _put_32(table_t *table, int column, uint32_t value) noexcept nogil:
    (<uint32_t *>table.data[column])[table.rows] = value


cdef inline void _put_64(table_t *table, int column, uint64_t value) noexcept nogil:
    (<uint64_t *>table.data[column])[table.rows] = value


cdef inline bint _known(table_t *table, int bitmap, bint known) noexcept nogil:
    bit_set(table.valid[bitmap], table.rows, known)
    return known


@cython.final
@cython.auto_pickle(False)
cdef class BatchBuilder:
    """Collects the rows of one batch after another. For one thread at a time.

    metadata: str values by str keys, of which the schema tells readers.
    """

    def __cinit__(self, metadata=()):
        texts = [text.encode("utf-8", "replace") for pair in dict(metadata).items() for text in pair]
        self.metadata = (len(texts) // 2).to_bytes(4, sys.byteorder)
        for text in texts:
            self.metadata += len(text).to_bytes(4, sys.byteorder) + text
        self.metadata_at, self.metadata_size = <const char *>self.metadata, len(self.metadata)
        cdef bytes secret = os.urandom(sizeof(self.key))
        memcpy(self.key, <const char *>secret, sizeof(self.key))
        self.spare = <spare_t *>calloc(1, sizeof(spare_t))
        if self.spare == NULL:
            raise MemoryError("batch builder")
        self.spare.refs = 1

    def __dealloc__(self):
        self.clear()
        table_drop(self.finished)
        spare_drop(self.spare)

    cdef void clear(self) noexcept nogil:
        facts_clear(&self.facts)
        table_drop(self.table)
        self.table = NULL

    cdef bint has_any(self) noexcept nogil:
        return self.table != NULL and self.table.rows or self.has_any_loss()

    cdef bint is_full(self, int64_t most) noexcept nogil:
        return self.table != NULL and (self.table.rows >= most or self.facts.bytes >= TEXT_LIMIT)

    cdef bint _label(self, int dictionary, int number, const char *name) noexcept nogil:
        cdef int32_t index = 0
        if name != NULL:
            index = dictionary_number(&self.table.dictionaries[dictionary], self.key, name, strlen(name), 0)
        self.labels[dictionary][number] = <int8_t>index
        return index >= 0

    cdef bint _begin(self) noexcept nogil:
        cdef bint done = True
        cdef int i
        self.table = table_new(min(max(self.usual, FEWEST), MOST_AT_FIRST), self.spare)
        if self.table == NULL:
            return False
        self.begun = INT64_MAX
        self.table.metadata_size = 0
        self.table.metadata = <char *>malloc(self.metadata_size)
        if self.table.metadata == NULL:
            self.clear()
            return False
        self.table.metadata_size = self.metadata_size
        memcpy(self.table.metadata, self.metadata_at, self.metadata_size)
        memset(self.protocols, 0xff, sizeof(self.protocols))
        memset(self.labels, 0, sizeof(self.labels))
        memset(self.names, 0, sizeof(self.names))
        for i in range(EVENT_COUNT):
            done &= self._label(DICTIONARY_TYPE, i, event_name(i))
        for i in range(5):
            done &= self._label(DICTIONARY_DIRECTION, i, direction_name(i))
        for i in range(MATCH_COUNT):
            done &= self._label(DICTIONARY_MATCH, i, match_name(i))
        for i in range(OUTCOME_COUNT):
            done &= self._label(DICTIONARY_OUTCOME, i, outcome_name(i))
        for i in range(SEEN_ALL + 1):
            done &= self._label(DICTIONARY_FIRST_SEEN, i, first_seen_name(i))
        for i in range(REASON_COUNT):
            done &= self._label(DICTIONARY_REASON, i, reason_name(i))
        if not done:
            self.clear()
        return done

    cdef int add(self, TakenRecords records, int64_t most) noexcept nogil:
        cdef const record_t *record
        cdef int result
        while records.consumed < records.count and not self.is_full(most):
            if self.table == NULL and not self._begin():
                return -ENOMEM
            record = &records.records[records.consumed]
            if record.kind == RECORD_LOSS:
                if record.loss.events or record.loss.at_least:
                    self._put_loss(&record.loss)
            else:
                result = self._put(record, most, records.presentation)
                if result < 0:
                    return result
            if self.begun == INT64_MAX and self.has_any():
                self.begun = monotonic_ns()
            records.consume(records.consumed + 1)
        return 0

    cdef void _put_loss(self, const loss_t *loss) noexcept nogil:
        cdef table_t *table = self.table
        # Of two namespaces' losses the earlier beginning, unknown if one of them is, and the later end.
        if not self.has_any_loss() or loss.since < table.lost_since:
            table.lost_since = loss.since
        table.lost_until = max(table.lost_until, loss.time)
        table.lost += loss.events
        table.at_least = table.at_least or loss.at_least

    cdef bint has_any_loss(self) noexcept nogil:
        return self.table != NULL and (self.table.lost or self.table.at_least)

    cdef int32_t _protocol(self, const tuple_t *tuple) noexcept nogil:
        cdef char name[32]
        cdef int at = tuple.proto + (256 if tuple.family == AF_INET6 else 0)
        if self.protocols[at] < 0:
            self.protocols[at] = dictionary_number(&self.table.dictionaries[DICTIONARY_PROTO], self.key, name,
                                                   protocol_write(tuple.family, tuple.proto, name), 0)
        return self.protocols[at]

    cdef int32_t _entry(self, const owner_t *owner, Identity identity) noexcept nogil:
        return facts_find(&self.facts, self.table, self.key,
                          owner.process if owner.process != NULL else owner.cgroup, identity)

    cdef bint _name(self, names_t *last, const owner_t *owner, bint is_group, Identity identity) noexcept nogil:
        """Have last.code be the index of the name of the owner's user or group, -1 without a name; False: no memory."""
        cdef char name[ACCOUNT_NAME_MAX]
        cdef uint32_t id = 0
        cdef int size
        if not (owner_gid(owner, &id) if is_group else owner_uid(owner, &id)):
            last.is_known = False
            last.code = -1
            return True
        if last.is_known and last.id == id:
            return True
        size = identity.names.group(id, name) if is_group else identity.names.user(id, name)
        last.code = -1
        if size:
            last.code = dictionary_number(&self.table.dictionaries[DICTIONARY_GROUP if is_group else DICTIONARY_USER],
                                          self.key, name, size, 0)
        last.id = id
        last.is_known = not size or last.code >= 0
        return last.is_known

    cdef int _put(self, const record_t *record, int64_t most, Presentation presentation) noexcept nogil:
        cdef table_t *table = self.table
        cdef bint has_peer = record.direction and record.peer.reason != REASON_REMOTE
        cdef int32_t owner, peer, protocol
        # First all that may fail: what is written of a row that is not counted would mix with the next one's bits.
        if table.rows == table.capacity and table_resize(table, min(2 * table.capacity, max(most, FEWEST))) < 0:
            return -ENOMEM
        owner = self._entry(&record.owner, presentation.identity)
        peer = self._entry(&record.peer, presentation.identity) if has_peer else 0
        protocol = self._protocol(&record.flow.orig)
        if owner < 0 or peer < 0 or protocol < 0 or not self._find_names(&record.owner, 0, presentation.identity):
            return -ENOMEM
        if has_peer and not self._find_names(&record.peer, 1, presentation.identity):
            return -ENOMEM
        _put_32(table, COLUMN_PROTO, protocol)
        self._put_flow(&record.flow)
        self._put_numbers(&record.flow)
        self._put_community_ids(&record.flow, presentation)
        self._put_end(&record.flow, record.began)
        _put_8(table, COLUMN_DIRECTION, self.labels[DICTIONARY_DIRECTION][record.direction])
        _known(table, VALID_DIRECTION, record.direction)
        _put_8(table, COLUMN_FIRST_SEEN, self.labels[DICTIONARY_FIRST_SEEN][record.first_seen])
        _known(table, VALID_FIRST_SEEN, record.first_seen)
        self._put_owner(COLUMN_OWNER, &record.owner, owner, self.names[0])
        self._put_owner(COLUMN_PEER, &record.peer if has_peer else NULL, peer, self.names[1])
        table.rows += 1
        return 0

    cdef void _put_flow(self, const flow_t *flow) noexcept nogil:
        cdef table_t *table = self.table
        cdef const tuple_t *orig = &flow.orig
        cdef const tuple_t *reply = &flow.reply
        cdef bint ports = tuple_has_ports(orig)
        cdef bint icmp = orig.proto == IPPROTO_ICMP or orig.proto == IPPROTO_ICMPV6
        cdef bint replies = flow.has & FLOW_REPLY
        _put_64(table, COLUMN_TIME, flow.time)
        _put_8(table, COLUMN_TYPE, self.labels[DICTIONARY_TYPE][flow.type])
        _put_8(table, COLUMN_PROTONUM, orig.proto)
        self._put_address(COLUMN_SRC, COLUMN_SRC_PACKED, orig.src, orig.family)
        self._put_address(COLUMN_DST, COLUMN_DST_PACKED, orig.dst, orig.family)
        if _known(table, VALID_REPLY, replies):
            self._put_address(COLUMN_REPLY_SRC, COLUMN_REPLY_SRC_PACKED, reply.src, reply.family)
            self._put_address(COLUMN_REPLY_DST, COLUMN_REPLY_DST_PACKED, reply.dst, reply.family)
        else:
            self._put_no_address(COLUMN_REPLY_SRC, COLUMN_REPLY_SRC_PACKED)
            self._put_no_address(COLUMN_REPLY_DST, COLUMN_REPLY_DST_PACKED)
        self.family = orig.family
        _known(table, VALID_PORTS, ports)
        _put_16(table, COLUMN_SPORT, orig.sport if ports else 0)
        _put_16(table, COLUMN_DPORT, orig.dport if ports else 0)
        _known(table, VALID_REPLY_PORTS, ports and replies)
        _put_16(table, COLUMN_REPLY_SPORT, reply.sport if ports and replies else 0)
        _put_16(table, COLUMN_REPLY_DPORT, reply.dport if ports and replies else 0)
        _known(table, VALID_ICMP, icmp)
        _put_8(table, COLUMN_ICMP_TYPE, orig.icmp_type if icmp else 0)
        _put_8(table, COLUMN_ICMP_CODE, orig.icmp_code if icmp else 0)
        _put_16(table, COLUMN_ICMP_ID, orig.icmp_id if icmp else 0)

    cdef void _put_numbers(self, const flow_t *flow) noexcept nogil:
        cdef table_t *table = self.table
        cdef bint known = flow.has & FLOW_COUNTERS
        _put_32(table, COLUMN_STATUS, flow.status if _known(table, VALID_STATUS, flow.has & FLOW_STATUS) else 0)
        _put_8(table, COLUMN_STATE, flow.state if _known(table, VALID_STATE, flow.has & FLOW_STATE) else 0)
        _put_32(table, COLUMN_MARK, flow.numbers[NUMBER_MARK])
        _put_16(table, COLUMN_ZONE, <uint16_t>flow.numbers[NUMBER_ZONE])
        _put_32(table, COLUMN_TIMEOUT, flow.numbers[NUMBER_TIMEOUT])
        _known(table, VALID_TIMEOUT, number_is_known(flow, NUMBER_TIMEOUT))
        _put_32(table, COLUMN_ID, flow.numbers[NUMBER_ID])
        _known(table, VALID_ID, number_is_known(flow, NUMBER_ID))
        _put_32(table, COLUMN_USE, flow.numbers[NUMBER_USE])
        _known(table, VALID_USE, number_is_known(flow, NUMBER_USE))
        _put_64(table, COLUMN_NETNS, flow.netns_inode)
        _known(table, VALID_NETNS, flow.netns_inode != 0)
        bit_set(table.data[COLUMN_RECOVERED], table.rows, flow.has & FLOW_RECOVERED)
        _known(table, VALID_COUNTERS, known)
        _put_64(table, COLUMN_ORIGINAL_PACKETS, flow.packets[0] if known else 0)
        _put_64(table, COLUMN_ORIGINAL_BYTES, flow.bytes[0] if known else 0)
        _put_64(table, COLUMN_REPLY_PACKETS, flow.packets[1] if known else 0)
        _put_64(table, COLUMN_REPLY_BYTES, flow.bytes[1] if known else 0)
        _put_64(table, COLUMN_START, flow.start if _known(table, VALID_START, flow.has & FLOW_START) else 0)
        _put_64(table, COLUMN_STOP, flow.stop if _known(table, VALID_STOP, flow.has & FLOW_STOP) else 0)

    cdef void _put_end(self, const flow_t *flow, int64_t began) noexcept nogil:
        cdef table_t *table = self.table
        cdef int64_t duration = flow_duration(flow, began)
        cdef uint8_t outcome = flow_outcome(flow)
        _put_64(table, COLUMN_DURATION, duration if _known(table, VALID_DURATION, duration >= 0) else 0)
        _put_8(table, COLUMN_OUTCOME, self.labels[DICTIONARY_OUTCOME][outcome])
        _known(table, VALID_OUTCOME, outcome)
        bit_set(table.data[COLUMN_FORGOTTEN], table.rows, flow.has & FLOW_FORGOTTEN)

    cdef void _put_address(self, int text, int packed, const uint8_t *address, uint8_t family) noexcept nogil:
        cdef int32_t *offsets = <int32_t *>self.table.data[text] + self.table.rows
        cdef char *out = <char *>self.table.text[text] + offsets[0]
        cdef uint8_t *bytes = <uint8_t *>self.table.data[packed] + 16 * self.table.rows
        cdef int32_t size = 0
        if family == AF_INET:
            memset(bytes, 0, 10)
            bytes[10] = bytes[11] = 0xff
            memcpy(bytes + 12, address, 4)
        else:
            memcpy(bytes, address, 16)
        # What the last row has is copied: inet_ntop() of IPv6 takes 0.3 us. An IPv6 address ::ffff:a.b.c.d has the
        # bytes of an IPv4 one, and not its text.
        if self.table.rows and self.family == family and memcmp(bytes, bytes - 16, 16) == 0:
            size = offsets[0] - (offsets - 1)[0]
            memcpy(out, out - size, size)
        offsets[1] = offsets[0] + (size if size else address_write(address, family, out))

    cdef void _put_community_ids(self, const flow_t *flow, Presentation presentation) noexcept nogil:
        cdef bint wanted = presentation.has_community_id
        self._put_community_id(COLUMN_COMMUNITY_ID, VALID_COMMUNITY_ID, &flow.orig if wanted else NULL,
                               presentation.seed)
        self._put_community_id(COLUMN_COMMUNITY_ID_NAT, VALID_COMMUNITY_ID_NAT,
                               &flow.reply if wanted and community_id_differs(flow) else NULL, presentation.seed)

    cdef void _put_community_id(self, int column, int valid, const tuple_t *tuple, uint16_t seed) noexcept nogil:
        cdef int32_t *offsets = <int32_t *>self.table.data[column] + self.table.rows
        offsets[1] = offsets[0]
        if _known(self.table, valid, tuple != NULL):
            community_id_write(tuple, seed, <char *>self.table.text[column] + offsets[0])
            offsets[1] += COMMUNITY_ID_SIZE

    cdef bint _find_names(self, const owner_t *owner, int end, Identity identity) noexcept nogil:
        return (self._name(&self.names[end][0], owner, False, identity)
                and self._name(&self.names[end][1], owner, True, identity))

    cdef void _put_no_address(self, int text, int packed) noexcept nogil:
        cdef int32_t *offsets = <int32_t *>self.table.data[text] + self.table.rows
        offsets[1] = offsets[0]
        memset(<uint8_t *>self.table.data[packed] + 16 * self.table.rows, 0, 16)

    cdef void _put_owner(self, int end, const owner_t *owner, int32_t entry, const names_t *names) noexcept nogil:
        cdef table_t *table = self.table
        cdef int valid = VALID_OWNER + (end - COLUMN_OWNER)
        cdef uint32_t id = 0
        # Until finish() it holds the entry of the process, of which all columns of facts come.
        _put_32(table, end + OWNER_PID, entry)
        if owner == NULL:
            _put_32(table, end + OWNER_UID_COLUMN, 0)
            _put_32(table, end + OWNER_GID_COLUMN, 0)
            _put_32(table, end + OWNER_USER, 0)
            _put_32(table, end + OWNER_GROUP, 0)
            _put_8(table, end + OWNER_MATCH, 0)
            _put_8(table, end + OWNER_REASON, 0)
            _put_64(table, end + OWNER_INODE, 0)
            _put_64(table, end + OWNER_COOKIE, 0)
            _put_64(table, end + OWNER_CGROUP_ID, 0)
            return
        _known(table, valid + OWNER_UID_COLUMN, owner_uid(owner, &id))
        _put_32(table, end + OWNER_UID_COLUMN, id)
        _known(table, valid + OWNER_GID_COLUMN, owner_gid(owner, &id))
        _put_32(table, end + OWNER_GID_COLUMN, id)
        _put_32(table, end + OWNER_USER, max(names[0].code, 0))
        _known(table, valid + OWNER_USER, names[0].code >= 0)
        _put_32(table, end + OWNER_GROUP, max(names[1].code, 0))
        _known(table, valid + OWNER_GROUP, names[1].code >= 0)
        _put_8(table, end + OWNER_MATCH, self.labels[DICTIONARY_MATCH][owner.match])
        _known(table, valid + OWNER_MATCH, owner.match)
        _put_8(table, end + OWNER_REASON, self.labels[DICTIONARY_REASON][owner.reason])
        _known(table, valid + OWNER_REASON, owner.reason)
        _put_64(table, end + OWNER_INODE, owner.inode)
        _known(table, valid + OWNER_INODE, owner.inode != 0)
        _put_64(table, end + OWNER_COOKIE, owner.cookie)
        _known(table, valid + OWNER_COOKIE, owner.cookie != 0)
        _put_64(table, end + OWNER_CGROUP_ID, owner.cgroup_id)
        _known(table, valid + OWNER_CGROUP_ID, owner.cgroup_id != 0)

    cdef object pop(self):
        cdef table_t *table = self.finished
        self.finished = NULL
        return None if table == NULL else batch_object(table)

    cdef void finish(self) noexcept nogil:
        cdef table_t *table = self.table
        self.table = NULL
        self.finished = table
        self.usual = table.rows + table.rows // 8
        if table.rows:
            facts_spread(&self.facts, table, COLUMN_OWNER)
            facts_spread(&self.facts, table, COLUMN_PEER)
        facts_clear(&self.facts)
        table_finish(table)
