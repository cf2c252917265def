"""Aligned columns, as ss(8) prints them: a template of fields with widths, and its header."""

import time

from nfct_fast.output.field_names import short_name

DEFAULT_COLUMNS = ("ts", "ev.proto", "ev.src", "ev.sport", "ev.dst", "ev.dport", "info.pid", "info.comm")
# Where there is room for them, too.
WIDE_COLUMNS = (*DEFAULT_COLUMNS[:-1], "info.user", "info.comm", "info.unit")
COLUMN_TIME = "%H:%M:%S"
_WIDE = 110  # a terminal with that many characters

# By the last part of a field's name. Numbers are right-aligned; what is wider moves the rest of its line to the right.
_WIDTHS = {
    **{"type": 7, "proto": 9, "src": 15, "dst": 15, "reply_src": 15, "reply_dst": 15, "direction": 9, "outcome": 10},
    **{
        "community_id": 30,
        "community_id_nat": 30,
        "start": 27,
        "entity_id": 16,
        "match": 8,
        "reason": 10,
        "status": 12,
    },
}
_NUMBERS = {"sport": 5, "dport": 5, "reply_sport": 5, "reply_dport": 5, "pid": 7, "ppid": 7, "uid": 5, "gid": 5}
_NUMBERS |= {"count": 5, "first": 14, "last": 14}
_NUMBERS |= dict.fromkeys(("original_packets", "reply_packets", "original_bytes", "reply_bytes", "duration"), 9)
# Names that others have chosen: on a terminal they are cut, and narrower if it is narrow.
_NAMES = {"comm": 15, "parent": 15, "user": 10, "group": 10, "exe": 24, "cmdline": 40, "service": 32, "unit": 24}
_NAMES |= {"user_unit": 24, "slice": 20, "container": 12, "claimed_unit": 24, "claimed_container": 12}
_LEAST = 8
_OTHER = 8


def default_columns(width, aggregated=False):
    """Return the fields that are shown if none were chosen.

    Args:
        width: Of the terminal, None if there is none.
        aggregated: A line may be of several flows.
    """
    fields = WIDE_COLUMNS if width is None or width >= _WIDE else DEFAULT_COLUMNS
    at = fields.index("info.pid")
    return (*fields[:at], "ev.count", *fields[at:]) if aggregated else fields


def _width(field, time_format):
    if field == "ts":
        return len(time.strftime(time_format.replace("%f", "000000")))
    name = field.rpartition(".")[2]
    return _WIDTHS.get(name) or _NUMBERS.get(name) or _NAMES.get(name) or _OTHER


def layout(fields, time_format, width=None) -> tuple[str, str]:
    """Return the template of a line and the header.

    Args:
        fields: Names of a template's fields.
        time_format: The strftime(3) format of the time.
        width: Characters of the terminal that it should fit; None if it is not printed to one: then nothing is cut.
    """
    titles = ["TIME" if field == "ts" else short_name(field).upper() for field in fields]
    widths = [max(len(title), _width(field, time_format)) for title, field in zip(titles, fields)]
    is_name = [field.rpartition(".")[2] in _NAMES for field in fields]
    if width is not None:
        for i in reversed(range(len(fields))):
            excess = sum(widths) + len(widths) - 1 - width
            if is_name[i]:
                widths[i] = max(_LEAST, len(titles[i]), widths[i] - max(0, excess))
        widths[-1] = max(widths[-1], width - sum(widths[:-1]) - len(widths) + 1)  # the last one takes what is left
    pieces, heads = [], []
    for i, field in enumerate(fields):
        align = ">" if field.rpartition(".")[2] in _NUMBERS else "<"
        cut = f".{widths[i]}" if width is not None and is_name[i] else ""
        last = i == len(fields) - 1 and align == "<"
        spec = f":{cut}" if last else f":{align}{widths[i]}{cut}"
        pieces.append("{" + field + (spec if spec != ":" else "") + "}")
        heads.append(titles[i] if last else f"{titles[i]:{align}{widths[i]}}")
    return " ".join(pieces), " ".join(heads)
