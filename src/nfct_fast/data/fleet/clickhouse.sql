-- Tables for the flows of many hosts in ClickHouse, and the ways in.
--
-- Run it once, in a database of its own:
--
--     nfct-fast fleet clickhouse.sql | clickhouse-client --database nfct --multiquery
--
-- Lines of `nfct-fast --json` go into nfct_lines as they are (INSERT INTO nfct_lines FORMAT JSONEachRow), batches of
-- Conntrack.batches() into nfct_batches as Arrow. Neither keeps anything: materialized views make rows of nfct_flows
-- and nfct_losses of them.
--
-- Columns are named as those of a batch. What is not known is NULL, as it is there, and costs next to nothing: of an
-- owner whose pid is NULL, `reason` says why. Exceptions are what the order needs: host, machine_id and boot_id are ''
-- where they are unknown, ports and ICMP types 0 where the protocol has none, which protonum tells.
--
-- Delivery is at least once, so a record may come twice. All of what tells two records apart is in the order, so
-- ReplacingMergeTree keeps one of them at the next merge; until then FINAL, or LIMIT 1 BY, does so in a query. As both
-- are equal and in one partition, three settings may spare FINAL most of its work:
--
--     SETTINGS do_not_merge_across_partitions_select_final = 1, use_skip_indexes_if_final_exact_mode = 0,
--         optimize_move_to_prewhere_if_final = 1
--
-- Needs ClickHouse 25.6 or later; tested with 26.9.

