/* Which columns a batch has: their names, types and order. README.md tells users of them. */
#ifndef NFCT_FAST_LAYOUT_H
#define NFCT_FAST_LAYOUT_H

#include <stdint.h>

/* Of an owner, for both ends of a flow. Those up to the last text are facts of the process. */
enum {
    OWNER_PID,
    OWNER_PPID,
    OWNER_START,
    OWNER_LOGIN_UID,
    OWNER_TEXTS, /* the first of TEXTS columns */
    PROCESS_FACTS = OWNER_TEXTS + 12,
    OWNER_UID_COLUMN = PROCESS_FACTS,
    OWNER_GID_COLUMN,
    OWNER_USER,
    OWNER_GROUP,
    OWNER_MATCH,
    OWNER_REASON,
    OWNER_INODE,
    OWNER_COOKIE,
    OWNER_CGROUP_ID,
    OWNER_COLUMNS,
};

/* Of a process: what of it is text, in the order of the columns. Those from TEXT_CGROUP on are known of some sockets
 * without a process. */
enum {
    TEXT_COMM,
    TEXT_EXE,
    TEXT_CMDLINE,
    TEXT_CGROUP,
    TEXT_UNIT,
    TEXT_USER_UNIT,
    TEXT_SLICE,
    TEXT_CONTAINER,
    TEXT_RUNTIME,
    TEXT_CLAIMED_UNIT,
    TEXT_CLAIMED_CONTAINER,
    TEXT_ENTITY_ID,
    TEXTS,
};

enum {
    COLUMN_TIME,
    COLUMN_TYPE,
    COLUMN_PROTO,
    COLUMN_PROTONUM,
    COLUMN_SRC,
    COLUMN_SPORT,
    COLUMN_DST,
    COLUMN_DPORT,
    COLUMN_REPLY_SRC,
    COLUMN_REPLY_SPORT,
    COLUMN_REPLY_DST,
    COLUMN_REPLY_DPORT,
    COLUMN_SRC_PACKED, /* 16 bytes, of IPv4 as ::ffff:a.b.c.d, so that both families can be compared */
    COLUMN_DST_PACKED,
    COLUMN_REPLY_SRC_PACKED,
    COLUMN_REPLY_DST_PACKED,
    COLUMN_ICMP_TYPE,
    COLUMN_ICMP_CODE,
    COLUMN_ICMP_ID,
    COLUMN_COMMUNITY_ID,
    COLUMN_COMMUNITY_ID_NAT,
    COLUMN_DIRECTION,
    COLUMN_STATUS,
    COLUMN_STATE,
    COLUMN_MARK,
    COLUMN_ZONE,
    COLUMN_TIMEOUT,
    COLUMN_ID,
    COLUMN_USE,
    COLUMN_NETNS,
    COLUMN_RECOVERED,
    COLUMN_ORIGINAL_PACKETS,
    COLUMN_ORIGINAL_BYTES,
    COLUMN_REPLY_PACKETS,
    COLUMN_REPLY_BYTES,
    COLUMN_START,
    COLUMN_STOP,
    COLUMN_DURATION,
    COLUMN_OUTCOME,
    COLUMN_FORGOTTEN,
    COLUMN_FIRST_SEEN,
    COLUMN_OWNER, /* the first of OWNER_COLUMNS, and then as many of the peer */
    COLUMN_PEER = COLUMN_OWNER + OWNER_COLUMNS,
    COLUMNS = COLUMN_PEER + OWNER_COLUMNS,
};

/* Which rows of a column have a value; columns that are known together share a bitmap. An owner's have one each. */
enum {
    ALWAYS = -1,
    VALID_PORTS,
    VALID_ICMP,
    VALID_REPLY,
    VALID_REPLY_PORTS,
    VALID_COMMUNITY_ID,
    VALID_COMMUNITY_ID_NAT,
    VALID_DIRECTION,
    VALID_STATUS,
    VALID_STATE,
    VALID_TIMEOUT,
    VALID_ID,
    VALID_USE,
    VALID_NETNS,
    VALID_COUNTERS,
    VALID_START,
    VALID_STOP,
    VALID_DURATION,
    VALID_OUTCOME,
    VALID_FIRST_SEEN,
    VALID_OWNER,
    BITMAPS = VALID_OWNER + 2 * OWNER_COLUMNS,
};

