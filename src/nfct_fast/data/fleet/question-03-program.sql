-- Which hosts run this program, as whom, and where does it talk to?
--
--     --param_exe=/usr/bin/curl --param_since='2026-11-01 00:00:00' --param_until='2026-12-01 00:00:00'
SELECT
    host, user, unit, container,
    uniq(entity_id) AS processes, sum(count) AS flows, uniq(dst) AS destinations, min(time) AS first, max(time) AS last,
    topK(5)(if(direction = 'out', (dst, dport), NULL)) AS usual_destinations,
    groupUniqArray(3)(cmdline) AS command_lines
FROM nfct_flows FINAL
WHERE exe = {exe:String}
    AND time >= {since:DateTime('UTC')} AND time < {until:DateTime('UTC')}
GROUP BY host, user, unit, container
ORDER BY flows DESC, host
SETTINGS do_not_merge_across_partitions_select_final = 1, use_skip_indexes_if_final_exact_mode = 0,
    optimize_move_to_prewhere_if_final = 1;
