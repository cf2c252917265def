-- Which processes failed to reach many addresses or ports within an hour?
--
--     --param_since='2026-11-26 00:00:00' --param_until='2026-11-27 00:00:00' --param_targets=20
--
-- A closed UDP port looks like one that does not answer, and so does a protocol that never answers: look at `ports`.
SELECT
    toStartOfHour(time) AS hour, host, exe, user, unit, container, entity_id, reason,
    uniqExact(dst, dport) AS failed_targets, uniqExact(dst) AS addresses, uniqExact(dport) AS ports,
    sum(count) AS flows, groupUniqArray(5)(dst) AS some
FROM nfct_flows FINAL
WHERE direction IN ('out', 'local', 'forward') AND outcome IN ('refused', 'unanswered')
    AND time >= {since:DateTime('UTC')} AND time < {until:DateTime('UTC')}
GROUP BY hour, host, exe, user, unit, container, entity_id, reason
HAVING failed_targets >= {targets:UInt32}
ORDER BY failed_targets DESC, host
LIMIT 1000
SETTINGS do_not_merge_across_partitions_select_final = 1, use_skip_indexes_if_final_exact_mode = 0,
    optimize_move_to_prewhere_if_final = 1;
