from collections.abc import Iterator
from datetime import datetime
from types import TracebackType
from typing import Self

from nfct_fast.records.record import Flow
from nfct_fast.search.alert import Alert
from nfct_fast.search.life import Life
from nfct_fast.search.story import Story

WINDOW_NS: int
STORY_WINDOW_NS: int
Moment = datetime | int | str

def to_ns(moment: Moment | None, otherwise: int) -> int: ...

class FlowFinder:
    complaints: list[str]
    def find(
        self,
        filter: str | None = None,
        *,
        protocol: str | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        alive: bool = False,
        community_id: str | None = None,
        all_records: bool = False,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> Iterator[Flow]: ...
    def find_alert(self, alert: Alert, *, window_ns: int = ..., filter: str | None = None) -> list[Life]: ...
    def story(self, flow: Flow, *, window_ns: int = ...) -> Story: ...
    def lost(self, since: Moment | None = None, until: Moment | None = None) -> int: ...
    @property
    def is_empty(self) -> bool: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, type: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