CREATE TABLE IF NOT EXISTS nfct_flows (
    host LowCardinality(String),
    machine_id LowCardinality(String),
    boot_id LowCardinality(String),
    way LowCardinality(String),    -- 'line' or 'batch'; a batch does not say all that a line says of a process
    time DateTime64(9, 'UTC') CODEC(T64('bit'), ZSTD(1)),    -- received
    type LowCardinality(String),   -- NEW, UPDATE, DESTROY, FLOW, ENTRY
    proto LowCardinality(String),
    protonum UInt8,
    src IPv6,                      -- IPv4 as ::ffff:a.b.c.d
    sport UInt16,
    dst IPv6,
    dport UInt16,
    icmp_type UInt8,
    icmp_code UInt8,
    icmp_id UInt16,
    -- The reply tuple, turned round, where NAT made it differ: the same flow as the far side sees it.
    nat_src Nullable(IPv6),
    nat_sport Nullable(UInt16),
    nat_dst Nullable(IPv6),
    nat_dport Nullable(UInt16),
    has_reply Bool,
    reply_icmp_type Nullable(UInt8),
    reply_icmp_code Nullable(UInt8),
    reply_icmp_id Nullable(UInt16),
    direction LowCardinality(Nullable(String)),
    status Nullable(UInt32),       -- bits, IPS_* of linux/netfilter/nf_conntrack_common.h
    state Nullable(UInt8),
    mark UInt32,
    zone UInt16,
    timeout Nullable(UInt32),
    id Nullable(UInt32),
    use Nullable(UInt32),
    netns Nullable(UInt64),
    recovered Bool,
    forgotten Bool,
    original_packets Nullable(UInt64),
    original_bytes Nullable(UInt64) CODEC(T64, ZSTD(1)),
    reply_packets Nullable(UInt64),
    reply_bytes Nullable(UInt64) CODEC(T64, ZSTD(1)),
    duration_ns Nullable(UInt64) CODEC(T64, ZSTD(1)),
    -- `stop` is kept as the time from it to `time`, and `start` only where it is not `stop` - duration_ns.
    lag_ns Nullable(Int64),
    has_start Bool,
    other_start Nullable(DateTime64(9, 'UTC')),
    outcome LowCardinality(Nullable(String)),
    first_seen LowCardinality(Nullable(String)),    -- with commas between
    count UInt32 DEFAULT 1,        -- flows that the row stands for, with --aggregate: sum(count) is how many there were
    first_time Nullable(DateTime64(9, 'UTC')),      -- of several, like the next: when the first began,
    last_time Nullable(DateTime64(9, 'UTC')),       -- and the last was received

    -- The owner. args_json: the arguments as JSON, where `cmdline` split at spaces would be others. ancestors, others,
    -- users: JSON as a line has it. sizes: of `exe`, `cmdline` and `cgroup` that were cut. base64: the bytes of names
    -- that are not valid text.
    pid Nullable(Int32),
    ppid Nullable(Int32),
    ns_pid Nullable(Int32),
    entity_id LowCardinality(Nullable(String)),
    process_start_ns Nullable(UInt64),
    process_start Nullable(DateTime64(2, 'UTC')),
    forked Bool,
    comm LowCardinality(Nullable(String)),
    exe LowCardinality(Nullable(String)),
    cmdline LowCardinality(Nullable(String)),
    args_json LowCardinality(Nullable(String)),
    uid Nullable(UInt32),
    gid Nullable(UInt32),
    login_uid Nullable(UInt32),
    `user` LowCardinality(Nullable(String)),
    `group` LowCardinality(Nullable(String)),
    cgroup LowCardinality(Nullable(String)),
    unit LowCardinality(Nullable(String)),
    user_unit LowCardinality(Nullable(String)),
    slice LowCardinality(Nullable(String)),
    container LowCardinality(Nullable(String)),
    runtime LowCardinality(Nullable(String)),
    claimed_unit LowCardinality(Nullable(String)),
    claimed_container LowCardinality(Nullable(String)),
    claimed_runtime LowCardinality(Nullable(String)),
    match LowCardinality(Nullable(String)),
    reason LowCardinality(Nullable(String)),
    inode Nullable(UInt64),
    cookie Nullable(UInt64),
    cgroup_id Nullable(UInt64),
    exe_dev Nullable(UInt64),
    exe_inode Nullable(UInt64),
    ancestors LowCardinality(Nullable(String)),
    others LowCardinality(Nullable(String)),
    users LowCardinality(Nullable(String)),
    sizes Map(LowCardinality(String), UInt64),
    base64 Map(LowCardinality(String), String),

    -- The other end, if it is on this host too.
    peer_pid Nullable(Int32),
    peer_ppid Nullable(Int32),
    peer_ns_pid Nullable(Int32),
    peer_entity_id LowCardinality(Nullable(String)),
    peer_process_start_ns Nullable(UInt64),
    peer_process_start Nullable(DateTime64(2, 'UTC')),
    peer_forked Bool,
    peer_comm LowCardinality(Nullable(String)),
    peer_exe LowCardinality(Nullable(String)),
    peer_cmdline LowCardinality(Nullable(String)),
    peer_args_json LowCardinality(Nullable(String)),
    peer_uid Nullable(UInt32),
    peer_gid Nullable(UInt32),
    peer_login_uid Nullable(UInt32),
    peer_user LowCardinality(Nullable(String)),
    peer_group LowCardinality(Nullable(String)),
    peer_cgroup LowCardinality(Nullable(String)),
    peer_unit LowCardinality(Nullable(String)),
    peer_user_unit LowCardinality(Nullable(String)),
    peer_slice LowCardinality(Nullable(String)),
    peer_container LowCardinality(Nullable(String)),
    peer_runtime LowCardinality(Nullable(String)),
    peer_claimed_unit LowCardinality(Nullable(String)),
    peer_claimed_container LowCardinality(Nullable(String)),
    peer_claimed_runtime LowCardinality(Nullable(String)),
    peer_match LowCardinality(Nullable(String)),
    peer_reason LowCardinality(Nullable(String)),
    peer_inode Nullable(UInt64),
    peer_cookie Nullable(UInt64),
    peer_cgroup_id Nullable(UInt64),
    peer_exe_dev Nullable(UInt64),
    peer_exe_inode Nullable(UInt64),
    peer_ancestors LowCardinality(Nullable(String)),
    peer_others LowCardinality(Nullable(String)),
    peer_users LowCardinality(Nullable(String)),
    peer_sizes Map(LowCardinality(String), UInt64),
    peer_base64 Map(LowCardinality(String), String),

    -- When the kernel says that it began and ended.
    stop Nullable(DateTime64(9, 'UTC')) ALIAS time - toIntervalNanosecond(lag_ns),
    start Nullable(DateTime64(9, 'UTC'))
        ALIAS if(has_start, ifNull(other_start, stop - toIntervalNanosecond(duration_ns)), NULL),
    -- Every address of the flow, before and after NAT, and both of its Community IDs: what indexes are of, as in
    -- has(addresses, toIPv6('203.0.113.7')).
    addresses Array(IPv6) ALIAS arrayDistinct([src, dst, ifNull(nat_src, src), ifNull(nat_dst, dst)]),
    community_ids Array(String) ALIAS arrayDistinct([community_id, ifNull(community_id_nat, community_id)]),
    -- Likewise every process at either end and those that they descend from, by entity_id.
    process_ids Array(String) ALIAS arrayDistinct(arrayConcat([ifNull(entity_id, ''), ifNull(peer_entity_id, '')],
        extractAll(ifNull(ancestors, ''), '"entity_id": *"([^"]*)"'),
        extractAll(ifNull(peer_ancestors, ''), '"entity_id": *"([^"]*)"'))),
    -- Community IDs of seed 0, made of the tuple when they are asked for: lines need no --community-id. What is hashed
    -- are both ends in the order of their bytes. Of an ICMP message its type and that of its answer are in the place of
    -- ports; where nothing answers, its code, and the ends as they are.
    community_id String ALIAS if(count > 1, '', concat('1:', base64Encode(SHA1(concat('\0\0',
        substring(hashed_ends[1], 1, address_size), substring(hashed_ends[2], 1, address_size), char(protonum, 0),
        if(protonum IN (1, 6, 17, 58, 132), concat(substring(hashed_ends[1], address_size + 1),
            substring(hashed_ends[2], address_size + 1)), '')))))),
    community_id_nat Nullable(String) ALIAS if(
        count > 1 OR nat_src IS NULL AND nat_dst IS NULL AND nat_sport IS NULL AND nat_dport IS NULL, NULL,
        nullIf(concat('1:', base64Encode(SHA1(concat('\0\0',
            substring(hashed_far_ends[1], 1, address_size), substring(hashed_far_ends[2], 1, address_size),
            char(protonum, 0), if(protonum IN (1, 6, 17, 58, 132), concat(
                substring(hashed_far_ends[1], address_size + 1), substring(hashed_far_ends[2], address_size + 1)), '')
        )))), community_id)),
    hashed_ends Array(String) ALIAS arraySort((end, place) -> if(is_one_way, place, end), [
        concat(substring(reinterpret(src, 'FixedString(16)'), 17 - address_size), hashed_sport),
        concat(substring(reinterpret(dst, 'FixedString(16)'), 17 - address_size), hashed_dport)], ['1', '2']),
    hashed_far_ends Array(String) ALIAS arraySort([
        concat(substring(reinterpret(ifNull(nat_src, src), 'FixedString(16)'), 17 - address_size),
            if(nat_sport IS NULL, hashed_sport, char(bitShiftRight(nat_sport, 8), bitAnd(nat_sport, 255)))),
        concat(substring(reinterpret(ifNull(nat_dst, dst), 'FixedString(16)'), 17 - address_size),
            if(nat_dport IS NULL, hashed_dport, char(bitShiftRight(nat_dport, 8), bitAnd(nat_dport, 255))))]),
    hashed_sport String ALIAS if(protonum IN (1, 58), char(0, icmp_type),
        char(bitShiftRight(sport, 8), bitAnd(sport, 255))),
    hashed_dport String ALIAS multiIf(is_one_way, char(0, icmp_code), protonum IN (1, 58), char(0, icmp_answer),
        char(bitShiftRight(dport, 8), bitAnd(dport, 255))),
    is_one_way Bool ALIAS protonum IN (1, 58) AND icmp_answer < 0,
    icmp_answer Int16 ALIAS multiIf(
        protonum = 1, transform(icmp_type, [0, 8, 9, 10, 13, 14, 15, 16, 17, 18],
            [8, 0, 10, 9, 14, 13, 16, 15, 18, 17], -1),
        protonum = 58, transform(icmp_type, [128, 129, 130, 131, 133, 134, 135, 136, 139, 140, 144, 145],
            [129, 128, 131, 130, 134, 133, 136, 135, 140, 139, 145, 144], -1), -1),
    address_size UInt8 ALIAS if(startsWith(proto, 'ipv4'), 4, 16),
    reply_src Nullable(IPv6) ALIAS if(has_reply, ifNull(nat_dst, dst), NULL),
    reply_sport Nullable(UInt16) ALIAS if(has_reply, ifNull(nat_dport, dport), NULL),
    reply_dst Nullable(IPv6) ALIAS if(has_reply, ifNull(nat_src, src), NULL),
    reply_dport Nullable(UInt16) ALIAS if(has_reply, ifNull(nat_sport, sport), NULL),
    args Array(String) ALIAS multiIf(
        args_json IS NOT NULL, JSONExtract(ifNull(args_json, '[]'), 'Array(String)'),
        cmdline IS NULL, [], splitByChar(' ', ifNull(cmdline, ''))),
    parent_entity_id Nullable(String)
        ALIAS nullIf(JSONExtractString(ifNull(ancestors, '[]'), 1, 'entity_id'), ''),
    peer_args Array(String) ALIAS multiIf(
        peer_args_json IS NOT NULL, JSONExtract(ifNull(peer_args_json, '[]'), 'Array(String)'),
        peer_cmdline IS NULL, [], splitByChar(' ', ifNull(peer_cmdline, ''))),
    peer_parent_entity_id Nullable(String)
        ALIAS nullIf(JSONExtractString(ifNull(peer_ancestors, '[]'), 1, 'entity_id'), ''),

    INDEX by_address addresses TYPE bloom_filter(0.001),
    INDEX by_community_id community_ids TYPE bloom_filter(0.001),
    INDEX by_process process_ids TYPE bloom_filter(0.001)
)
ENGINE = ReplacingMergeTree
PARTITION BY toDate(time)
PRIMARY KEY (host, ifNull(entity_id, ''))
ORDER BY (host, ifNull(entity_id, ''), time, type, src, sport, dst, dport, protonum, icmp_type, icmp_code, icmp_id,
    ifNull(id, 0), ifNull(netns, 0), boot_id, ifNull(status, 0), ifNull(state, 0))
