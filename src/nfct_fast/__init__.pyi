from ._version import __version__ as __version__
from nfct_fast.conntrack import Conntrack as Conntrack, Stats as Stats
from nfct_fast.records.owner import Owner as Owner
from nfct_fast.processes.process import Process as Process
from nfct_fast.records.record import Counters as Counters, Flow as Flow, Tuple as Tuple
from nfct_fast.text.status import Status as Status

__all__ = ["__version__", "Conntrack", "Stats", "Flow", "Tuple", "Counters", "Owner", "Process", "Status"]
