"""Readings of the conntrack tables, in pieces, for the bytes of live flows: the kernel tells these in no event.

A reading takes this thread, mostly within the kernel, 2.2 us for each entry, and for each namespace 15 ms per
262,144 buckets of the hash table that all namespaces share. So how long one takes is measured, and decides when the
next may begin.
"""
cimport cython
from libc.stdint cimport int64_t, uint64_t
from nfct_fast.events.conntrack_dump cimport ConntrackDump
from nfct_fast.kernel.clock cimport monotonic_ns, realtime_ns
from nfct_fast.live_table.followed_flows cimport FollowedFlows

import time


@cython.final
@cython.auto_pickle(False)
cdef class TableReading:
    """The reading of all tables, again and again, for the flows that are followed.

    Args:
        followed: Is told of all entries.
        tables: A function that returns {inode of a namespace: its ConntrackDump}.
    """
    cdef FollowedFlows followed
    cdef object tables
    cdef list due               # [(inode, ConntrackDump)] still to be read
    cdef ConntrackDump dump     # being read; None: between two
    cdef uint64_t inode
    cdef bint complete
    cdef readonly bint running
    cdef readonly double cost   # CPU seconds of the last reading

    def __init__(self, FollowedFlows followed not None, tables):
        self.followed, self.tables = followed, tables

    def begin(self) -> None:
        """Begin a reading, which advance() goes on with."""
        self.due = list(self.tables().items())
        self.running = self.complete = True
        self.cost = 0
        self.followed.begin_reading()

    def advance(self, double seconds) -> bool:
        """Read for about so long, at most 5 s if the kernel does not answer. Return whether the reading is over."""
        cdef int64_t until = monotonic_ns() + <int64_t>(seconds * 1e9)
        cdef int count = 0
        cdef double began = time.thread_time()
        while self.running and monotonic_ns() < until:
            if self.dump is None:
                if not self.due:
                    self.running = False
                    self.followed.end_reading(self.complete, realtime_ns())
                    break
                self.inode, self.dump = self.due.pop()
                with nogil:
                    count = self.dump.begin()
                if count < 0:
                    self.complete, self.dump = False, None
                continue
            with nogil:
                count = self.dump.next()
            if count > 0:
                self.followed.join(self.dump.flows, count, self.inode)
                continue
            self.complete = self.complete and count == 0
            self.dump = None
        self.cost += time.thread_time() - began
        return not self.running
