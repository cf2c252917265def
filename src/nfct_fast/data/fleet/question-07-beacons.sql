-- What calls the same place again and again at regular intervals?
--
--     --param_since='2026-11-26 00:00:00' --param_until='2026-11-27 00:00:00'
--
-- At least 20 flows, at least 10 s apart, of whose intervals nine of ten are within a tenth of the median. So do many
-- that are meant to: those that few hosts do come first.
SELECT
    host, exe, user, unit, dst, dport, flows, round(median_s, 1) AS every_s, round(regular, 3) AS regular_share,
    first, last, bytes_sent, uniq(host) OVER (PARTITION BY dst) AS hosts
FROM (
    SELECT
        host, exe, user, unit, dst, dport, count() AS flows, min(time) AS first, max(time) AS last,
        sum(original_bytes) AS bytes_sent,
        arrayPopFront(arrayDifference(arraySort(groupArray(toFloat64(ifNull(start, time)))))) AS intervals,
        arrayReduce('median', intervals) AS median_s,
        arrayCount(one -> abs(one - median_s) <= 0.1 * median_s, intervals) / length(intervals) AS regular
    FROM nfct_flows FINAL
    WHERE direction = 'out' AND type IN ('FLOW', 'NEW')
        AND time >= {since:DateTime('UTC')} AND time < {until:DateTime('UTC')}
    GROUP BY host, exe, user, unit, dst, dport
    HAVING flows >= 20 AND median_s >= 10 AND regular >= 0.9
)
ORDER BY hosts, regular_share DESC, host
LIMIT 1000
SETTINGS do_not_merge_across_partitions_select_final = 1, use_skip_indexes_if_final_exact_mode = 0,
    optimize_move_to_prewhere_if_final = 1;
