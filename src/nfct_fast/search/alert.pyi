from typing import Any, NamedTuple

class AlertError(ValueError): ...

class Alert(NamedTuple):
    line: int
    source: str
    what: str
    time_ns: int | None
    until_ns: int | None
    proto: int
    src: str
    sport: int | None
    dst: str
    dport: int | None
    @property
    def community_id(self) -> str | None: ...
    @property
    def filter(self) -> str: ...

def make_alert(
    line: int,
    source: str,
    what: Any,
    times: tuple[int | None, int | None],
    proto: Any,
    src: Any,
    sport: Any,
    dst: Any,
    dport: Any,
) -> Alert: ...
def time_of(value: Any) -> int | None: ...
