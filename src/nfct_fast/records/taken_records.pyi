from collections.abc import Iterator
from typing import final

from nfct_fast.records.record import Flow

@final
class TakenRecords:
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Flow]: ...
    def __next__(self) -> Flow: ...
