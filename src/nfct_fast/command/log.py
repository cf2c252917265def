"""The logger: open a Conntrack, give up privileges, and write its flows to the outputs until asked to end."""

import select
import time
import warnings

from nfct_fast.command.arguments import parser  # noqa: F401 -- every subcommand has it, with run()
from nfct_fast.command.formats import Formats, community_id_seed
from nfct_fast.command.loss_report import LossReport
from nfct_fast.command.metrics_service import serve_metrics
from nfct_fast.command.opening import allow_descriptors, common_options, rights_of
from nfct_fast.command.outputs import open_outputs
from nfct_fast.command.service_manager import ServiceManager
from nfct_fast.command.standard_error import warn
from nfct_fast.command.stop import Stop
from nfct_fast.conntrack import Conntrack, list_flows
from nfct_fast.monitoring.warned import ConntrackWarning
from nfct_fast.output.aggregator import Aggregator
from nfct_fast.records.presentation import Presentation
from nfct_fast.replay.recording_host import read_identity


def _log(conntrack, writer, aggregator, stop, outputs, replayed, manager):
    report = LossReport(conntrack, replayed)
    taker = writer if aggregator is None else aggregator
    try:
        while (written := conntrack._write_to(taker)) is not None:
            report.report(time.monotonic())
            manager.beat()
            warn(*conntrack.notices(), *outputs.check(stop))
            if stop.asked:
                manager.stopping()
                conntrack.stop()  # events received until now are still written
            elif not written and outputs.is_over():
                return
        while aggregator is not None and not aggregator.close():
            warn(*outputs.check(stop))
    finally:
        # In any case: count the flows that were received and not written.
        conntrack.close()
        warn(*conntrack.notices())
        writer.write_loss(*conntrack.unreported)
        warn(*outputs.finish(stop))
        report.report_end(0 if aggregator is None else aggregator.held)


def _open(arguments, rights):
    common = common_options(arguments, rights)
    if arguments.list:
        excluded = ("events", "flows", "track", "record", "replay", "store", "first_seen")
        if any(getattr(arguments, name) for name in excluded):
            raise ValueError(
                "--list shows what is there now: it excludes -e, --flows, --track, --record, --replay, --store and "
                "--first-seen"
            )
        return list_flows(**common)
    if arguments.store is None and (arguments.store_days, arguments.store_size) != (None, None):
        raise ValueError("--store-days and --store-size say what --store keeps: name a directory by --store")
    return Conntrack(
        events=arguments.events,
        flows=arguments.flows,
        first_seen=arguments.first_seen_max if arguments.first_seen else False,
        rcvbuf=arguments.rcvbuf,
        rcvbuf_limit=max(arguments.rcvbuf, arguments.rcvbuf_max),
        track=arguments.track,
        notes=arguments.notes,
        record=arguments.record,
        replay=arguments.replay,
        speed=arguments.speed,
        store=arguments.store,
        store_days=arguments.store_days,
        store_size=arguments.store_size,
        metrics=arguments.metrics is not None,
        **common,
    )


def _presentation(arguments):
    identity = () if arguments.replay is None else read_identity(arguments.replay)
    return Presentation(community_id_seed(arguments), identity)


def run(arguments) -> None:
    """Log until the flows end, the program is asked to end, or nobody reads the output.

    Raises:
        ValueError: An argument is wrong.
        RecordingError, OSError: See Conntrack and the outputs; BrokenPipeError if standard output's reader is gone.
    """
    if arguments.metrics is not None and (arguments.list or arguments.replay):
        raise ValueError("--metrics tells of what comes: it excludes --list and --replay")
    presentation = _presentation(arguments)
    formats = Formats(arguments, presentation)
    rights = rights_of(arguments)
    warnings.simplefilter("ignore", ConntrackWarning)  # they are printed as lines of this program's own, below
    allow_descriptors(arguments)
    manager = ServiceManager(warn)  # before helper processes are started
    outputs = open_outputs(formats, arguments, presentation, rights)
    with serve_metrics(arguments.metrics, rights) as metrics, _open(arguments, rights) as conntrack:
        stop = Stop(outputs.reopens)
        writer = outputs.begin(conntrack, stop)
        aggregator = None
        if arguments.aggregate is not None:
            speed = 1 if arguments.replay is None else arguments.speed or 0
            aggregator = Aggregator(writer, arguments.aggregate, speed)
        conntrack._watch(conntrack.notices_fileno())
        if manager.timer is not None:
            conntrack._watch(manager.timer.fileno(), select.EPOLLIN)
        rights.drop()
        outputs.start()
        for reason in (*rights.reasons, *conntrack.no_event_reasons, *conntrack.degraded, *conntrack.notices()):
            warn(reason)
        metrics.start(conntrack, outputs, *(() if aggregator is None else (aggregator,)))
        manager.ready(conntrack)
        try:
            _log(conntrack, writer, aggregator, stop, outputs, arguments.replay is not None, manager)
        finally:
            if arguments.debug:
                warn(conntrack.stats())
