-- Whose flow is it that an IDS has named by its Community ID?
--
--     --param_id=1:CBicJdZj0b8kPjK5Zy8MRAYdz94= --param_since='2026-11-27 00:00:00' --param_until='2026-11-28 00:00:00'
--
-- Every record of it, of each host that saw it. LIMIT 1 BY leaves out what came twice: with FINAL, the index of
-- Community IDs would not be used.
SELECT
    time, host, type, proto, src, sport, dst, dport, direction, outcome, original_bytes, reply_bytes,
    pid, user, exe, cmdline, unit, container, entity_id, reason,
    peer_pid, peer_user, peer_exe, peer_entity_id, peer_reason
FROM nfct_flows
WHERE has(community_ids, {id:String})
    AND time >= {since:DateTime('UTC')} AND time < {until:DateTime('UTC')}
ORDER BY time, host
LIMIT 1 BY host, boot_id, time, type, id, netns, src, sport, dst, dport, status, state;
