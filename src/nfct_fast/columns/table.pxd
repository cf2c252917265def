"""The memory of a batch's columns and their layout: table.h, layout.h and text_dictionary.h."""
from libc.stdint cimport int32_t, int64_t, uint64_t

cdef extern from "nfct_fast/columns/layout.h" nogil:
    enum:
        OWNER_PID, OWNER_PPID, OWNER_START, OWNER_LOGIN_UID, OWNER_TEXTS, PROCESS_FACTS, OWNER_UID_COLUMN
        OWNER_GID_COLUMN, OWNER_USER, OWNER_GROUP, OWNER_MATCH, OWNER_REASON, OWNER_INODE, OWNER_COOKIE
        OWNER_CGROUP_ID, OWNER_COLUMNS

        TEXT_COMM, TEXT_EXE, TEXT_CMDLINE, TEXT_CGROUP, TEXT_UNIT, TEXT_USER_UNIT, TEXT_SLICE, TEXT_CONTAINER
        TEXT_RUNTIME, TEXT_CLAIMED_UNIT, TEXT_CLAIMED_CONTAINER, TEXT_ENTITY_ID, TEXTS

        COLUMN_TIME, COLUMN_TYPE, COLUMN_PROTO, COLUMN_PROTONUM, COLUMN_SRC, COLUMN_SPORT, COLUMN_DST, COLUMN_DPORT
        COLUMN_REPLY_SRC, COLUMN_REPLY_SPORT, COLUMN_REPLY_DST, COLUMN_REPLY_DPORT, COLUMN_SRC_PACKED
        COLUMN_DST_PACKED, COLUMN_REPLY_SRC_PACKED, COLUMN_REPLY_DST_PACKED, COLUMN_ICMP_TYPE, COLUMN_ICMP_CODE
        COLUMN_ICMP_ID, COLUMN_COMMUNITY_ID, COLUMN_COMMUNITY_ID_NAT, COLUMN_DIRECTION, COLUMN_STATUS, COLUMN_STATE
        COLUMN_MARK, COLUMN_ZONE, COLUMN_TIMEOUT, COLUMN_ID, COLUMN_USE, COLUMN_NETNS, COLUMN_RECOVERED
        COLUMN_ORIGINAL_PACKETS, COLUMN_ORIGINAL_BYTES, COLUMN_REPLY_PACKETS, COLUMN_REPLY_BYTES, COLUMN_START
        COLUMN_STOP, COLUMN_OWNER, COLUMN_PEER, COLUMNS

        COLUMN_DURATION, COLUMN_OUTCOME, COLUMN_FORGOTTEN, VALID_DURATION, VALID_OUTCOME, DICTIONARY_OUTCOME
        COLUMN_FIRST_SEEN, VALID_FIRST_SEEN, DICTIONARY_FIRST_SEEN

        ALWAYS, VALID_PORTS, VALID_ICMP, VALID_REPLY, VALID_REPLY_PORTS, VALID_COMMUNITY_ID, VALID_COMMUNITY_ID_NAT
        VALID_DIRECTION, VALID_STATUS, VALID_STATE, VALID_TIMEOUT, VALID_ID, VALID_USE, VALID_NETNS, VALID_COUNTERS
        VALID_START, VALID_STOP, VALID_OWNER, BITMAPS

        PLAIN, DICTIONARY_TYPE, DICTIONARY_DIRECTION, DICTIONARY_MATCH, DICTIONARY_REASON, LABELS, DICTIONARY_PROTO
        DICTIONARY_USER, DICTIONARY_GROUP, DICTIONARY_TEXTS, DICTIONARIES

    ctypedef struct column_t "struct nfct_fast_column":
        const char *name
        const char *format
        int width
        int dictionary
        int valid

    const column_t columns "nfct_fast_columns"[]

cdef extern from "nfct_fast/columns/text_dictionary.h" nogil:
    ctypedef struct dictionary_t "struct nfct_fast_dictionary":
        int32_t *offsets
        char *text
        int32_t count

    int32_t dictionary_number "nfct_fast_dictionary_number"(
        dictionary_t *one, const uint64_t *key, const char *data, size_t size, char nul)

cdef extern from "nfct_fast/columns/table.h" nogil:
    ctypedef struct table_t "struct nfct_fast_table":
        bint at_least
        char *metadata
        size_t metadata_size
        int64_t rows
        int64_t capacity
        uint64_t lost
        int64_t lost_since
        int64_t lost_until
        void **data
        void **text
        void **valid
        int64_t *nulls
        dictionary_t *dictionaries

    ctypedef struct spare_t "struct nfct_fast_spare":
        int refs

    table_t *table_new "nfct_fast_table_new"(int64_t rows, spare_t *spare)
    void spare_drop "nfct_fast_spare_drop"(spare_t *spare)      # NULL is dropped, too
    int table_resize "nfct_fast_table_resize"(table_t *table, int64_t rows)
    void table_finish "nfct_fast_table_finish"(table_t *table)
    void table_drop "nfct_fast_table_drop"(table_t *table)      # NULL is dropped, too
    size_t table_bytes "nfct_fast_table_bytes"(const table_t *table)
    void bit_set "nfct_fast_bit"(void *bits, int64_t row, bint value)
