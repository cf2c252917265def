-- Which process on which host talked to this address, before or after NAT?
--
--     nfct-fast fleet question-01-address.sql | clickhouse-client --database nfct --param_address=203.0.113.7
--         --param_since='2026-11-01 00:00:00' --param_until='2026-12-01 00:00:00'          (all in one line)
SELECT
    host, direction, exe, user, unit, container, reason,
    sum(count) AS flows, min(time) AS first, max(time) AS last,
    sum(original_bytes) AS bytes_of_the_originator, sum(reply_bytes) AS bytes_of_the_responder,
    arraySort(groupUniqArray(10)((proto, dport))) AS ports,
    groupUniqArray(5)(entity_id) AS processes
FROM nfct_flows FINAL
WHERE has(addresses, {address:IPv6})
    AND time >= {since:DateTime('UTC')} AND time < {until:DateTime('UTC')}
GROUP BY host, direction, exe, user, unit, container, reason
ORDER BY first, host
SETTINGS do_not_merge_across_partitions_select_final = 1, use_skip_indexes_if_final_exact_mode = 0,
    optimize_move_to_prewhere_if_final = 1;
