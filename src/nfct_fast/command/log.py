"""The logger: open a Conntrack, give up privileges, and write its flows to standard output until asked to end."""

import errno
import os
import resource
import select
import time
import warnings

from nfct_fast.command.arguments import parser  # noqa: F401 -- every subcommand has it, with run()
from nfct_fast.command.loss_report import LossReport
from nfct_fast.command.metrics_service import serve_metrics
from nfct_fast.command.service_manager import ServiceManager
from nfct_fast.command.standard_error import warn
from nfct_fast.command.stop import Stop, is_reader_gone
from nfct_fast.conntrack import Conntrack, list_flows
from nfct_fast.monitoring.warned import ConntrackWarning
from nfct_fast.output.ecs_lines import EcsLines
from nfct_fast.output.json_lines import JsonLines
from nfct_fast.output.sink import Sink
from nfct_fast.output.template import Template
from nfct_fast.output.writer import Writer
from nfct_fast.processes.redactor import DEFAULT_REDACTIONS
from nfct_fast.records.presentation import Presentation
from nfct_fast.replay.recording_host import read_identity
from nfct_fast.rights import Rights, find_user

_STDOUT = 1


def _watch(conntrack, stop, output, manager):
    conntrack._watch(stop.fd, select.EPOLLIN | select.EPOLLONESHOT)
    conntrack._watch(conntrack.notices_fileno())
    if manager.timer is not None:
        conntrack._watch(manager.timer.fileno(), select.EPOLLIN)
    try:
        conntrack._watch(output, select.EPOLLERR)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EEXIST):  # a regular file cannot be waited for
            raise


def _log(conntrack, writer, stop, output, replayed, manager):
    report = LossReport(conntrack, replayed)
    try:
        while (written := conntrack._write_to(writer)) is not None:
            report.report(time.monotonic())
            manager.beat()
            warn(*conntrack.notices())
            if stop.asked:
                manager.stopping()
                conntrack.stop()  # events received until now are still written
            elif not written and is_reader_gone(output):
                return
    finally:
        # In any case: count the flows that were received and not written.
        conntrack.close()
        warn(*conntrack.notices())
        writer.write_loss(*conntrack.unreported)
        report.report_end()


def _allow_descriptors():
    """Raise the limit of descriptors to the maximum: hundreds of namespaces take thousands, 1024 is usual."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _rights(arguments):
    find_owners = (arguments.attribution != "off" or arguments.netns == "all") and arguments.replay is None
    if arguments.no_sandbox:
        if arguments.user is not None:
            raise ValueError("--user and --no-sandbox exclude each other")
        return Rights(find_owners=find_owners)
    wanted = arguments.user is not None or os.geteuid() == 0
    try:
        return Rights(
            user=find_user(arguments.user) if wanted else None,
            filter_calls=True,
            find_owners=find_owners,
            use_helpers=find_owners,
        )
    except LookupError as error:
        raise ValueError(str(error)) from None


def _open(arguments, rights):
    common = dict(
        protocol=arguments.protocol,
        filter=" ".join(arguments.filter),
        attribution=arguments.attribution,
        netns=arguments.netns,
        cmdline=not arguments.no_cmdline,
        redact=(*arguments.redact, *(DEFAULT_REDACTIONS if arguments.redact_defaults else ())),
        drop_privileges=rights,
    )
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


def _formatter(arguments):
    identity = () if arguments.replay is None else read_identity(arguments.replay)
    presentation = Presentation(arguments.community_id, identity)
    # An invalid template is an error even with --json.
    template = Template(arguments.format, arguments.format_ts, presentation)
    if arguments.schema == "ecs":
        return EcsLines(presentation)
    return JsonLines(presentation) if arguments.json else template


def run(arguments) -> None:
    """Log until the flows end, the program is asked to end, or nobody reads the output.

    Raises:
        ValueError: An argument is wrong.
        RecordingError, OSError: See Conntrack and Sink; BrokenPipeError if the output's reader is gone.
    """
    if arguments.metrics is not None and (arguments.list or arguments.replay):
        raise ValueError("--metrics tells of what comes: it excludes --list and --replay")
    output = _STDOUT
    formatter = _formatter(arguments)
    rights = _rights(arguments)
    warnings.simplefilter("ignore", ConntrackWarning)  # they are printed as lines of this program's own, below
    if arguments.netns == "all":
        _allow_descriptors()
    manager = ServiceManager(warn)  # before helper processes are started
    with serve_metrics(arguments.metrics, rights) as metrics, _open(arguments, rights) as conntrack:
        stop = Stop()
        writer = Writer(formatter, Sink(output, stop.fd))
        _watch(conntrack, stop, output, manager)
        rights.drop()
        for reason in (*rights.reasons, *conntrack.no_event_reasons, *conntrack.degraded, *conntrack.notices()):
            warn(reason)
        metrics.start(conntrack)
        manager.ready(conntrack)
        try:
            _log(conntrack, writer, stop, output, arguments.replay is not None, manager)
        finally:
            if arguments.debug:
                warn(conntrack.stats())
