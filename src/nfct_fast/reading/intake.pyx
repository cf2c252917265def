"""From a source's datagrams to records in the ring: receive, decode, filter, attribute.

It handles many events at a time without the GIL. It does not wait for the consumer until the ring is full. From then on
the kernel's receive buffers hold the events, and events that do not fit are counted as lost.
"""
cimport cython
from libc.errno cimport EINTR, ENOBUFS, errno
from libc.stdint cimport int64_t, uint16_t, uint64_t
from libc.string cimport memset
from sys_socket cimport AF_INET, AF_INET6, POLLIN, poll, pollfd
from nfct_fast.events.flow cimport EVENT_NEW
from nfct_fast.records.record cimport RECORD_LOSS
from nfct_fast.kernel.clock cimport monotonic_ns, realtime_ns, thread_cpu_ns

cdef enum:
    ROOM_POLL_MS = 1000          # how often room() looks again while the ring is full
    PROCESS_EVENTS_MS = 100      # how often process events are drained meanwhile
    COUNT_WAIT_MS = 5000         # how long a count at the end may take where others have the processors


@cython.final
@cython.auto_pickle(False)
cdef class Intake:
    """The way of events from the sources into the ring.

    Args:
        ring: The ring in which records are put; this thread is its producer.
        attribution: The Resolver that finds the owners.
        flow_filter: The FlowFilter that says which flows are wanted.
        flow_ends: Makes one record per flow, or None.

    Raises:
        OSError: An eventfd cannot be made.
    """

    def __cinit__(self, Ring ring not None, Resolver attribution not None, FlowFilter flow_filter not None,
                  FlowEnds flow_ends=None):
        self.ring = ring
        self.attribution = attribution
        self.flow_ends = flow_ends
        self.decoder = FlowDecoder()
        self.flow_filter = flow_filter
        self.wakeup = Wakeup()

    def stop(self, bint no_consumer=False) -> None:
        """End all waits. Any thread may call this.

        Args:
            no_consumer: Nothing empties the ring any more: events that do not fit are only counted.
        """
        self.stopping = True
        self.no_consumer = self.no_consumer or no_consumer
        self.wakeup.notify()

    def close(self) -> None:
        """Close its descriptors and the ring's; closing twice is harmless."""
        self.ring.close()
        self.wakeup.close()

    @property
    def undecoded(self) -> int:
        """Messages that could not be decoded."""
        return self.decoder.errors

    cdef bint is_wanted(self, Source source, flow_t *flow) noexcept nogil:
        flow.netns_inode = source.inode
        return ((flow.orig.family == AF_INET or flow.orig.family == AF_INET6)
                and self.flow_filter.may_be_wanted(flow))

    cdef int _decode(self, Source source, int count) noexcept nogil:
        """Decode and deliver the `count` datagrams just received, for which the ring has room; 0 or -errno."""
        cdef int room = 0
        cdef record_t *records = self.ring.room(&room)
        cdef int64_t time = realtime_ns()
        cdef size_t length = 0
        cdef const void *data
        cdef int kept = 0
        cdef int i
        for i in range(count):
            data = source.socket.datagram(i, &length)
            memset(&records[kept], 0, sizeof(record_t))
            # The kernel sends each event in a datagram of its own.
            if data == NULL or self.decoder.decode(data, length, &records[kept].flow, 1, time, source.index) != 1:
                continue
            self.events += 1
            # First, as recovery looks for all flows whose events the socket filter lets through.
            if not source.admit(&records[kept].flow):
                continue
            if self.is_wanted(source, &records[kept].flow):
                records[kept].datagram = <uint16_t>(i + 1)
                kept += 1
            else:
                self.filtered += 1
        return self.deliver(source, records, kept, source.drained_at)

    cdef int deliver(self, Source source, record_t *records, int count, int64_t since) noexcept nogil:
        cdef int kept, i
        cdef int64_t now = monotonic_ns()
        source.mark_active(now)
        self.attribution.begin(now, since)
        if self.flow_ends is not None:
            self.flow_ends.begin(source, records, count)
        self.attribution.resolve(records, count)
        if self.flow_ends is not None:
            count = self.flow_ends.finish(source, records, count)
        if self.first_seen is not None:
            kept = self.first_seen.keep_wanted(self.flow_filter, records, count)
        else:
            kept = self.flow_filter.keep_wanted(records, count)
        self.filtered += count - kept
        for i in range(kept):
            self.named += records[i].owner.process != NULL
        if self.recorder is not None:
            self._record(self.recorder, source, records, kept)
        if self.storer is not None:
            self._record(self.storer, source, records, kept)
        self.ring.publish(kept)
        return 0

    cdef void _record(self, Recorder recorder, Source source, const record_t *records, int count) noexcept nogil:
        cdef const void *message
        cdef size_t length = 0
        cdef int i
        for i in range(count):
            message = NULL
            if records[i].datagram:
                message = source.socket.datagram(records[i].datagram - 1, &length)
            recorder.add(&records[i], message, length)
        if recorder is self.storer and self.first_seen is not None:
            # With the flows that are marked: both are stored or neither is.
            recorder.add_seen(self.first_seen.news.data, self.first_seen.news.length)
            self.first_seen.news.length = 0
        recorder.commit()

    cdef int read(self, Source source, int room) noexcept nogil:
        cdef int count = source.socket.receive(room)
        cdef int result
        if count == -ENOBUFS:
            source.mark_overrun()
            # If the kernel could not allocate the event, it has no memory for a larger buffer either.
            if source.socket.unexplained_overruns == 0:
                source.grow(True)
        if count <= 0:
            return count
        result = self._decode(source, count)
        return result if result < 0 else count

    cdef record_t *room(self, int *room) noexcept nogil:
        cdef record_t *records = self.ring.room(room)
        while room[0] == 0:
            if self.stopping or self.wait_for_room(ROOM_POLL_MS) < 0:
                return NULL
            records = self.ring.room(room)
        return records

    cdef int report_loss(self, Source source, bint tentative) noexcept nogil:
        cdef record_t *record
        cdef int room = 0
        cdef uint64_t recovered = source.reported_recovered
        cdef uint64_t unallocated = source.reported_unallocated
        cdef uint64_t lost = source.take_unreported(tentative)
        cdef int64_t since = source.take_since()
        # Also report recoveries, as 0 events lost: that wakes a consumer, who can then say so on standard error.
        unallocated = source.reported_unallocated - unallocated
        if lost == 0 and unallocated == 0 and source.reported_recovered == recovered:
            return 0
        record = self.room(&room)
        if record == NULL:
            self.unreported_lost += lost
            self.at_least = self.at_least or unallocated
            return 0
        memset(record, 0, sizeof(record_t))
        record.kind = RECORD_LOSS
        record.loss.time = realtime_ns()
        record.loss.since = record.loss.time - (monotonic_ns() - since)
        record.loss.netns_inode = source.inode
        record.loss.events = lost
        record.loss.at_least = unallocated != 0
        if self.recorder is not None:
            self.recorder.add_loss(&record.loss)
            self.recorder.commit()
        if self.storer is not None:
            self.storer.add_loss(&record.loss)
            self.storer.commit()
        self.ring.publish(1)
        return 0

    cdef int wait_for_room(self, int timeout) noexcept nogil:
        cdef pollfd fds[2]
        cdef int i
        for i in range(2):
            fds[i].fd = self.ring.freed.fd if i == 0 else self.wakeup.fd
            fds[i].events = POLLIN
            fds[i].revents = 0
        # Processes start and end however long the ring stays full.
        self.attribution.drain()
        if poll(fds, 2, min(timeout, PROCESS_EVENTS_MS)) < 0 and errno != EINTR:
            return -errno
        if fds[1].revents:
            self.wakeup.drain()
        return 0

    cdef void drain_rest(self, Source source, int64_t until, int64_t *count_ns) noexcept nogil:
        # An error of one socket must not keep the others from being drained.
        cdef int64_t began
        if self._read_rest(source, until) == 1:
            began = thread_cpu_ns()
            self._count_rest(source, began + count_ns[0], until + COUNT_WAIT_MS * <int64_t>1000000)
            count_ns[0] -= thread_cpu_ns() - began
        source.count_losses()
        self.report_loss(source, False)

    cdef int _read_rest(self, Source source, int64_t until) noexcept nogil:
        """Deliver what is queued: 0 if that was all, 1 if time or room ran out, or -errno."""
        cdef int64_t left
        cdef int room = 0
        cdef int result
        while True:
            left = until - monotonic_ns()
            self.ring.room(&room)
            if left <= 0 or room == 0 and self.no_consumer:
                return 1
            if room == 0:
                result = self.wait_for_room(<int>(left // 1000000) + 1)
                if result < 0:
                    return result
                continue
            result = self.read(source, room)
            if result == 0 or result < 0 and result != -ENOBUFS:
                return result

    cdef int _count_rest(self, Source source, int64_t cpu_until, int64_t until) noexcept nogil:
        """Count what is queued, at 0.9 us per event; 0 or -errno. If time runs out, the rest counts as one event."""
        cdef int count
        while True:
            if (thread_cpu_ns() > cpu_until or monotonic_ns() > until) and source.socket.queued() > 0:
                self.at_least = True
                self.undelivered += 1
                return 0
            count = source.socket.receive(source.socket.slots)
            if count == -ENOBUFS:
                source.mark_overrun()
            elif count <= 0:
                return count
            else:
                self.undelivered += self._count_undelivered(source, count)

    cdef int _count_undelivered(self, Source source, int count) noexcept nogil:
        """Count the received datagrams that are undelivered: that make a record, may be wanted, and whose flow was not
        just recovered from the table."""
        cdef size_t length = 0
        cdef const void *data
        cdef flow_t flow
        cdef int i
        cdef int others = 0
        cdef bint ends_only = self.flow_ends is not None and not self.flow_ends.begins_wanted
        for i in range(count if source.deduplicating or ends_only or self.flow_filter.possible is not None else 0):
            data = source.socket.datagram(i, &length)
            if data != NULL and self.decoder.decode(data, length, &flow, 1, 0, source.index) == 1:
                others += (not source.admit(&flow) or not self.is_wanted(source, &flow)
                           or ends_only and flow.type == EVENT_NEW)
        return count - others
