"""Which metrics there are, and what they are called. README.md has a table of them."""

from nfct_fast.metrics.exposition import label_text


def add_flow_metrics(to, build, stats, counts, queued, fill, *, whole_flows, recorded) -> None:
    """Add the metrics of a Conntrack to an Exposition.

    Args:
        to: The Exposition.
        build: Labels of the build, a dict.
        stats: Its Stats, with `lost`, `recovered` and `unallocated` as reported so far, which never decrease.
        counts: A CountsSoFar.
        queued: How many flows wait to be taken, and the most that can.
        fill: Entries of the conntrack table and their limit; None if they are not known.
        whole_flows: Whether there is one record per flow, at its end.
        recorded: Whether a recording is made.
    """
    to.gauge(
        "nfct_build_info",
        "The version, and the libraries it was built with; always 1.",
        [(build, 1)],
    )
    _add_events(to, stats)
    _add_owners(to, counts)
    to.histogram(
        "nfct_delivery_delay_seconds",
        "From the event to the moment its flow is taken for output: since the kernel made the event where it says when "
        "(Linux 6.14 with nf_conntrack_timestamp=1), else since its reception.",
        counts.bounds,
        [({"since": since}, buckets, total) for since, (buckets, total) in counts.delays.items()],
    )
    _add_units(to, counts)
    _add_resources(to, stats, queued, fill)
    if whole_flows:
        to.gauge("nfct_live_flows", "Flows that are remembered until they end.", stats.live_flows)
        to.counter(
            "nfct_live_flows_forgotten", "Live flows dropped to make room: their records say so.", stats.forgotten
        )
        to.counter("nfct_live_flows_unended", "Live flows whose end cannot be heard any more.", stats.unended)
    to.counter("nfct_flows_unstored", "Flows that the store lacks, as it was too slow or full.", stats.unstored)
    if recorded:
        to.counter(
            "nfct_flows_unrecorded", "Flows that the recording lacks, as its file was too slow.", stats.unrecorded
        )


def _add_events(to, stats):
    for name, explained, value in (
        ("events", "Conntrack events received and decoded.", stats.events),
        ("events_filtered", "Events and recovered flows that were received and not wanted.", stats.filtered),
        ("events_dropped", "Events the kernel dropped as a receive buffer was full.", stats.dropped),
        ("events_lost", "Events lost for good: dropped or unallocated, and not recovered.", stats.lost),
        ("events_unallocated", "Events the kernel had no memory for; a lower bound.", stats.unallocated),
        ("overruns", "How often the kernel reported a loss of events.", stats.overruns),
        ("flows_recovered", "Flows read from the conntrack table, as their events were lost.", stats.recovered),
        ("events_undecoded", "Messages that were too long or malformed.", stats.undecoded),
        ("datagrams_spoofed", "Datagrams that processes, not the kernel, sent; ignored.", stats.spoofed),
        (
            "process_events_lost",
            "Forks, execs and exits not reported: some short-lived processes have no command line.",
            stats.process_events_lost,
        ),
    ):
        to.counter(f"nfct_{name}", explained, value)


def _add_owners(to, counts):
    to.counter(
        "nfct_flows",
        "Records taken for output, by event.",
        [({"event": name.lower()}, count) for name, count in counts.events.items()],
    )
    to.counter(
        "nfct_owner_found",
        "Records whose process is known, by how it was found.",
        [({"match": name}, count) for name, count in counts.matches.items()],
    )
    to.counter(
        "nfct_owner_unknown",
        "Records whose process is not known, by the reason.",
        [({"reason": name}, count) for name, count in counts.reasons.items()],
    )


def _add_units(to, counts):
    units = [({"unit": "unknown"}, counts.unknown), ({"unit": "other"}, counts.other)]
    containers = []
    for one in counts.units:
        name = label_text(one.name)
        if one.is_container:
            containers.append(({"container": name, "runtime": label_text(one.runtime)}, one))
        else:
            units.append(({"unit": name}, one))
    for of, what, samples in (
        ("unit", "of systemd units, other than containers", units),
        ("container", "of containers", containers),
    ):
        to.counter(f"nfct_{of}_flows", f"Flows {what}.", [(labels, one.flows) for labels, one in samples])
        to.counter(
            f"nfct_{of}_transmit_bytes",
            f"Bytes sent by flows {what}, counted at their end (--flows or DESTROY events; nf_conntrack_acct=1).",
            [(labels, one.sent) for labels, one in samples],
        )
        to.counter(
            f"nfct_{of}_receive_bytes",
            f"Bytes received by flows {what}, counted at their end.",
            [(labels, one.received) for labels, one in samples],
        )


def _add_resources(to, stats, queued, fill):
    to.gauge("nfct_queue_flows", "Flows that wait to be taken for output.", queued[0])
    to.gauge("nfct_queue_limit_flows", "The most that can wait; then the kernel's buffer holds what comes.", queued[1])
    to.gauge("nfct_receive_buffer_bytes", "What the kernel may take for all receive buffers.", stats.rcvbuf_all)
    to.gauge("nfct_namespaces", "Network namespaces monitored now.", stats.namespaces)
    if fill is not None:
        to.gauge("nfct_conntrack_entries", "Entries of the conntrack table.", fill[0])
        to.gauge(
            "nfct_conntrack_entries_limit", "The most entries there can be; then new connections are dropped.", fill[1]
        )
