-- Where is nothing known: flows without a process, lost events, silent hosts?
--
--     --param_since='2026-11-26 00:00:00' --param_until='2026-11-27 00:00:00'
--
-- reasons: how many flows without a process there are for each `reason`. Forwarded ones have none on this host.
-- silent_s: from the host's last record to the end of this time.
SELECT
    host, sum(seen) AS flows, sum(nameless) AS unknown, round(100 * unknown / greatest(flows, 1), 2) AS percent,
    sumMap(why) AS reasons, sum(gone) AS lost, max(any_more) AS or_more,
    max(latest) AS last, dateDiff('second', last, {until:DateTime('UTC')}) AS silent_s
FROM (
    SELECT
        host, sum(count) AS seen, sumIf(count, pid IS NULL AND direction != 'forward') AS nameless,
        sumMapIf(map(ifNull(reason, ''), count), pid IS NULL AND direction != 'forward') AS why,
        0 AS gone, false AS any_more, max(time) AS latest
    FROM nfct_flows FINAL
    WHERE time >= {since:DateTime('UTC')} AND time < {until:DateTime('UTC')}
    GROUP BY host
    UNION ALL
    SELECT
        host, 0 AS seen, 0 AS nameless, CAST(map(), 'Map(String, UInt64)') AS why,
        sum(lost) AS gone, max(at_least) AS any_more, max(time) AS latest
    FROM nfct_losses FINAL
    WHERE time >= {since:DateTime('UTC')} AND time < {until:DateTime('UTC')}
    GROUP BY host
)
GROUP BY host
ORDER BY percent DESC, lost DESC, host
SETTINGS do_not_merge_across_partitions_select_final = 1, use_skip_indexes_if_final_exact_mode = 0,
    optimize_move_to_prewhere_if_final = 1;
