from collections.abc import Iterable
from typing import final

DEFAULT_REDACTIONS: tuple[str, ...]

@final
class Redactor:
    def __init__(self, patterns: Iterable[str] = (), hides: bool = False) -> None: ...
    def redacted(self, cmdline: bytes, cut: int = 0) -> tuple[bytes, int] | None: ...
