"""The sources in use, by number, and the counts of those that were released."""
cimport cython
from libc.stdint cimport uint64_t
from nfct_fast.events.source cimport Source

from typing import NamedTuple


class Counts(NamedTuple):
    """Counts of one or more sources; see Stats for each."""

    dropped: int = 0
    recovered: int = 0
    preexisting: int = 0
    lost: int = 0
    overruns: int = 0
    truncated: int = 0
    spoofed: int = 0
    unallocated: int = 0


cdef object counts_of(Source source):
    return Counts(source.socket.dropped(), source.recovered_count, source.existing_count, source.lost,
                  source.socket.overruns, source.socket.truncated, source.spoofed, source.unallocated)


@cython.final
@cython.auto_pickle(False)
cdef class Sources:
    """A table of up to 1,024 sources, empty at first."""

    def __cinit__(self):
        self.by_number = []
        self.retired = Counts()

    @property
    def capacity(self) -> int:
        """The most sources there can be at once."""
        return SOURCES

    def add(self, Source source not None) -> None:
        """Add a source under its own index, which must be free. ValueError if the index is too large."""
        if not 0 <= source.index < SOURCES:
            raise ValueError(f"source {source.index}: no more than {SOURCES} network namespaces can be monitored")
        self.by_number.extend([None] * (source.index + 1 - len(self.by_number)))
        self.by_number[source.index] = source
        self.pointers[source.index] = <void *>source
        self.bound = max(self.bound, source.index + 1)

    def collect(self) -> list:
        """Close the sources that the reading thread has released, and return them.

        Their counts are kept, and their numbers are free again.
        """
        cdef Source source
        gone = []
        for number, source in enumerate(self.by_number):
            if source is not None and self.pointers[number] == NULL:
                source.close()
                self.retired = Counts(*map(sum, zip(self.retired, counts_of(source))))
                self.retired_reported_lost += source.reported_lost
                self.retired_reported_recovered += source.reported_recovered
                self.retired_reported_unallocated += source.reported_unallocated
                self.by_number[number] = None
                gone.append(source)
        return gone

    def counts(self):
        """Return the Counts of all sources together, including released ones."""
        return Counts(*map(sum, zip(self.retired, *[counts_of(source) for source in self])))

    def reported(self) -> tuple[int, int, int]:
        """Return what LOST records have reported: lost events, recovered flows, unallocated events. Cheap."""
        cdef Source source
        cdef uint64_t lost = self.retired_reported_lost
        cdef uint64_t recovered = self.retired_reported_recovered
        cdef uint64_t unallocated = self.retired_reported_unallocated
        for source in self.by_number:
            if source is not None:
                lost += source.reported_lost
                recovered += source.reported_recovered
                unallocated += source.reported_unallocated
        return lost, recovered, unallocated

    def close(self) -> None:
        """Close all sources, after the reading thread has ended."""
        for source in self:
            source.close()

    def __len__(self):
        return len(self.by_number) - self.by_number.count(None)

    def __getitem__(self, int number):
        return self.by_number[number]

    def __iter__(self):
        return iter([source for source in self.by_number if source is not None])

    cdef void *get(self, int number) noexcept nogil:
        return self.pointers[number]

    cdef void release(self, int number) noexcept nogil:
        self.pointers[number] = NULL
