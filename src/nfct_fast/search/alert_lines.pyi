from collections.abc import Callable, Iterator
from typing import BinaryIO

from nfct_fast.search.alert import Alert

LINE_MOST: int

def read_alerts(file: BinaryIO, complain: Callable[[int, str], object]) -> Iterator[Alert]: ...