/* Of dictionary-encoded columns: the texts that their values are indices of. Owner and peer share theirs. */
enum {
    PLAIN = -1,
    DICTIONARY_TYPE,
    DICTIONARY_DIRECTION,
    DICTIONARY_MATCH,
    DICTIONARY_REASON,
    DICTIONARY_OUTCOME,
    DICTIONARY_FIRST_SEEN,
    LABELS, /* those up to here have fixed texts, and indices of 8 bits */
    DICTIONARY_PROTO = LABELS,
    DICTIONARY_USER,
    DICTIONARY_GROUP,
    DICTIONARY_TEXTS,
    DICTIONARIES = DICTIONARY_TEXTS + TEXTS,
};

struct nfct_fast_column {
    const char *name;
    const char *format; /* as the Arrow C data interface has it; of an index, if there is a dictionary */
    int8_t width;       /* bytes of a value; 0: a bit; TEXT_WIDTH: text, of which each row has the offset */
    int8_t dictionary;
    int16_t valid;
};

enum { TEXT_WIDTH = -1 };

#define OWNER_FACT(prefix, end, number, name, format, width, dictionary)                                               \
    [end + number] = {prefix name, format, width, dictionary, VALID_OWNER + (end) - COLUMN_OWNER + number}
#define OWNER_TEXT(prefix, end, number, name)                                                                          \
    OWNER_FACT(prefix, end, OWNER_TEXTS + number, name, "i", 4, DICTIONARY_TEXTS + number)
#define OWNER_LAYOUT(prefix, end)                                                                                      \
    OWNER_FACT(prefix, end, OWNER_PID, "pid", "i", 4, PLAIN),                                                          \
        OWNER_FACT(prefix, end, OWNER_PPID, "ppid", "i", 4, PLAIN),                                                    \
        OWNER_FACT(prefix, end, OWNER_START, "process_start_ns", "L", 8, PLAIN),                                       \
        OWNER_FACT(prefix, end, OWNER_LOGIN_UID, "login_uid", "I", 4, PLAIN),                                          \
        OWNER_TEXT(prefix, end, TEXT_COMM, "comm"), OWNER_TEXT(prefix, end, TEXT_EXE, "exe"),                          \
        OWNER_TEXT(prefix, end, TEXT_CMDLINE, "cmdline"), OWNER_TEXT(prefix, end, TEXT_CGROUP, "cgroup"),              \
        OWNER_TEXT(prefix, end, TEXT_UNIT, "unit"), OWNER_TEXT(prefix, end, TEXT_USER_UNIT, "user_unit"),              \
        OWNER_TEXT(prefix, end, TEXT_SLICE, "slice"), OWNER_TEXT(prefix, end, TEXT_CONTAINER, "container"),            \
        OWNER_TEXT(prefix, end, TEXT_RUNTIME, "runtime"), OWNER_TEXT(prefix, end, TEXT_CLAIMED_UNIT, "claimed_unit"),  \
        OWNER_TEXT(prefix, end, TEXT_CLAIMED_CONTAINER, "claimed_container"),                                          \
        OWNER_TEXT(prefix, end, TEXT_ENTITY_ID, "entity_id"),                                                          \
        OWNER_FACT(prefix, end, OWNER_USER, "user", "i", 4, DICTIONARY_USER),                                          \
        OWNER_FACT(prefix, end, OWNER_GROUP, "group", "i", 4, DICTIONARY_GROUP),                                       \
        OWNER_FACT(prefix, end, OWNER_UID_COLUMN, "uid", "I", 4, PLAIN),                                               \
        OWNER_FACT(prefix, end, OWNER_GID_COLUMN, "gid", "I", 4, PLAIN),                                               \
        OWNER_FACT(prefix, end, OWNER_MATCH, "match", "c", 1, DICTIONARY_MATCH),                                       \
        OWNER_FACT(prefix, end, OWNER_REASON, "reason", "c", 1, DICTIONARY_REASON),                                    \
        OWNER_FACT(prefix, end, OWNER_INODE, "inode", "L", 8, PLAIN),                                                  \
        OWNER_FACT(prefix, end, OWNER_COOKIE, "cookie", "L", 8, PLAIN),                                                \
        OWNER_FACT(prefix, end, OWNER_CGROUP_ID, "cgroup_id", "L", 8, PLAIN)