TTL toDate(time) + INTERVAL 90 DAY    -- how long flows are kept
SETTINGS ttl_only_drop_parts = 1, default_compression_codec = 'ZSTD(1)';

CREATE TABLE IF NOT EXISTS nfct_losses (
    host LowCardinality(String),
    machine_id LowCardinality(String),
    boot_id LowCardinality(String),
    time DateTime64(9, 'UTC'),
    lost UInt64,                   -- events lost for good since the last such record
    at_least Bool                  -- there may be more
)
ENGINE = ReplacingMergeTree
PARTITION BY toStartOfMonth(time)
ORDER BY (host, boot_id, time, lost, at_least)
TTL toDate(time) + INTERVAL 90 DAY
SETTINGS ttl_only_drop_parts = 1, default_compression_codec = 'ZSTD(1)';

-- Lines. Keys that are not named here are skipped, those that a line does not have are NULL or empty.
CREATE TABLE IF NOT EXISTS nfct_lines (
    type LowCardinality(String), time_ns Int64, host LowCardinality(String), machine_id LowCardinality(String),
    boot_id LowCardinality(String), lost UInt64, at_least Bool, proto LowCardinality(String), protonum UInt8,
    original Tuple(src IPv6, dst IPv6, sport UInt16, dport UInt16, icmp_type UInt8, icmp_code UInt8, icmp_id UInt16),
    reply Tuple(src Nullable(IPv6), dst Nullable(IPv6), sport UInt16, dport UInt16, icmp_type Nullable(UInt8),
        icmp_code Nullable(UInt8), icmp_id Nullable(UInt16)),
    direction LowCardinality(Nullable(String)), status Array(LowCardinality(String)) DEFAULT ['unknown'],
    state Nullable(UInt8), mark UInt32, zone UInt16, timeout Nullable(UInt32), id Nullable(UInt32),
    use Nullable(UInt32), netns Nullable(UInt64), recovered Bool, forgotten Bool,
    original_packets Nullable(UInt64), original_bytes Nullable(UInt64), reply_packets Nullable(UInt64),
    reply_bytes Nullable(UInt64), start_ns Nullable(Int64), stop_ns Nullable(Int64), duration_ns Nullable(UInt64),
    outcome LowCardinality(Nullable(String)), first_seen Array(String),
    count UInt32 DEFAULT 1, first_ns Nullable(Int64), last_ns Nullable(Int64),
    owner Tuple(
        pid Nullable(Int32), ppid Nullable(Int32), ns_pid Nullable(Int32), entity_id Nullable(String),
        comm Nullable(String), exe Nullable(String), uid Nullable(UInt32), gid Nullable(UInt32),
        login_uid Nullable(UInt32), `user` Nullable(String), `group` Nullable(String), cgroup Nullable(String),
        unit Nullable(String), user_unit Nullable(String), slice Nullable(String), container Nullable(String),
        runtime Nullable(String), claimed_unit Nullable(String), claimed_container Nullable(String),
        claimed_runtime Nullable(String), match Nullable(String), reason Nullable(String), inode Nullable(UInt64),
        cookie Nullable(UInt64), cgroup_id Nullable(UInt64), exe_dev Nullable(UInt64), exe_inode Nullable(UInt64),
        ancestors Nullable(String), others Nullable(String), users Nullable(String), start_ns Nullable(UInt64),
        start Nullable(String), forked Bool, cmdline Nullable(String), exe_size UInt64,
        cmdline_size UInt64, cgroup_size UInt64, comm_base64 String, exe_base64 String, cmdline_base64 String,
        cgroup_base64 String, container_base64 String, runtime_base64 String, claimed_container_base64 String,
        claimed_runtime_base64 String
    ),
    peer Tuple(
        pid Nullable(Int32), ppid Nullable(Int32), ns_pid Nullable(Int32), entity_id Nullable(String),
        comm Nullable(String), exe Nullable(String), uid Nullable(UInt32), gid Nullable(UInt32),
        login_uid Nullable(UInt32), `user` Nullable(String), `group` Nullable(String), cgroup Nullable(String),
        unit Nullable(String), user_unit Nullable(String), slice Nullable(String), container Nullable(String),
        runtime Nullable(String), claimed_unit Nullable(String), claimed_container Nullable(String),
        claimed_runtime Nullable(String), match Nullable(String), reason Nullable(String), inode Nullable(UInt64),
        cookie Nullable(UInt64), cgroup_id Nullable(UInt64), exe_dev Nullable(UInt64), exe_inode Nullable(UInt64),
        ancestors Nullable(String), others Nullable(String), users Nullable(String), start_ns Nullable(UInt64),
        start Nullable(String), forked Bool, cmdline Nullable(String), exe_size UInt64,
        cmdline_size UInt64, cgroup_size UInt64, comm_base64 String, exe_base64 String, cmdline_base64 String,
        cgroup_base64 String, container_base64 String, runtime_base64 String, claimed_container_base64 String,
        claimed_runtime_base64 String
    )
)
ENGINE = Null;

