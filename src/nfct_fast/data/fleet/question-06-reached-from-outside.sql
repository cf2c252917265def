-- Which programs were reached from outside, on which port?
--
--     --param_since='2026-11-20 00:00:00' --param_until='2026-11-27 00:00:00'
--
-- Outside is what is not private, shared, local or of the link (RFC 1918, 6598, 3927, 4193). Put your networks here.
SELECT
    host, proto, dport, exe, unit, container, reason,
    sum(count) AS flows, sumIf(count, reply_packets > 0) AS answered, uniq(src) AS addresses,
    min(time) AS first, max(time) AS last, sum(reply_bytes) AS bytes_sent
FROM nfct_flows FINAL
WHERE direction = 'in'
    AND src NOT BETWEEN toIPv6('10.0.0.0') AND toIPv6('10.255.255.255')
    AND src NOT BETWEEN toIPv6('100.64.0.0') AND toIPv6('100.127.255.255')
    AND src NOT BETWEEN toIPv6('127.0.0.0') AND toIPv6('127.255.255.255')
    AND src NOT BETWEEN toIPv6('169.254.0.0') AND toIPv6('169.254.255.255')
    AND src NOT BETWEEN toIPv6('172.16.0.0') AND toIPv6('172.31.255.255')
    AND src NOT BETWEEN toIPv6('192.168.0.0') AND toIPv6('192.168.255.255')
    AND src NOT BETWEEN toIPv6('fc00::') AND toIPv6('fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff')
    AND src NOT BETWEEN toIPv6('fe80::') AND toIPv6('febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff')
    AND src != toIPv6('::1')
    AND time >= {since:DateTime('UTC')} AND time < {until:DateTime('UTC')}
GROUP BY host, proto, dport, exe, unit, container, reason
ORDER BY answered DESC, flows DESC, host
LIMIT 1000
SETTINGS do_not_merge_across_partitions_select_final = 1, use_skip_indexes_if_final_exact_mode = 0,
    optimize_move_to_prewhere_if_final = 1;
