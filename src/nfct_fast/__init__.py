"""Log network connections from Linux conntrack events, each with the process behind it."""

from importlib import import_module

from . import _loader  # noqa: F401 -- first: it finds the modules that the others import
from ._version import __version__

_MODULES = {
    "Conntrack": "conntrack",
    "CheckReport": "checking.check_report",
    "CheckItem": "checking.check_report",
    "CheckState": "checking.check_report",
    "TriedFlow": "checking.check_report",
    "FilterError": "filters.filter_error",
    "Stats": "conntrack",
    "list_flows": "conntrack",
    "Lost": "records.loss",
    "LostEvents": "records.loss",
    "RecordingError": "replay.recording_error",
    "ConntrackWarning": "monitoring.warned",
    "NoEventsWarning": "monitoring.warned",
    "UnknownOwnersWarning": "monitoring.warned",
    "Batch": "columns.batch",
    "Flow": "records.record",
    "Tuple": "records.record",
    "Counters": "records.record",
    "Owner": "records.owner",
    "Process": "processes.process_object",
    "Status": "text.status",
    "EventType": "records.words",
    "FirstSeenMark": "records.words",
    "Outcome": "records.words",
    "Direction": "records.words",
    "Match": "records.words",
    "Reason": "records.words",
    "Host": "kernel.host",
    "DEFAULT_REDACTIONS": "processes.redactor",
    "find_holders": "sockets.current_holders",
    "Store": "search.flow_store",
    "ClickHouseStore": "search.fleet_store",
    "ClickHouseError": "clickhouse.clickhouse_error",
}

__all__ = ["__version__", *_MODULES]


def __getattr__(name):
    # Imported on first use: the command line must be able to handle a ^C before the extension modules load.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    return value


def __dir__():
    return sorted({*globals(), *__all__})
