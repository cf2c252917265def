-- Where has this unit talked to since then, where none of it ever did before?
--
--     --param_unit=nginx.service --param_since='2026-11-20 00:00:00'
--
-- "Ever" is as long as flows are kept.
SELECT
    dst, dport, min(time) AS first, max(time) AS last, sum(count) AS flows, groupUniqArray(10)(host) AS hosts,
    groupUniqArray(3)(exe) AS programs, sum(original_bytes) AS bytes_sent, sum(reply_bytes) AS bytes_received
FROM nfct_flows FINAL
WHERE unit = {unit:String} AND direction = 'out'
GROUP BY dst, dport
HAVING first >= {since:DateTime('UTC')}
ORDER BY first
SETTINGS do_not_merge_across_partitions_select_final = 1, use_skip_indexes_if_final_exact_mode = 0,
    optimize_move_to_prewhere_if_final = 1;
