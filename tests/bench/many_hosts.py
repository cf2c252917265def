"""Records of a fleet of hosts for ClickHouse, made by its own engine: SQL for one day of them.

Of `hosts` hosts, of which few have most flows. Each has forty services, restarted every nine days, and starts brief
programs, each with three flows or so. The services of every 25th host are the same. 60,000 addresses are talked to,
the one with the rank r in proportion to 1/r, other hosts likewise. Three of a hundred flows have no process.
"""

import os

# Columns that it does not name are NULL or their default.
DAY = """
WITH
    {day} AS day, number + day * {per_day} AS n,
    (x -> cityHash64(n, x) / 18446744073709551616.) AS u,
    toUInt32({hosts} * pow(u(1), 1.5)) AS h,
    toDateTime64('{first_day} 00:00:00', 9, 'UTC') + INTERVAL day DAY AS begin,
    toInt64(u(2) * 86400e9) AS of_day,
    toUnixTimestamp64Nano(begin) + of_day AS time_ns,
    multiIf(u(3) < 0.58, 'out', u(3) < 0.83, 'in', u(3) < 0.93, 'local', 'forward') AS dir,
    u(4) < 0.12 AS brief,
    toUInt32(40 * pow(u(5), 2)) AS slot,
    cityHash64(h % 25, slot) % 300 AS program,
    intDiv(day + cityHash64(h, slot) % 9, 9) AS life,
    toUInt64(of_day / 86400e9 * {per_day} * 0.04 / {hosts}) AS brief_number,
    if(brief, cityHash64(h, day, brief_number, 'b'), cityHash64(h, slot, life)) AS process,
    u(6) < 0.03 OR dir = 'forward' AS unknown,
    toInt32(300 + process % 4000000) AS process_pid,
    toUInt64(1e9 + if(brief, day * 86400e9 + brief_number * 1e9, life * 9 * 86400e9 + slot * 1e9)) AS began,
    substring(base64Encode(SHA1(toString(process))), 1, 16) AS entity,
    substring(base64Encode(SHA1(concat(toString(process), 'parent'))), 1, 16) AS parent,
    if(brief, ['curl', 'wget', 'python3', 'ssh', 'apt-get'][process % 5 + 1], concat('service', toString(program)))
        AS name,
    if(brief, concat('/usr/bin/', name), concat('/usr/lib/services/', name)) AS path,
    if(brief, concat(name, ' -s https://updates.example.net/', toString(process % 5000)),
        concat(path, ' --config /etc/', name, '.conf')) AS words,
    if(brief, 'cron.service', concat(name, '.service')) AS its_unit,
    if(brief, 0, 100 + program) AS its_uid, if(brief, 'root', name) AS its_user,
    IPv4NumToString(toUInt32(0x0A010000 + h)) AS own,
    toUInt32(pow(60000, u(7))) AS rank,
    if(u(8) < 0.35, IPv4NumToString(toUInt32(0x0A010000 + toUInt32(pow({hosts}, u(9))) - 1)),
        IPv4NumToString(toUInt32(0x0B000000 + cityHash64(rank) % 1600000000))) AS far4,
    u(10) < 0.08 AND dir != 'local' AS six,
    multiIf(dir = 'local', toIPv6('127.0.0.1'), six, toIPv6(concat('2001:db8::', lower(hex(rank)))), toIPv6(far4))
        AS far,
    multiIf(dir = 'local', toIPv6('127.0.0.1'), six, toIPv6(concat('2001:db8:1::', lower(hex(h)))), dir = 'forward',
        toIPv6(concat('172.17.0.', toString(2 + slot))), toIPv6(own)) AS near,
    [443, 443, 443, 443, 443, 53, 53, 80, 22, 5432, 6379, 9092, 8080, 123][toUInt8(u(12) * 14) + 1] AS out_port,
    [443, 443, 80, 22, 5432, 9100, 8080][cityHash64(h % 25, slot) % 7 + 1] AS in_port,
    out_port IN (53, 123) AND dir != 'in' AS udp,
    if(u(13) < 0.9, 0, toUInt8(1 + u(14) * 3)) AS fate,
    toUInt64(exp(4 + 4 * u(15) + 2 * u(16))) AS sent, toUInt64(exp(4 + 6 * u(17) + 3 * u(16))) AS received,
    substring(base64Encode(SHA1(concat(host, 'init', toString(intDiv(day, 15))))), 1, 16) AS init
SELECT
    concat('host', leftPad(toString(h), 4, '0'), '.example.net') AS host, lower(hex(MD5(host))) AS machine_id,
    lower(hex(MD5(concat(host, toString(intDiv(day, 15)))))) AS boot_id, 'line' AS way,
    fromUnixTimestamp64Nano(time_ns, 'UTC') AS time, 'FLOW' AS type,
    concat(if(six, 'ipv6', 'ipv4'), if(udp, '/udp', '/tcp')) AS proto, if(udp, 17, 6) AS protonum,
    if(dir = 'in', far, near) AS src, toUInt16(32768 + u(11) * 28000) AS sport, if(dir = 'in', near, far) AS dst,
    if(dir = 'in', in_port, out_port) AS dport, if(dir = 'forward', toIPv6(own), NULL) AS nat_src, true AS has_reply,
    dir AS direction, if(fate = 0, 14, 8) AS status, if(udp, NULL, if(fate = 0, 7, 2)) AS state,
    if(udp, NULL, 120) AS timeout, toUInt32(cityHash64(n, 'id')) AS id, 4026531840 AS netns,
    1 + intDiv(sent, 700) AS original_packets, sent AS original_bytes,
    if(fate = 0, 1 + intDiv(received, 1300), 0) AS reply_packets, if(fate = 0, received, 0) AS reply_bytes,
    toUInt64(1e6 * exp(8 * u(18))) AS duration_ns, toInt64(20000 * u(19)) AS lag_ns, true AS has_start,
    multiIf(fate = 0, 'answered', fate = 1, 'refused', 'unanswered') AS outcome,
    if(unknown, NULL, process_pid) AS pid, if(unknown, NULL, 1) AS ppid, pid AS ns_pid,
    if(unknown, NULL, entity) AS entity_id, if(unknown, NULL, began) AS process_start_ns,
    if(unknown, NULL, toDateTime64('{first_day} 00:00:00', 2, 'UTC') - 1000000 + began / 1e9) AS process_start,
    if(unknown, NULL, name) AS comm, if(unknown, NULL, path) AS exe, if(unknown, NULL, words) AS cmdline,
    if(unknown, NULL, its_uid) AS uid, if(unknown, NULL, its_uid) AS gid,
    if(unknown, NULL, its_user) AS user, if(unknown, NULL, its_user) AS `group`,
    if(unknown, NULL, concat('/system.slice/', its_unit)) AS cgroup, if(unknown, NULL, its_unit) AS unit,
    if(unknown, NULL, 'system.slice') AS slice, if(unknown, NULL, 'bpf') AS match,
    multiIf(dir = 'forward', 'forwarded', unknown, ['closed', 'exited', 'ambiguous'][process % 3 + 1], NULL) AS reason,
    if(unknown, NULL, 100000 + toUInt64(u(2) * 1e7)) AS inode, if(unknown, NULL, toUInt64(u(2) * 1e6)) AS cookie,
    if(unknown, NULL, 2000 + slot) AS cgroup_id,
    if(unknown, NULL, 64768) AS exe_dev, if(unknown, NULL, 100000 + program) AS exe_inode,
    if(unknown, NULL, concat('[', if(brief, concat('{{"pid":', toString(process_pid - 1), ',"start_ns":',
        toString(began - 5000000), ',"entity_id":"', parent, '","comm":"sh","exe":"/usr/bin/dash"}},'), ''),
        '{{"pid":1,"start_ns":10000000,"entity_id":"', init, '","comm":"systemd","exe":"/usr/lib/systemd/systemd"}}]'))
        AS ancestors,
    if(dir = 'local', 900 + slot, NULL) AS peer_pid,
    if(dir = 'local', concat('service', toString(slot)), NULL) AS peer_comm,
    if(dir = 'local', concat('/usr/lib/services/service', toString(slot)), NULL) AS peer_exe,
    if(dir = 'local', 'socket', NULL) AS peer_match,
    if(dir = 'local', substring(base64Encode(SHA1(concat(host, toString(slot)))), 1, 16), NULL) AS peer_entity_id
FROM numbers({per_day})
"""