CREATE MATERIALIZED VIEW IF NOT EXISTS nfct_lines_to_flows TO nfct_flows AS
WITH
    JSONExtract(ifNull(owner.cmdline, '[]'), 'Array(String)') AS arguments,
    JSONExtract(ifNull(peer.cmdline, '[]'), 'Array(String)') AS peer_arguments
SELECT
    host, machine_id, boot_id, 'line' AS way, fromUnixTimestamp64Nano(time_ns, 'UTC') AS time, type, proto, protonum,
    original.src AS src, original.sport AS sport, original.dst AS dst, original.dport AS dport,
    original.icmp_type AS icmp_type, original.icmp_code AS icmp_code, original.icmp_id AS icmp_id,
    nullIf(reply.dst, src) AS nat_src, nullIf(reply.src, dst) AS nat_dst,
    if(has_reply, nullIf(reply.dport, sport), NULL) AS nat_sport,
    if(has_reply, nullIf(reply.sport, dport), NULL) AS nat_dport, reply.src IS NOT NULL AS has_reply,
    reply.icmp_type AS reply_icmp_type, reply.icmp_code AS reply_icmp_code, reply.icmp_id AS reply_icmp_id,
    direction,
    if(has(nfct_lines.status, 'unknown'), NULL, arraySum(arrayMap(word -> transform(word, ['EXPECTED', 'SEEN_REPLY',
        'ASSURED', 'CONFIRMED', 'SRC_NAT', 'DST_NAT', 'SEQ_ADJUST', 'SRC_NAT_DONE', 'DST_NAT_DONE', 'DYING',
        'FIXED_TIMEOUT', 'TEMPLATE', 'NAT_CLASH', 'HELPER', 'OFFLOAD', 'HW_OFFLOAD'],
        [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768], 0),
        nfct_lines.status))) AS status,
    state, mark, zone, timeout, id, use, netns, recovered, forgotten,
    original_packets, original_bytes, reply_packets, reply_bytes,
    duration_ns, time_ns - stop_ns AS lag_ns, start_ns IS NOT NULL AS has_start,
    if(stop_ns - duration_ns = start_ns, NULL, fromUnixTimestamp64Nano(start_ns, 'UTC')) AS other_start, outcome,
    nullIf(arrayStringConcat(nfct_lines.first_seen, ','), '') AS first_seen,
    count, fromUnixTimestamp64Nano(first_ns, 'UTC') AS first_time, fromUnixTimestamp64Nano(last_ns, 'UTC') AS last_time,
    owner.pid AS pid, owner.ppid AS ppid, owner.ns_pid AS ns_pid, owner.entity_id AS entity_id, owner.comm AS comm,
    owner.exe AS exe, owner.uid AS uid, owner.gid AS gid, owner.login_uid AS login_uid, owner.`user` AS `user`,
    owner.`group` AS `group`, owner.cgroup AS cgroup, owner.unit AS unit, owner.user_unit AS user_unit,
    owner.slice AS slice, owner.container AS container, owner.runtime AS runtime, owner.claimed_unit AS claimed_unit,
    owner.claimed_container AS claimed_container, owner.claimed_runtime AS claimed_runtime, owner.match AS match,
    owner.reason AS reason, owner.inode AS inode, owner.cookie AS cookie, owner.cgroup_id AS cgroup_id,
    owner.exe_dev AS exe_dev, owner.exe_inode AS exe_inode, owner.ancestors AS ancestors, owner.others AS others,
    owner.users AS users, owner.start_ns AS process_start_ns,
    parseDateTime64BestEffortOrNull(owner.start, 2, 'UTC') AS process_start, owner.forked AS forked,
    if(owner.cmdline IS NULL, NULL, arrayStringConcat(arguments, ' ')) AS cmdline,
    if(splitByChar(' ', ifNull(cmdline, '')) = arguments, NULL, owner.cmdline) AS args_json,
    mapFilter((name, size) -> size != 0,
        map('exe', owner.exe_size, 'cmdline', owner.cmdline_size, 'cgroup', owner.cgroup_size)) AS sizes,
    mapFilter((name, bytes) -> bytes != '', map('comm', owner.comm_base64, 'exe', owner.exe_base64,
    'cmdline', owner.cmdline_base64, 'cgroup', owner.cgroup_base64, 'container', owner.container_base64,
    'runtime', owner.runtime_base64, 'claimed_container', owner.claimed_container_base64,
    'claimed_runtime', owner.claimed_runtime_base64)) AS base64,
    peer.pid AS peer_pid, peer.ppid AS peer_ppid, peer.ns_pid AS peer_ns_pid, peer.entity_id AS peer_entity_id,
    peer.comm AS peer_comm, peer.exe AS peer_exe, peer.uid AS peer_uid, peer.gid AS peer_gid,
    peer.login_uid AS peer_login_uid, peer.`user` AS peer_user, peer.`group` AS peer_group,
    peer.cgroup AS peer_cgroup, peer.unit AS peer_unit, peer.user_unit AS peer_user_unit, peer.slice AS peer_slice,
    peer.container AS peer_container, peer.runtime AS peer_runtime, peer.claimed_unit AS peer_claimed_unit,
    peer.claimed_container AS peer_claimed_container, peer.claimed_runtime AS peer_claimed_runtime,
    peer.match AS peer_match, peer.reason AS peer_reason, peer.inode AS peer_inode, peer.cookie AS peer_cookie,
    peer.cgroup_id AS peer_cgroup_id, peer.exe_dev AS peer_exe_dev, peer.exe_inode AS peer_exe_inode,
    peer.ancestors AS peer_ancestors, peer.others AS peer_others, peer.users AS peer_users,
    peer.start_ns AS peer_process_start_ns,
    parseDateTime64BestEffortOrNull(peer.start, 2, 'UTC') AS peer_process_start, peer.forked AS peer_forked,
    if(peer.cmdline IS NULL, NULL, arrayStringConcat(peer_arguments, ' ')) AS peer_cmdline,
    if(splitByChar(' ', ifNull(peer_cmdline, '')) = peer_arguments, NULL, peer.cmdline) AS peer_args_json,
    mapFilter((name, size) -> size != 0,
        map('exe', peer.exe_size, 'cmdline', peer.cmdline_size, 'cgroup', peer.cgroup_size)) AS peer_sizes,
    mapFilter((name, bytes) -> bytes != '', map('comm', peer.comm_base64, 'exe', peer.exe_base64,
    'cmdline', peer.cmdline_base64, 'cgroup', peer.cgroup_base64, 'container', peer.container_base64,
    'runtime', peer.runtime_base64, 'claimed_container', peer.claimed_container_base64,
    'claimed_runtime', peer.claimed_runtime_base64)) AS peer_base64
