"""Categories of the warnings that opening a Conntrack gives."""


class ConntrackWarning(RuntimeWarning):
    """Something will be missing from what a Conntrack reports."""


class NoEventsWarning(ConntrackWarning):
    """No event can ever arrive; a sentence of `Conntrack.no_event_reasons`."""


class UnknownOwnersWarning(ConntrackWarning):
    """Some owners cannot be found on this host; a sentence of `Conntrack.degraded`."""
