"""The processes of one batch's rows: what is known of each is looked up once, and then spread over its rows."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset
from posix.unistd cimport _SC_CLK_TCK, sysconf

from nfct_fast.columns.table cimport (
    COLUMN_OWNER, DICTIONARY_TEXTS, OWNER_LOGIN_UID, OWNER_PID, OWNER_PPID, OWNER_START, OWNER_TEXTS, TEXT_CGROUP,
    TEXT_CLAIMED_UNIT, TEXT_CMDLINE, TEXT_COMM, TEXT_CONTAINER, TEXT_ENTITY_ID, TEXT_EXE, TEXT_RUNTIME,
    TEXT_SLICE, TEXT_UNIT, TEXT_USER_UNIT, VALID_OWNER, bit_set, dictionary_number,
)
from nfct_fast.processes.cgroup cimport span_t
from nfct_fast.processes.identity cimport ENTITY_ID_SIZE, Identity
from nfct_fast.processes.process cimport (
    PROCESS_CMDLINE, PROCESS_COMM, PROCESS_LOGIN, PROCESS_PPID, process_drop, process_take,
)


cdef int32_t *_slot(const facts_t *facts, const process_t *process) noexcept nogil:
    # Fibonacci hashing: malloc() gives blocks of like size at regular distances.
    cdef uint64_t at = (<uintptr_t>process >> 4) * <uint64_t>0x9e3779b97f4a7c15 >> 32
    while True:
        at &= <uint64_t>facts.mask
        if facts.slots[at] == 0 or facts.at[facts.slots[at]].process == process:
            return &facts.slots[at]
        at += 1


cdef bint _widen(facts_t *facts) noexcept nogil:
    cdef int32_t room = facts.room * 2 if facts.room else 64
    cdef int32_t *slots
    cdef int32_t i
    cdef process_facts_t *at
    if facts.room > 1 << 28:
        return False
    at = <process_facts_t *>realloc(facts.at, <size_t>room * sizeof(process_facts_t))
    if at == NULL:
        return False
    facts.at = at
    slots = <int32_t *>calloc(<size_t>room * 2, sizeof(int32_t))
    if slots == NULL:
        return False
    if facts.count == 0:
        memset(&at[0], 0, sizeof(process_facts_t))
        for i in range(TEXTS):
            at[0].texts[i] = -1
        facts.count = 1
    free(facts.slots)
    facts.slots, facts.mask, facts.room = slots, room * 2 - 1, room
    for i in range(1, facts.count):
        _slot(facts, at[i].process)[0] = i
    return True


cdef const span_t *_span(const process_t *process, int text) noexcept nogil:
    """The text, or NULL if it is unknown."""
    cdef const span_t *span
    if text == TEXT_COMM:
        return &process.comm if process.has & PROCESS_COMM else NULL
    if text == TEXT_CMDLINE:
        return &process.cmdline if process.has & PROCESS_CMDLINE else NULL
    if text == TEXT_EXE:
        span = &process.exe
    elif text == TEXT_CGROUP:
        span = &process.cgroup
    elif text == TEXT_UNIT:
        span = &process.names.unit
    elif text == TEXT_USER_UNIT:
        span = &process.names.user_unit
    elif text == TEXT_SLICE:
        span = &process.names.slice
    elif text == TEXT_CONTAINER:
        span = &process.names.container
    elif text == TEXT_RUNTIME:
        span = &process.names.runtime
    elif text == TEXT_CLAIMED_UNIT:
        span = &process.names.claimed_unit
    else:
        span = &process.names.claimed_container
    return span if span.size else NULL


cdef int32_t facts_find(facts_t *facts, table_t *table, const uint64_t *key, process_t *process,
                        Identity identity) noexcept nogil:
    cdef process_facts_t *entry
    cdef const span_t *span
    cdef int32_t *slot
    cdef span_t entity_id
    cdef char id_text[ENTITY_ID_SIZE]
    cdef int i
    if facts.count == facts.room and not _widen(facts):
        return -1
    if process == NULL:
        return 0
    slot = _slot(facts, process)
    if slot[0]:
        return slot[0]
    entry = &facts.at[facts.count]
    for i in range(TEXTS):
        if i == TEXT_ENTITY_ID:
            entity_id.at, entity_id.size = id_text, ENTITY_ID_SIZE
            span = &entity_id if identity.entity_id(process.pid, process.start, id_text) else NULL
        else:
            span = _span(process, i)
        entry.texts[i] = -1
        if span != NULL:
            # Arguments are joined by spaces, as ps(1) shows them.
            entry.texts[i] = dictionary_number(&table.dictionaries[DICTIONARY_TEXTS + i], key, span.at, span.size,
                                               c" " if i == TEXT_CMDLINE else 0)
            if entry.texts[i] < 0:
                return -1
            facts.bytes += span.size
    entry.process = process_take(process)
    slot[0] = facts.count
    facts.count += 1
    return slot[0]


cdef void facts_spread(const facts_t *facts, table_t *table, int end) noexcept nogil:
    cdef void **data = table.data + end
    cdef void **valid = table.valid + VALID_OWNER + (end - COLUMN_OWNER)
    cdef int32_t *entries = <int32_t *>data[OWNER_PID]
    cdef int32_t *out
    cdef int32_t number
    cdef const process_t *process
    cdef int64_t row, tick = 1000000000 // sysconf(_SC_CLK_TCK)
    cdef uint64_t start
    cdef uint8_t bits
    cdef int32_t any_entry = 0
    cdef int i
    for row in range(table.rows):
        any_entry |= entries[row]
    if any_entry == 0:      # as of peers where nobody on this host answers
        for i in range(TEXTS):
            memset(data[OWNER_TEXTS + i], 0, table.rows * sizeof(int32_t))
        memset(data[OWNER_PPID], 0, table.rows * sizeof(int32_t))
        memset(data[OWNER_START], 0, table.rows * sizeof(uint64_t))
        memset(data[OWNER_LOGIN_UID], 0, table.rows * sizeof(uint32_t))
        return
    for i in range(TEXTS):
        out = <int32_t *>data[OWNER_TEXTS + i]
        bits = 0
        for row in range(table.rows):
            number = facts.at[entries[row]].texts[i]
            out[row] = number if number > 0 else 0
            bits |= <uint8_t>((number >= 0) << (row & 7))
            if row & 7 == 7 or row == table.rows - 1:
                (<uint8_t *>valid[OWNER_TEXTS + i])[row >> 3] = bits
                bits = 0
    for row in range(table.rows):
        process = facts.at[entries[row]].process
        # Of some sockets only the cgroup is known: there is no process with pid 0.
        if process == NULL or process.pid == 0:
            entries[row] = 0
            (<int32_t *>data[OWNER_PPID])[row] = 0
            (<uint64_t *>data[OWNER_START])[row] = 0
            (<uint32_t *>data[OWNER_LOGIN_UID])[row] = 0
            continue
        start = process.start_ns if process.start_ns else process.start * <uint64_t>tick
        entries[row] = process.pid
        bit_set(valid[OWNER_PID], row, True)
        (<int32_t *>data[OWNER_PPID])[row] = process.ppid if process.has & PROCESS_PPID else 0
        bit_set(valid[OWNER_PPID], row, process.has & PROCESS_PPID)
        (<uint64_t *>data[OWNER_START])[row] = start
        bit_set(valid[OWNER_START], row, start != 0)
        (<uint32_t *>data[OWNER_LOGIN_UID])[row] = process.login_uid if process.has & PROCESS_LOGIN else 0
        bit_set(valid[OWNER_LOGIN_UID], row, process.has & PROCESS_LOGIN)


cdef void facts_clear(facts_t *facts) noexcept nogil:
    cdef int32_t i
    for i in range(1, facts.count):
        process_drop(facts.at[i].process)
    free(facts.at)
    free(facts.slots)
    memset(facts, 0, sizeof(facts_t))
