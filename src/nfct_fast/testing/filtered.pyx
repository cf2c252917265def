"""What a filter says of a flow that is described, not observed: a hook for tests."""
from libc.string cimport memset
from nfct_fast.events.flow cimport FLOW_REPLY, NUMBER_MARK, NUMBER_ZONE, tuple_set
from nfct_fast.filters.flow_filter cimport FlowFilter
from nfct_fast.processes.cgroup cimport span_t
from nfct_fast.processes.process cimport (
    PROCESS_CGROUP, PROCESS_CMDLINE, PROCESS_COMM, PROCESS_EXE, PROCESS_IDS, process_build, process_t,
)
from nfct_fast.records.owner cimport OWNER_GID, OWNER_UID, owner_t
from nfct_fast.records.record cimport record_drop, record_t


cdef span_t _span(bytes text):
    cdef span_t result
    result.at = text
    result.size = len(text)
    return result


cdef int _set_owner(owner_t *out, dict known) except -1:
    cdef process_t facts
    cdef bytes comm = known.get("comm") or b"", exe = known.get("exe") or b""
    cdef bytes cmdline = known.get("cmdline") or b"", unit = known.get("unit") or b""
    cdef bytes container = known.get("container") or b""
    cdef bytes path = unit + container
    cdef process_t *process
    memset(&facts, 0, sizeof(facts))
    facts.comm, facts.exe, facts.cmdline, facts.cgroup = _span(comm), _span(exe), _span(cmdline), _span(path)
    facts.has = PROCESS_COMM | PROCESS_EXE | PROCESS_CGROUP | (PROCESS_CMDLINE if cmdline else 0)
    out.reason = known.get("reason") or 0
    if known.get("pid") is not None:
        facts.pid = known["pid"]
        if known.get("uid") is not None:
            facts.has |= PROCESS_IDS
            facts.uid, facts.gid = known["uid"], known.get("gid", 0)
    elif known.get("uid") is not None:
        out.has |= OWNER_UID | OWNER_GID
        out.uid, out.gid = known["uid"], known.get("gid", 0)
    process = process_build(&facts)
    if process == NULL:
        raise MemoryError("process")
    # Whatever a path with these names would look like.
    memset(&process.names, 0, sizeof(process.names))
    process.names.unit.at = process.cgroup.at
    process.names.unit.size = len(unit)
    process.names.container.at = process.cgroup.at + len(unit)
    process.names.container.size = len(container)
    if known.get("pid") is not None:
        out.process = process
    else:
        out.cgroup = process
    return 0


def verdicts(FlowFilter flow_filter not None, dict flow not None) -> tuple[bool, bool, bool]:
    """Whether a flow passes what the kernel runs, what is run before attribution, and the whole filter.

    flow: `proto`, `orig` and `reply` (source, port, destination, port; or None), `zone`, `mark`, `netns`, `direction`,
    `first_seen` (by default 0), `owner` and `peer`: dictionaries with names as bytes and numbers, None for what is
    unknown.
    """
    cdef record_t record
    cdef bint heard, possible, wanted
    memset(&record, 0, sizeof(record))
    src, sport, dst, dport = flow["orig"]
    tuple_set(&record.flow.orig, flow["proto"], src, sport, dst, dport)
    if flow["reply"] is not None:
        src, sport, dst, dport = flow["reply"]
        tuple_set(&record.flow.reply, flow["proto"], src, sport, dst, dport)
        record.flow.has |= FLOW_REPLY
    record.flow.numbers[NUMBER_ZONE], record.flow.numbers[NUMBER_MARK] = flow["zone"], flow["mark"]
    record.flow.netns_inode = flow["netns"]
    record.direction, record.first_seen = flow["direction"], flow.get("first_seen", 0)
    try:
        _set_owner(&record.owner, flow["owner"])
        _set_owner(&record.peer, flow["peer"])
        heard, possible = flow_filter.is_heard(&record.flow), flow_filter.may_be_wanted(&record.flow)
        wanted = possible and flow_filter.keep_wanted(&record, 1) == 1
        return heard, possible, wanted
    finally:
        record_drop(&record)
