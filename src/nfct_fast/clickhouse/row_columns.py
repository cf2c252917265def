"""What is selected of the table nfct_flows, in the order in which rows have it."""

# Of a process, what is the same in all flows of it: an array of texts, as one text, by which it is known again.
_PROCESS = (
    "pid", "ppid", "ns_pid", "process_start_ns", "toUnixTimestamp64Milli({}process_start)", "forked", "comm", "exe",
    "cmdline", "args_json", "uid", "gid", "login_uid", "cgroup", "unit", "user_unit", "slice", "container", "runtime",
    "claimed_unit", "claimed_container", "claimed_runtime", "exe_dev", "exe_inode", "ancestors",
    "toJSONString({}sizes)", "toJSONString({}base64)",
)  # fmt: skip
_OWNER = ("uid", "gid", "user", "group", "match", "reason", "inode", "cookie", "cgroup_id", "others", "users")
_FLOW = (
    "host", "machine_id", "boot_id", "toUnixTimestamp64Nano(time)", "type", "startsWith(proto, 'ipv4/')", "protonum",
    "hex(src)", "sport", "hex(dst)", "dport", "icmp_type", "icmp_code", "icmp_id", "has_reply", "hex(reply_src)",
    "reply_sport", "hex(reply_dst)", "reply_dport", "reply_icmp_type", "reply_icmp_code", "reply_icmp_id",
    "direction", "status", "state", "mark", "zone", "timeout", "id", "use", "netns", "recovered", "forgotten",
    "original_packets", "original_bytes", "reply_packets", "reply_bytes", "toUnixTimestamp64Nano(start)",
    "toUnixTimestamp64Nano(stop)", "duration_ns", "first_seen",
)  # fmt: skip


def _named(column, prefix):
    return column.format(prefix) if "{" in column else f"`{prefix}{column}`"


def _texts(prefix):
    return f"toJSONString([{', '.join([f'toString({_named(column, prefix)})' for column in _PROCESS])}])"


COLUMNS = ", ".join(
    [
        *[column if "(" in column else f"`{column}`" for column in _FLOW],
        *[f"`{prefix}{column}`" for prefix in ("", "peer_") for column in _OWNER],
        _texts(""),
        _texts("peer_"),
    ]
)
WIDTH = len(_FLOW) + 2 * len(_OWNER) + 2  # values of a row
