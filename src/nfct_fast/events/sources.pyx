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
    early: int = 0
    lost: int = 0
    overruns: int = 0
    truncated: int = 0
    foreign: int = 0
    unmade: int = 0


cdef object counts_of(Source source):
    return Counts(source.socket.dropped(), source.recoveries, source.early, source.lost, source.socket.overruns,
                  source.socket.truncated, source.foreign, source.unmade)


@cython.final
@cython.auto_pickle(False)
cdef class Sources:
    """Empty at first; 1,024 at once at most."""

    def __cinit__(self):
        self.kept = []
        self.past = Counts()

    @property
    def most(self) -> int:
        """How many there can be."""
        return SOURCES

    def add(self, Source source not None) -> None:
        """Under its own number, which nobody has. ValueError if that is too large."""
        if not 0 <= source.index < SOURCES:
            raise ValueError(f"source {source.index}: there are {SOURCES} at most")
        self.kept.extend([None] * (source.index + 1 - len(self.kept)))
        self.kept[source.index] = source
        nfct_source_store(&self.at[source.index], <void *>source)
        self.bound = max(self.bound, source.index + 1)

    def collect(self) -> list:
        """Close those that the reading thread has let go, and keep their counts; them, whose numbers may be given again."""
        cdef Source source
        gone = []
        for number, source in enumerate(self.kept):
            if source is not None and nfct_source_load(&self.at[number]) == NULL:
                source.close()
                self.past = Counts(*map(sum, zip(self.past, counts_of(source))))
                self.past_reported += source.reported
                self.past_reported_recovered += source.reported_recovered
                self.past_reported_unmade += source.reported_unmade
                self.kept[number] = None
                gone.append(source)
        return gone

    def counts(self):
        """Of those that are gone, too."""
        return Counts(*map(sum, zip(self.past, *[counts_of(source) for source in self])))

    def reported(self) -> tuple[int, int, int]:
        """Events told of as lost, flows as recovered, and events as never made: as counts(), but cheaper."""
        cdef Source source
        cdef uint64_t lost = self.past_reported, recovered = self.past_reported_recovered, unmade = self.past_reported_unmade
        for source in self.kept:
            if source is not None:
                lost += source.reported
                recovered += source.reported_recovered
                unmade += source.reported_unmade
        return lost, recovered, unmade

    def close(self) -> None:
        """Close all; when nobody reads any more."""
        for source in self:
            source.close()

    def __len__(self):
        return len(self.kept) - self.kept.count(None)

    def __getitem__(self, int number):
        return self.kept[number]

    def __iter__(self):
        return iter([source for source in self.kept if source is not None])

    cdef void *get(self, int number) noexcept nogil:
        return nfct_source_load(&self.at[number])

    cdef void let_go(self, int number) noexcept nogil:
        nfct_source_store(&self.at[number], NULL)
