"""The fields that an entry of the journal or of syslog has beside its message, so that it can be found by them."""
from nfct_fast.events.flow cimport FLOW_MERGED
from nfct_fast.output.fields cimport field_find, field_is_of_merged, field_name, field_put
from nfct_fast.processes.cgroup cimport span_t
from nfct_fast.text.text_buffer cimport buffer_put

# Fields of templates, by the names that they have here.
NAMES = {
    "type": "ev.type", "proto": "ev.proto", "direction": "ev.direction",
    "src": "ev.src", "sport": "ev.sport", "dst": "ev.dst", "dport": "ev.dport",
    "reply_src": "ev.reply_src", "reply_sport": "ev.reply_sport",
    "reply_dst": "ev.reply_dst", "reply_dport": "ev.reply_dport",
    "outcome": "ev.outcome", "duration": "ev.duration", "count": "ev.count", "first": "ev.first", "last": "ev.last",
    "original_bytes": "ev.original_bytes", "reply_bytes": "ev.reply_bytes", "community_id": "ev.community_id",
    "pid": "info.pid", "uid": "info.uid", "gid": "info.gid", "user": "info.user", "comm": "info.comm",
    "exe": "info.exe", "cmdline": "info.cmdline", "cgroup": "info.service", "unit": "info.unit",
    "user_unit": "info.user_unit", "container": "info.container", "entity_id": "info.entity_id", "match": "info.match",
    "reason": "info.reason",
    "peer_pid": "peer.pid", "peer_user": "peer.user", "peer_comm": "peer.comm", "peer_unit": "peer.unit",
    "peer_container": "peer.container",
}
_NAMES = [name.encode("ascii") for name in NAMES]        # keeps the memory that entry_field_t points to


cdef int entry_fields(entry_field_t *out):
    cdef int count = 0
    cdef bytes name
    for name, field in zip(_NAMES, NAMES.values()):
        out[count].name, out[count].size = name, <int>len(name)
        out[count].field = field_find(field)
        count += 1
    return count


cdef bint entry_value(text_buffer_t *out, const record_t *record, int field, Presentation presentation) noexcept nogil:
    cdef span_t name
    cdef size_t begin = out.length
    cdef size_t i
    if field_is_of_merged(field) and not record.flow.has & FLOW_MERGED:
        return False
    if field_name(record, field, &name):
        buffer_put(out, name.at, name.size)
        for i in range(begin, out.length):
            if out.data[i] == 0:                # between the arguments of a command line
                out.data[i] = c" "
        return out.length > begin
    field_put(out, record, field, presentation)
    # Unknown, or of several flows not one.
    if out.length == begin + 1 and (out.data[begin] == c"-" or out.data[begin] == c"?" or out.data[begin] == c"*"):
        out.length = begin
    return out.length > begin