FROM nfct_lines
WHERE type != 'LOST';

CREATE MATERIALIZED VIEW IF NOT EXISTS nfct_lines_to_losses TO nfct_losses AS
SELECT host, machine_id, boot_id, fromUnixTimestamp64Nano(time_ns, 'UTC') AS time, lost, at_least
FROM nfct_lines
WHERE type = 'LOST';

-- Batches: the columns that a batch has, and host, machine_id and boot_id, which the one who inserts adds. Of a
-- process they do not have ancestors and what else `way` tells; `args` are `cmdline` split at spaces.
CREATE TABLE IF NOT EXISTS nfct_batches (
    host LowCardinality(String), machine_id LowCardinality(String), boot_id LowCardinality(String),
    time DateTime64(9, 'UTC'), type LowCardinality(String), proto LowCardinality(String), protonum UInt8,
    src_packed FixedString(16), sport UInt16, dst_packed FixedString(16), dport UInt16,
    reply_src_packed Nullable(FixedString(16)), reply_sport Nullable(UInt16),
    reply_dst_packed Nullable(FixedString(16)), reply_dport Nullable(UInt16),
    icmp_type UInt8, icmp_code UInt8, icmp_id UInt16,
    direction LowCardinality(Nullable(String)), status Nullable(UInt32), state Nullable(UInt8), mark UInt32,
    zone UInt16, timeout Nullable(UInt32), id Nullable(UInt32), use Nullable(UInt32), netns Nullable(UInt64),
    recovered Bool, forgotten Bool, original_packets Nullable(UInt64), original_bytes Nullable(UInt64),
    reply_packets Nullable(UInt64), reply_bytes Nullable(UInt64), start Nullable(DateTime64(9, 'UTC')),
    stop Nullable(DateTime64(9, 'UTC')), duration_ns Nullable(UInt64), outcome LowCardinality(Nullable(String)),
    first_seen LowCardinality(Nullable(String)),
    pid Nullable(Int32), ppid Nullable(Int32), process_start_ns Nullable(UInt64), login_uid Nullable(UInt32),
    comm LowCardinality(Nullable(String)), exe LowCardinality(Nullable(String)),
    cmdline LowCardinality(Nullable(String)), cgroup LowCardinality(Nullable(String)),
    unit LowCardinality(Nullable(String)), user_unit LowCardinality(Nullable(String)),
    slice LowCardinality(Nullable(String)), container LowCardinality(Nullable(String)),
    runtime LowCardinality(Nullable(String)), claimed_unit LowCardinality(Nullable(String)),
    claimed_container LowCardinality(Nullable(String)), entity_id LowCardinality(Nullable(String)),
    `user` LowCardinality(Nullable(String)), `group` LowCardinality(Nullable(String)), uid Nullable(UInt32),
    gid Nullable(UInt32), match LowCardinality(Nullable(String)), reason LowCardinality(Nullable(String)),
    inode Nullable(UInt64), cookie Nullable(UInt64), cgroup_id Nullable(UInt64),
    peer_pid Nullable(Int32), peer_ppid Nullable(Int32), peer_process_start_ns Nullable(UInt64),
    peer_login_uid Nullable(UInt32), peer_comm LowCardinality(Nullable(String)),
    peer_exe LowCardinality(Nullable(String)), peer_cmdline LowCardinality(Nullable(String)),
    peer_cgroup LowCardinality(Nullable(String)), peer_unit LowCardinality(Nullable(String)),
    peer_user_unit LowCardinality(Nullable(String)), peer_slice LowCardinality(Nullable(String)),
    peer_container LowCardinality(Nullable(String)), peer_runtime LowCardinality(Nullable(String)),
    peer_claimed_unit LowCardinality(Nullable(String)), peer_claimed_container LowCardinality(Nullable(String)),
    peer_entity_id LowCardinality(Nullable(String)), peer_user LowCardinality(Nullable(String)),
    peer_group LowCardinality(Nullable(String)), peer_uid Nullable(UInt32), peer_gid Nullable(UInt32),
    peer_match LowCardinality(Nullable(String)), peer_reason LowCardinality(Nullable(String)),
    peer_inode Nullable(UInt64), peer_cookie Nullable(UInt64), peer_cgroup_id Nullable(UInt64)
)
ENGINE = Null;

