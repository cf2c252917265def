from ._version import __version__ as __version__
from .conntrack import Conntrack as Conntrack, Stats as Stats
from .owner import Owner as Owner
from .process import Process as Process
from .record import Counters as Counters, Flow as Flow, Tuple as Tuple
from .status import Status as Status

__all__ = ["__version__", "Conntrack", "Stats", "Flow", "Tuple", "Counters", "Owner", "Process", "Status"]