def add_day(tables, first_day, day, per_day, hosts):
    """Add the records of a day, counted from the day `first_day`, as in "2026-11-01"."""
    query = DAY.format(first_day=first_day, day=day, per_day=per_day, hosts=hosts)
    names = [row["name"] for row in tables.rows(f"DESCRIBE ({query})")]
    columns = ", ".join([f"`{name}`" for name in names])
    tables.do(f"INSERT INTO nfct_flows ({columns}) {query}")


# The same records as lines of --json.
_OWNER = """
CAST(({p}pid, {p}ns_pid, {p}process_start_ns, {p}entity_id, {p}process_start, {p}ppid, {p}comm, {p}exe, {p}exe_dev,
    {p}exe_inode, {p}args, {p}cgroup, {p}unit, {p}slice, JSONExtract(ifNull({p}ancestors, '[]'),
    'Array(Tuple(pid Int32, start_ns UInt64, entity_id String, comm String, exe String))'), {p}uid, {p}user, {p}gid,
    {group}, {p}inode, {p}cookie, {p}cgroup_id, {p}match, {p}reason),
    'Tuple(pid Nullable(Int32), ns_pid Nullable(Int32), start_ns Nullable(UInt64), entity_id Nullable(String),
    start Nullable(String), ppid Nullable(Int32), comm Nullable(String), exe Nullable(String), exe_dev Nullable(UInt64),
    exe_inode Nullable(UInt64), cmdline Array(String), cgroup Nullable(String), unit Nullable(String),
    slice Nullable(String), ancestors Array(Tuple(pid Int32, start_ns UInt64, entity_id String, comm String,
    exe String)), uid Nullable(UInt32), `user` Nullable(String), gid Nullable(UInt32), `group` Nullable(String),
    inode Nullable(UInt64), cookie Nullable(UInt64), cgroup_id Nullable(UInt64), match Nullable(String),
    reason Nullable(String))')"""
