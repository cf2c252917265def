-- What did this process do, and those that descend from it?
--
--     --param_entity_id=W0bVxpq1ZZFfNLLP --param_since='2026-11-27 00:00:00' --param_until='2026-11-28 00:00:00'
--
-- A process is known by its ancestors to descend from it: from batches, which have none, come its own flows only.
SELECT
    host, entity_id = {entity_id:String} AS itself, pid, entity_id, user, exe, any(cmdline) AS command_line,
    direction, proto, if(direction = 'in', src, dst) AS other_end, dport, outcome,
    sum(count) AS flows, min(time) AS first, max(time) AS last,
    sum(original_bytes) AS bytes_of_the_originator, sum(reply_bytes) AS bytes_of_the_responder
FROM nfct_flows FINAL
WHERE has(process_ids, {entity_id:String})
    AND time >= {since:DateTime('UTC')} AND time < {until:DateTime('UTC')}
GROUP BY host, pid, entity_id, user, exe, direction, proto, other_end, dport, outcome
ORDER BY first
SETTINGS do_not_merge_across_partitions_select_final = 1, use_skip_indexes_if_final_exact_mode = 0,
    optimize_move_to_prewhere_if_final = 1;