static const struct nfct_fast_column nfct_fast_columns[COLUMNS] = {
    [COLUMN_TIME] = {"time", "tsn:UTC", 8, PLAIN, ALWAYS},
    [COLUMN_TYPE] = {"type", "c", 1, DICTIONARY_TYPE, ALWAYS},
    [COLUMN_PROTO] = {"proto", "i", 4, DICTIONARY_PROTO, ALWAYS},
    [COLUMN_PROTONUM] = {"protonum", "C", 1, PLAIN, ALWAYS},
    [COLUMN_SRC] = {"src", "u", TEXT_WIDTH, PLAIN, ALWAYS},
    [COLUMN_DST] = {"dst", "u", TEXT_WIDTH, PLAIN, ALWAYS},
    [COLUMN_REPLY_SRC] = {"reply_src", "u", TEXT_WIDTH, PLAIN, VALID_REPLY},
    [COLUMN_REPLY_DST] = {"reply_dst", "u", TEXT_WIDTH, PLAIN, VALID_REPLY},
    [COLUMN_SRC_PACKED] = {"src_packed", "w:16", 16, PLAIN, ALWAYS},
    [COLUMN_DST_PACKED] = {"dst_packed", "w:16", 16, PLAIN, ALWAYS},
    [COLUMN_REPLY_SRC_PACKED] = {"reply_src_packed", "w:16", 16, PLAIN, VALID_REPLY},
    [COLUMN_REPLY_DST_PACKED] = {"reply_dst_packed", "w:16", 16, PLAIN, VALID_REPLY},
    [COLUMN_SPORT] = {"sport", "S", 2, PLAIN, VALID_PORTS},
    [COLUMN_DPORT] = {"dport", "S", 2, PLAIN, VALID_PORTS},
    [COLUMN_REPLY_SPORT] = {"reply_sport", "S", 2, PLAIN, VALID_REPLY_PORTS},
    [COLUMN_REPLY_DPORT] = {"reply_dport", "S", 2, PLAIN, VALID_REPLY_PORTS},
    [COLUMN_ICMP_TYPE] = {"icmp_type", "C", 1, PLAIN, VALID_ICMP},
    [COLUMN_ICMP_CODE] = {"icmp_code", "C", 1, PLAIN, VALID_ICMP},
    [COLUMN_ICMP_ID] = {"icmp_id", "S", 2, PLAIN, VALID_ICMP},
    [COLUMN_COMMUNITY_ID] = {"community_id", "u", TEXT_WIDTH, PLAIN, VALID_COMMUNITY_ID},
    [COLUMN_COMMUNITY_ID_NAT] = {"community_id_nat", "u", TEXT_WIDTH, PLAIN, VALID_COMMUNITY_ID_NAT},
    [COLUMN_DIRECTION] = {"direction", "c", 1, DICTIONARY_DIRECTION, VALID_DIRECTION},
    [COLUMN_STATUS] = {"status", "I", 4, PLAIN, VALID_STATUS},
    [COLUMN_STATE] = {"state", "C", 1, PLAIN, VALID_STATE},
    [COLUMN_MARK] = {"mark", "I", 4, PLAIN, ALWAYS},
    [COLUMN_ZONE] = {"zone", "S", 2, PLAIN, ALWAYS},
    [COLUMN_TIMEOUT] = {"timeout", "I", 4, PLAIN, VALID_TIMEOUT},
    [COLUMN_ID] = {"id", "I", 4, PLAIN, VALID_ID},
    [COLUMN_USE] = {"use", "I", 4, PLAIN, VALID_USE},
    [COLUMN_NETNS] = {"netns", "L", 8, PLAIN, VALID_NETNS},
    [COLUMN_RECOVERED] = {"recovered", "b", 0, PLAIN, ALWAYS},
    [COLUMN_ORIGINAL_PACKETS] = {"original_packets", "L", 8, PLAIN, VALID_COUNTERS},
    [COLUMN_ORIGINAL_BYTES] = {"original_bytes", "L", 8, PLAIN, VALID_COUNTERS},
    [COLUMN_REPLY_PACKETS] = {"reply_packets", "L", 8, PLAIN, VALID_COUNTERS},
    [COLUMN_REPLY_BYTES] = {"reply_bytes", "L", 8, PLAIN, VALID_COUNTERS},
    [COLUMN_START] = {"start", "tsn:UTC", 8, PLAIN, VALID_START},
    [COLUMN_STOP] = {"stop", "tsn:UTC", 8, PLAIN, VALID_STOP},
    [COLUMN_DURATION] = {"duration_ns", "L", 8, PLAIN, VALID_DURATION},
    [COLUMN_OUTCOME] = {"outcome", "c", 1, DICTIONARY_OUTCOME, VALID_OUTCOME},
    [COLUMN_FORGOTTEN] = {"forgotten", "b", 0, PLAIN, ALWAYS},
    [COLUMN_FIRST_SEEN] = {"first_seen", "c", 1, DICTIONARY_FIRST_SEEN, VALID_FIRST_SEEN},
    OWNER_LAYOUT("", COLUMN_OWNER),
    OWNER_LAYOUT("peer_", COLUMN_PEER),
};

#undef OWNER_FACT
#undef OWNER_TEXT
#undef OWNER_LAYOUT

#endif
