"""Decode conntrack messages that were recorded, or received by other means than Conntrack."""
cimport cython
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from nfct_fast.events.decoder cimport FlowDecoder
from nfct_fast.events.flow cimport flow_t
from nfct_fast.records.owner cimport REASON_OFF
from nfct_fast.records.presentation cimport Presentation
from nfct_fast.records.record cimport flow_object, record_t


cdef list _flows(flow_t *decoded, int count, Presentation presentation):
    cdef record_t record
    cdef int i
    result = []
    for i in range(count):
        memset(&record, 0, sizeof(record))
        record.flow = decoded[i]
        record.owner.reason = record.peer.reason = REASON_OFF
        result.append(flow_object(&record, presentation))
    return result


@cython.final
@cython.auto_pickle(False)
cdef class MessageDecoder:
    """A decoder of NETLINK_NETFILTER datagrams. It reuses one library object; one thread at a time."""
    cdef FlowDecoder decoder
    cdef Presentation presentation

    def __cinit__(self):
        self.decoder = FlowDecoder()
        self.presentation = Presentation()

    @property
    def errors(self) -> int:
        """Number of messages that could not be decoded so far."""
        return self.decoder.errors

    def decode(self, bytes data not None, int64_t time_ns=0) -> list:
        """Return the `Flow` objects of a datagram, without owners. Needs no privilege.

        Args:
            data: One or more netlink messages; those that are not conntrack messages or cannot be decoded are skipped.
            time_ns: When they were received, in ns since the epoch.
        """
        cdef int room = <int>(len(data) // 88 + 1)      # see FlowDecoder
        cdef int count
        cdef flow_t *decoded = <flow_t *>calloc(room, sizeof(flow_t))
        if decoded == NULL:
            raise MemoryError("decode")
        try:
            count = self.decoder.decode(<const char *>data, len(data), decoded, room, time_ns, 0)
            return _flows(decoded, count, self.presentation) if count > 0 else []
        finally:
            free(decoded)
