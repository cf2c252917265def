import os
from collections.abc import Iterable
from types import GenericAlias, TracebackType
from typing import Generic, Literal, NamedTuple, Self, TypedDict, final, overload

from typing_extensions import TypeVar, Unpack

from nfct_fast.checking.check_report import CheckReport
from nfct_fast.kernel.host import Host
from nfct_fast.reading.batches import Batches
from nfct_fast.records.loss import Lost
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
    unrecorded: int
    live_flows: int
    forgotten: int
    unended: int
    unstored: int
    first_seen: int
    seen: int
    seen_forgotten: int

_T = TypeVar("_T", default=Flow)

class _Options(TypedDict, total=False):
    events: str | Iterable[str] | None
    protocol: str | None
    filter: str | None
    flows: bool | int
    first_seen: bool | int
    netns: str | int | os.PathLike[str] | None
    attribution: str
    rcvbuf: int
    rcvbuf_limit: int
    recover: bool
    track: bool
    probe: bool
    notes: int
    community_id: int | None
    cmdline: bool
    redact: str | Iterable[str] | None
    record: str | os.PathLike[str] | None
    replay: str | os.PathLike[str] | int | None
    speed: float | None
    store: str | os.PathLike[str] | None
    store_days: int | None
    store_size: int | None
    metrics: bool
    drop_privileges: bool

@final
class Conntrack(Generic[_T]):
    @overload
    def __init__(
        self: Conntrack[Flow], *, on_loss: Literal["count", "raise"] = "count", **options: Unpack[_Options]
    ) -> None: ...
    @overload
    def __init__(self: Conntrack[Flow | Lost], *, on_loss: Literal["yield"], **options: Unpack[_Options]) -> None: ...
    def __class_getitem__(cls, item: object, /) -> GenericAlias: ...
    no_event_reasons: tuple[str, ...]
    host: Host
    @property
    def degraded(self) -> tuple[str, ...]: ...
    @property
    def process_events_lost(self) -> int: ...
    @property
    def forgotten(self) -> int: ...
    @property
    def seen_forgotten(self) -> int: ...
    @property
    def lost(self) -> int: ...
    @property
    def recovered(self) -> int: ...
    @property
    def unallocated(self) -> int: ...
    @property
    def unconfirmed(self) -> tuple[int, int]: ...
    @property
    def unreported(self) -> tuple[int, bool]: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...
    def fileno(self) -> int: ...
    def stats(self) -> Stats: ...
    @staticmethod
    def check(
        *,
        netns: str | int | os.PathLike[str] | None = None,
        track: bool = False,
        attribution: str = "auto",
        rcvbuf: int = ...,
    ) -> CheckReport: ...
    def metrics(self, *, openmetrics: bool = False) -> str: ...
    def notices(self) -> tuple[str, ...]: ...
    def notices_fileno(self) -> int: ...
    def read(self, *, limit: int | None = None, timeout: float | None = None) -> list[_T]: ...
    def batches(self, max_rows: int = 65536, max_wait: float = 1.0) -> Batches: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> _T: ...
    def __aiter__(self) -> Self: ...
    async def __anext__(self) -> _T: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, type: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

def list_flows(
    *,
    protocol: str | None = None,
    filter: str | None = None,
    netns: str | int | os.PathLike[str] | None = None,
    attribution: str = "auto",
    community_id: int | None = None,
    cmdline: bool = True,
    redact: str | Iterable[str] | None = None,
    drop_privileges: bool = False,
) -> Conntrack[Flow]: ...
