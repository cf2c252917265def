"""What would be found for a flow nobody heard of: for tests and benchmarks."""
from libc.stdint cimport int64_t
from libc.string cimport memset

from .attribution cimport Attribution
from .flow cimport EVENT_NEW, FLOW_REPLY
from .procfs cimport procfs_monotonic_ns
from .record cimport flow_object, record_t
from .sockdiag cimport set_tuple


def find_flow(Attribution attribution not None, proto, src, sport, dst, dport, *, reply=None, netns=0, icmp_id=0,
              double age=0.0):
    """A `Flow` as it would be told of one heard `age` seconds ago: to see what is found, and how.

    proto: IPPROTO_* number; addresses as ipaddress takes them; reply: the same four of the reply direction where
    NAT applies; netns: the number of the home it was heard in. Blocks while it looks.
    """
    cdef record_t record
    memset(&record, 0, sizeof(record))
    set_tuple(&record.flow.orig, src, sport, dst, dport, proto)
    record.flow.orig.icmp_id = icmp_id
    record.flow.type = EVENT_NEW
    record.flow.netns = netns
    if reply is not None:
        set_tuple(&record.flow.reply, reply[0], reply[1], reply[2], reply[3], proto)
        record.flow.reply.icmp_id = icmp_id
        record.flow.has |= FLOW_REPLY
    with nogil:
        attribution.begin(procfs_monotonic_ns() - <int64_t>(age * 1e9), 0)
        attribution.resolve(&record)
    return flow_object(&record)
