"""Parse a socket table of /proc/net into rows hashed by local port and remote end."""
from libc.errno cimport EINTR, ENOENT, ENOMEM, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memchr, memmove, memset
from posix.unistd cimport close, read

from nfct_fast.kernel.clock cimport monotonic_ns
from nfct_fast.kernel.procfs cimport procfs_decimal

cdef enum:
    CHUNK = 262144
    ROWS_MAX = 4194304    # rows of a table that are read, 300 MB; the rest is ignored


cdef inline bint hex_number(const char **p, const char *end, int digits, uint32_t *out) noexcept nogil:
    cdef uint32_t value = 0
    cdef char c
    if end - p[0] < digits:
        return False
    for _ in range(digits):
        c = p[0][0]
        if c'0' <= c <= c'9':
            value = value << 4 | <uint32_t>(c - c'0')
        elif c'A' <= c <= c'F':
            value = value << 4 | <uint32_t>(c - c'A' + 10)
        else:
            return False
        p[0] += 1
    out[0] = value
    return True


cdef inline bint skip_one(const char **p, const char *end, char c) noexcept nogil:
    if p[0] >= end or p[0][0] != c:
        return False
    p[0] += 1
    return True


cdef inline bint is_zero(const uint8_t *address, int size) noexcept nogil:
    cdef uint8_t any = 0
    cdef int i
    for i in range(size):
        any |= address[i]
    return any == 0


cdef bint endpoint(const char **p, const char *end, bint v6, uint8_t *address, uint16_t *port,
                   uint8_t *specified) noexcept nogil:
    # The kernel prints each 32-bit word of the address as a number in the machine's own byte order.
    cdef uint32_t words[4]
    cdef uint32_t number
    cdef int i
    for i in range(4 if v6 else 1):
        if not hex_number(p, end, 8, &words[i]):
            return False
    if not skip_one(p, end, c':') or not hex_number(p, end, 4, &number):
        return False
    port[0] = <uint16_t>number
    if v6:
        memcpy(address, words, 16)
    else:
        as_mapped(address, words)
    specified[0] = not (is_zero(address, 10) and is_zero(address + 12, 4)
                        and (is_zero(address + 10, 2) or (address[10] == 0xff and address[11] == 0xff)))
    return True


cdef bint row_parse(const char *p, const char *end, bint v6, row_t *out) noexcept nogil:
    # sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode ...
    cdef uint64_t number
    cdef uint32_t state
    cdef int field, _
    while p < end and p[0] != c':':
        p += 1
    p += 2
    if not endpoint(&p, end, v6, out.src, &out.sport, &out.bound) or not skip_one(&p, end, c' '):
        return False
    if not endpoint(&p, end, v6, out.dst, &out.dport, &out.connected) or not skip_one(&p, end, c' '):
        return False
    if not hex_number(&p, end, 2, &state):
        return False
    out.state = <uint8_t>state
    # An AF_INET6 socket bound to ::ffff:0.0.0.0 receives IPv4 only.
    out.v4_only = not v6 or (out.src[10] == 0xff and out.src[11] == 0xff and is_zero(out.src, 10))
    for _ in range(3):
        while p < end and p[0] == c' ':
            p += 1
        while p < end and p[0] != c' ':
            p += 1
    for field in range(3):
        while p < end and p[0] == c' ':
            p += 1
        if procfs_decimal(&p, end, &number) <= 0:
            return False
        if field == 0:
            out.uid = <uint32_t>number
        elif field == 2:
            out.inode = number
    return True


cdef int table_link(table_t *table) noexcept nogil:
    cdef uint32_t size = 64, i, slot
    cdef uint32_t *heads
    cdef row_t *row
    while size < table.count:
        size *= 2
    if table.heads == NULL or size != table.mask + 1:
        heads = <uint32_t *>realloc(table.heads, size * sizeof(uint32_t))
        if heads == NULL:
            table.count = 0
            return -ENOMEM
        table.heads = heads
        table.mask = size - 1
    memset(table.heads, 0, size * sizeof(uint32_t))
    # Link from the last row to the first, so that each chain keeps the kernel's order.
    for i in range(table.count, 0, -1):
        row = &table.rows[i - 1]
        slot = row_hash(row.sport, row.dst if row.connected else NULL, row.dport) & table.mask
        row.next = table.heads[slot]
        table.heads[slot] = i
    return 0


cdef int table_line(table_t *table, const char *p, const char *end, int form) noexcept nogil:
    cdef row_t *rows
    cdef uint32_t room
    if table.count == table.room:
        if table.room >= ROWS_MAX:
            return 0
        room = table.room * 2 if table.room else 256
        rows = <row_t *>realloc(table.rows, room * sizeof(row_t))
        if rows == NULL:
            return -ENOMEM
        table.rows = rows
        table.room = room
    if row_parse(p, end, form & FORM_V6, &table.rows[table.count]):
        if form & FORM_ICMP:
            table.rows[table.count].dport = 0    # a port that was passed to connect(2) has no meaning in ICMP
        table.count += 1
    return 0


cdef int table_parse(table_t *table, int fd, int form) noexcept nogil:
    cdef char *buf = <char *>malloc(CHUNK)
    cdef const char *p
    cdef const char *end
    cdef const char *newline
    cdef size_t kept = 0
    cdef ssize_t got
    cdef int rc = 0
    if buf == NULL:
        return -ENOMEM
    while rc == 0:
        if kept == CHUNK:
            kept = 0    # the kernel writes no line that long: drop it
        got = read(fd, buf + kept, CHUNK - kept)
        if got < 0 and errno == EINTR:
            continue
        if got <= 0:
            rc = -errno if got < 0 else 0
            break
        p = buf
        end = buf + kept + got
        while rc == 0:
            newline = <const char *>memchr(p, c'\n', end - p) if p < end else NULL
            if newline == NULL:
                break
            rc = table_line(table, p, newline, form)
            p = newline + 1
        kept = end - p
        memmove(buf, p, kept)
    free(buf)
    return rc


cdef void table_load(table_t *table, int fd, int form, int64_t now) noexcept nogil:
    table.count = 0
    table.loaded_at = now
    table.error = 0
    if fd < 0:
        # A kernel without IPv6, or without UDP-Lite (removed in Linux 7.1), has no such table: treat it as empty.
        table.error = 0 if fd == -ENOENT else fd
    else:
        table.error = table_parse(table, fd, form)
        close(fd)
    if table_link(table) < 0:
        table.error = -ENOMEM
    table.cost = monotonic_ns() - now


cdef void table_free(table_t *table) noexcept nogil:
    free(table.rows)
    free(table.heads)
    memset(table, 0, sizeof(table[0]))
