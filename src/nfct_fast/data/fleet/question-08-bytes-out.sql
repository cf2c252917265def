-- Which programs sent the most per host and day, beside their other days?
--
--     --param_since='2026-11-20 00:00:00' --param_until='2026-11-27 00:00:00'
--
-- Needs bytes (net.netfilter.nf_conntrack_acct=1). `usual`: the median of all days of this program on this host.
SELECT
    day, host, exe, unit, user, bytes_sent,
    quantileExact(0.5)(bytes_sent) OVER (PARTITION BY host, exe, unit, user) AS usual, flows, destinations
FROM (
    SELECT
        toDate(time) AS day, host, exe, unit, user, sum(count) AS flows,
        uniq(if(direction = 'in', src, dst)) AS destinations,
        sum(if(direction = 'in', reply_bytes, original_bytes)) AS bytes_sent
    FROM nfct_flows FINAL
    WHERE direction IN ('in', 'out') AND type IN ('FLOW', 'DESTROY')
        AND time >= {since:DateTime('UTC')} AND time < {until:DateTime('UTC')}
    GROUP BY day, host, exe, unit, user
)
ORDER BY bytes_sent DESC, host
LIMIT 100
SETTINGS do_not_merge_across_partitions_select_final = 1, use_skip_indexes_if_final_exact_mode = 0,
    optimize_move_to_prewhere_if_final = 1;