_TUPLE = "'Tuple(src String, dst String, sport UInt16, dport UInt16)')"
_LINES = f"""
SELECT
    type, concat(replaceOne(toString(f.time), ' ', 'T'), 'Z') AS time, toUnixTimestamp64Nano(f.time) AS time_ns,
    1 AS schema, host, machine_id, boot_id, proto, protonum,
    CAST((replaceOne(toString(src), '::ffff:', ''), replaceOne(toString(dst), '::ffff:', ''), sport, dport), {_TUPLE}
        AS original,
    CAST((replaceOne(toString(reply_src), '::ffff:', ''), replaceOne(toString(reply_dst), '::ffff:', ''), reply_sport,
        reply_dport), {_TUPLE} AS reply,
    direction, if(f.status = 14, ['SEEN_REPLY', 'ASSURED', 'CONFIRMED'], ['CONFIRMED']) AS status, mark, zone, timeout,
    id, state, netns, original_packets, original_bytes, reply_packets, reply_bytes,
    toUnixTimestamp64Nano(start) AS start_ns, toUnixTimestamp64Nano(stop) AS stop_ns, duration_ns, outcome,
    {_OWNER.format(p="f.", group="f.`group`")} AS owner, {_OWNER.format(p="peer_", group="peer_group")} AS peer
FROM nfct_flows AS f
WHERE has_reply
"""
# And as a batch has them.
_BATCH = """
SELECT
    host, machine_id, boot_id, time, type, proto, protonum, reinterpret(src, 'FixedString(16)') AS src_packed, sport,
    reinterpret(dst, 'FixedString(16)') AS dst_packed, dport,
    reinterpret(ifNull(reply_src, toIPv6('::')), 'FixedString(16)') AS reply_src_packed, reply_sport,
    reinterpret(ifNull(reply_dst, toIPv6('::')), 'FixedString(16)') AS reply_dst_packed, reply_dport,
    direction, status, state, mark, zone, timeout, id, use, netns, recovered, forgotten, original_packets,
    original_bytes, reply_packets, reply_bytes, start, stop, duration_ns, outcome, first_seen
FROM nfct_flows
WHERE has_reply
"""


def write(tables, query, path, form):
    """Write what a query answers to a file."""
    options = "output_format_json_skip_null_value_in_named_tuples = 1, output_format_json_escape_forward_slashes = 0"
    options += ", output_format_arrow_low_cardinality_as_dictionary = 1"
    tables.do(f"{query} INTO OUTFILE '{path}' TRUNCATE FORMAT {form} SETTINGS {options}")


def write_lines(tables, count, path):
    """Write some of the records as lines of --json."""
    write(tables, f"{_LINES} LIMIT {count}", f"{path}.whole", "JSONEachRow")
    with open(f"{path}.whole", "rb") as whole, open(path, "wb") as lines:
        for line in whole:  # no object is there without a process, and no empty array of what is not known
            line = line.replace(b',"peer":{"cmdline":[],"ancestors":[]}', b"")
            line = line.replace(b'{"cmdline":[],"ancestors":[]', b'{"pid":null')
            lines.write(line.replace(b',"cmdline":[],"ancestors":[]', b""))
    os.unlink(f"{path}.whole")


def write_batches(tables, count, path):
    """Write some of the records as an Arrow stream, in the columns that nfct_batches has."""
    names = [row["name"] for row in tables.rows("DESCRIBE nfct_batches")]
    of_processes = ", ".join([f"`{name}`" for name in names[names.index("pid") :]])
    query = _BATCH.replace("\nFROM", f", {of_processes}\nFROM")
    write(tables, f"{query} LIMIT {count}", path, "ArrowStream")
