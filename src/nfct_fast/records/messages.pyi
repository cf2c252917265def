from typing import final

from nfct_fast.records.record import Flow

@final
class MessageDecoder:
    def __init__(self) -> None: ...
    @property
    def errors(self) -> int: ...
    def decode(self, data: bytes, time_ns: int = 0) -> list[Flow]: ...
