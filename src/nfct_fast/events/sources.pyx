"""The sources that are read, by number, and what those had counted that are gone."""
cimport cython
from libc.stdint cimport uint64_t
from nfct_fast.events.source cimport Source

from typing import NamedTuple

cdef extern from * nogil:
    """
    static inline void *nfct_source_load(void **at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
    static inline void nfct_source_store(void **at, void *source) { __atomic_store_n(at, source, __ATOMIC_RELEASE); }
    """
    void *nfct_source_load(void **at)
    void nfct_source_store(void **at, void *source)


class Counts(NamedTuple):
    """What sources have counted; see Stats."""

    dropped: int = 0
    recovered: int = 0
    preexisting: int = 0
    lost: int = 0
    overruns: int = 0
    truncated: int = 0
    foreign: int = 0
    unallocated: int = 0


cdef object counts_of(Source source):
    return Counts(source.socket.dropped(), source.recovered_count, source.existing_count, source.lost, source.socket.overruns,
                  source.socket.truncated, source.foreign, source.unallocated)


@cython.final
@cython.auto_pickle(False)
cdef class Sources:
    """Empty at first; 1,024 at once at most."""

    def __cinit__(self):
        self.by_number = []
        self.retired = Counts()

    @property
    def capacity(self) -> int:
        """How many there can be."""
        return SOURCES

    def add(self, Source source not None) -> None:
        """Under its own number, which nobody has. ValueError if that is too large."""
        if not 0 <= source.index < SOURCES:
            raise ValueError(f"source {source.index}: there are {SOURCES} at most")
        self.by_number.extend([None] * (source.index + 1 - len(self.by_number)))
        self.by_number[source.index] = source
        nfct_source_store(&self.pointers[source.index], <void *>source)
        self.bound = max(self.bound, source.index + 1)

    def collect(self) -> list:
        """Close those that the reading thread has let go, and keep their counts; them, whose numbers may be given again."""
        cdef Source source
        gone = []
        for number, source in enumerate(self.by_number):
            if source is not None and nfct_source_load(&self.pointers[number]) == NULL:
                source.close()
                self.retired = Counts(*map(sum, zip(self.retired, counts_of(source))))
                self.retired_reported_lost += source.reported_lost
                self.retired_reported_recovered += source.reported_recovered
                self.retired_reported_unallocated += source.reported_unallocated
                self.by_number[number] = None
                gone.append(source)
        return gone

    def counts(self):
        """Of those that are gone, too."""
        return Counts(*map(sum, zip(self.retired, *[counts_of(source) for source in self])))

    def reported(self) -> tuple[int, int, int]:
        """Events told of as lost, flows as recovered, and events as never made: as counts(), but cheaper."""
        cdef Source source
        cdef uint64_t lost = self.retired_reported_lost, recovered = self.retired_reported_recovered, unallocated = self.retired_reported_unallocated
        for source in self.by_number:
            if source is not None:
                lost += source.reported_lost
                recovered += source.reported_recovered
                unallocated += source.reported_unallocated
        return lost, recovered, unallocated

    def close(self) -> None:
        """Close all; when nobody reads any more."""
        for source in self:
            source.close()

    def __len__(self):
        return len(self.by_number) - self.by_number.count(None)

    def __getitem__(self, int number):
        return self.by_number[number]

    def __iter__(self):
        return iter([source for source in self.by_number if source is not None])

    cdef void *get(self, int number) noexcept nogil:
        return nfct_source_load(&self.pointers[number])

    cdef void release(self, int number) noexcept nogil:
        nfct_source_store(&self.pointers[number], NULL)