CREATE MATERIALIZED VIEW IF NOT EXISTS nfct_batches_to_flows TO nfct_flows AS
SELECT
    host, machine_id, boot_id, 'batch' AS way, time, type, proto, protonum,
    CAST(src_packed AS IPv6) AS src, sport, CAST(dst_packed AS IPv6) AS dst, dport, icmp_type, icmp_code, icmp_id,
    nullIf(CAST(reply_dst_packed AS Nullable(IPv6)), src) AS nat_src, nullIf(reply_dport, sport) AS nat_sport,
    nullIf(CAST(reply_src_packed AS Nullable(IPv6)), dst) AS nat_dst, nullIf(reply_sport, dport) AS nat_dport,
    reply_src_packed IS NOT NULL AS has_reply,
    direction, status, state, mark, zone, timeout, id, use, netns, recovered, forgotten,
    original_packets, original_bytes, reply_packets, reply_bytes, duration_ns,
    toUnixTimestamp64Nano(time) - toUnixTimestamp64Nano(stop) AS lag_ns, start IS NOT NULL AS has_start,
    if(stop - toIntervalNanosecond(duration_ns) = start, NULL, start) AS other_start, outcome, first_seen,
    pid, ppid, process_start_ns, login_uid, comm, exe, cmdline, cgroup, unit, user_unit, slice, container, runtime,
    claimed_unit, claimed_container, entity_id, `user`, `group`, uid, gid, match, reason, inode, cookie, cgroup_id,
    peer_pid, peer_ppid, peer_process_start_ns, peer_login_uid, peer_comm, peer_exe, peer_cmdline, peer_cgroup,
    peer_unit, peer_user_unit, peer_slice, peer_container, peer_runtime, peer_claimed_unit, peer_claimed_container,
    peer_entity_id, peer_user, peer_group, peer_uid, peer_gid, peer_match, peer_reason, peer_inode, peer_cookie,
    peer_cgroup_id
FROM nfct_batches;
