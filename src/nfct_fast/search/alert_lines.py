"""Read alerts from a file, line by line: JSON of Suricata or Zeek, or Zeek's tables.

The file is whatever somebody on the network made the other program write: a line may be huge, nested a thousand times
or no text at all. Such a line is reported and passed over.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO

from nfct_fast.search.alert import Alert, AlertError
from nfct_fast.search.alert_fields import alert_of

LINE_MOST = 1 << 20  # bytes; Suricata's longest have a packet's payload four times
_COLUMNS_MOST = 1000
_ESCAPE = re.compile(r"\\x([0-9a-fA-F]{2})")


class _Table:
    """What the header of a Zeek log says."""

    def __init__(self):
        self.separator, self.unset, self.empty = "\t", "-", "(empty)"
        self.names = []

    def add_header(self, line):
        if line.startswith("#separator "):
            text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), line[11:])
            self.separator = text if len(text) == 1 else "\t"
            return
        key, _, value = line[1:].partition(self.separator)
        if key == "fields":
            self.names = value.split(self.separator)[:_COLUMNS_MOST]
        elif key == "unset_field":
            self.unset = value
        elif key == "empty_field":
            self.empty = value

    def fields(self, line):
        if not self.names:
            raise AlertError("neither JSON nor a line of a Zeek log with its #fields")
        values = line.split(self.separator, _COLUMNS_MOST)
        if len(values) != len(self.names):
            raise AlertError(f"{len(values)} fields, where #fields has {len(self.names)}")
        return {name: value for name, value in zip(self.names, values) if value not in (self.unset, self.empty)}


def _lines(file):
    """Each line with its number; None instead of one that is too long."""
    number = 0
    while line := file.readline(LINE_MOST + 1):
        number += 1
        if len(line) <= LINE_MOST or line.endswith(b"\n"):
            yield number, line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(LINE_MOST)
        yield number, None


def _fields(line):
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise AlertError("no JSON that can be read") from None
    if not isinstance(fields, dict):
        raise AlertError("no JSON object")
    return fields


def read_alerts(file: BinaryIO, complain: Callable[[int, str], None]) -> Iterator[Alert]:
    """Yield the alerts of a file in order, as soon as they can be read. Blocks as the file does.

    complain: Called with the number of a line that cannot be used, and why.
    """
    table = _Table()
    for number, data in _lines(file):
        try:
            if data is None:
                raise AlertError(f"longer than {LINE_MOST:,} bytes")
            line = data.decode("utf-8", "replace").rstrip("\r\n")
            if line.startswith("#"):
                table.add_header(line)
                continue
            if not line.strip():
                continue
            is_json = line.lstrip().startswith("{")
            alert = alert_of(_fields(line) if is_json else table.fields(line), number)
        except AlertError as error:
            complain(number, str(error))
            continue
        if alert is not None:
            yield alert
