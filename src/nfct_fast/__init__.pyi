from nfct_fast.checking.check_report import CheckItem as CheckItem
from nfct_fast.checking.check_report import CheckReport as CheckReport
from nfct_fast.checking.check_report import CheckState as CheckState
from nfct_fast.checking.check_report import TriedFlow as TriedFlow
from nfct_fast.clickhouse.clickhouse_error import ClickHouseError as ClickHouseError
from nfct_fast.columns.batch import Batch as Batch
from nfct_fast.conntrack import Conntrack as Conntrack
from nfct_fast.conntrack import Stats as Stats
from nfct_fast.conntrack import list_flows as list_flows
from nfct_fast.filters.filter_error import FilterError as FilterError
from nfct_fast.kernel.host import Host as Host
from nfct_fast.monitoring.warned import ConntrackWarning as ConntrackWarning
from nfct_fast.monitoring.warned import NoEventsWarning as NoEventsWarning
from nfct_fast.monitoring.warned import UnknownOwnersWarning as UnknownOwnersWarning
from nfct_fast.processes.process_object import Process as Process
from nfct_fast.processes.redactor import DEFAULT_REDACTIONS as DEFAULT_REDACTIONS
from nfct_fast.records.loss import Lost as Lost
from nfct_fast.records.loss import LostEvents as LostEvents
from nfct_fast.records.owner import Owner as Owner
from nfct_fast.records.record import Counters as Counters
from nfct_fast.records.record import Flow as Flow
from nfct_fast.records.record import Tuple as Tuple
from nfct_fast.records.words import Direction as Direction
from nfct_fast.records.words import EventType as EventType
from nfct_fast.records.words import FirstSeenMark as FirstSeenMark
from nfct_fast.records.words import Match as Match
from nfct_fast.records.words import Outcome as Outcome
from nfct_fast.records.words import Reason as Reason
from nfct_fast.replay.recording_error import RecordingError as RecordingError
from nfct_fast.search.fleet_store import ClickHouseStore as ClickHouseStore
from nfct_fast.search.flow_store import Store as Store
from nfct_fast.sockets.current_holders import find_holders as find_holders
from nfct_fast.text.status import Status as Status

from ._version import __version__ as __version__

__all__ = [
    "__version__",
    "Conntrack",
    "CheckReport",
    "CheckItem",
    "CheckState",
    "TriedFlow",
    "FilterError",
    "Stats",
    "list_flows",
    "Lost",
    "LostEvents",
    "RecordingError",
    "ConntrackWarning",
    "NoEventsWarning",
    "UnknownOwnersWarning",
    "Batch",
    "Flow",
    "Tuple",
    "Counters",
    "Owner",
    "Process",
    "Status",
    "EventType",
    "Outcome",
    "Direction",
    "Match",
    "Reason",
    "Host",
    "DEFAULT_REDACTIONS",
    "find_holders",
    "Store",
    "ClickHouseStore",
    "ClickHouseError",
]
