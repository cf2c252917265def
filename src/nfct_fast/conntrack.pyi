import os
from collections.abc import Iterable
from types import TracebackType
from typing import NamedTuple, Self, final

from nfct_fast.kernel.host import Host
from nfct_fast.reading.batches import Batches
from nfct_fast.records.record import Flow

DEFAULT_RCVBUF: int
DEFAULT_RCVBUF_LIMIT: int
NOTED_FLOWS: int

class Stats(NamedTuple):
    events: int
    filtered: int
    dropped: int
    recovered: int
    lost: int
    overruns: int
    undecoded: int
    named: int
    max_queued: int
    rcvbuf: int
    process_events_lost: int
    undelivered: int
    spoofed: int
    unallocated: int
    rcvbuf_all: int
    namespaces: int
    namespaces_added: int
    namespaces_removed: int
    unmonitored: int
    preexisting: int

@final
class Conntrack:
    def __init__(
        self,
        *,
        events: str | Iterable[str] = ...,
        protocol: str | None = None,
        filter: str | None = None,
        netns: str | int | os.PathLike[str] | None = None,
        attribution: str = "auto",
        rcvbuf: int = ...,
        rcvbuf_limit: int = ...,
        recover: bool = True,
        track: bool = False,
        probe: bool = True,
        notes: int = ...,
        community_id: int | None = None,
        cmdline: bool = True,
        redact: str | Iterable[str] | None = None,
        drop_privileges: bool = False,
    ) -> None: ...
    no_event_reasons: tuple[str, ...]
    host: Host
    @property
    def degraded(self) -> tuple[str, ...]: ...
    @property
    def process_events_lost(self) -> int: ...
    @property
    def lost(self) -> int: ...
    @property
    def recovered(self) -> int: ...
    @property
    def unallocated(self) -> int: ...
    @property
    def unreported(self) -> tuple[int, bool]: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...
    def fileno(self) -> int: ...
    def stats(self) -> Stats: ...
    def notices(self) -> tuple[str, ...]: ...
    def notices_fileno(self) -> int: ...
    def read(self, timeout: float | None = None) -> list[Flow]: ...
    def batches(self, max_rows: int = 65536, max_wait: float = 1.0) -> Batches: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> Flow: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, type: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
