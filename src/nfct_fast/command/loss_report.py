"""What was lost, forgotten or not written, in words for the operator."""

from nfct_fast.command.standard_error import warn


class LossReport:
    """The report of lost and recovered events on standard error: at once, and then at most once a second."""

    def __init__(self, conntrack, replayed):
        self._conntrack, self._replayed = conntrack, replayed
        self._reported = (0, 0, 0, 0, 0, 0)
        self._next = 0.0

    def report(self, now) -> None:
        """Report what is new. now: seconds of the monotonic clock."""
        if now >= self._next and (messages := self._messages()):
            warn(*messages)
            self._next = now + 1

    def _messages(self):
        conntrack = self._conntrack
        counts = (
            conntrack.lost,
            conntrack.recovered,
            conntrack.unallocated,
            conntrack.process_events_lost,
            conntrack.forgotten,
            conntrack.seen_forgotten,
        )
        lost, recovered, unallocated, programs, forgotten, unseen = (
            count - reported for count, reported in zip(counts, self._reported)
        )
        self._reported = counts
        messages = []
        if self._replayed:
            return [f"{lost} events were lost when this was recorded"] if lost > 0 else []
        if recovered > 0:
            messages.append(f"{recovered} flows recovered from the conntrack table, because their events were lost")
        if unallocated > 0:
            messages.append(
                f"{lost} events lost or more: the kernel was out of memory for {unallocated} events at "
                "least, and keeps no exact count of them"
            )
        elif lost > 0:
            messages.append(
                f"{lost} events lost: they came faster than they could be processed (a larger --rcvbuf-max holds more)"
            )
        if forgotten > 0:
            messages.append(
                f"{forgotten} live flows forgotten: there were more than can be remembered; their records will say so"
            )
        if unseen > 0:
            messages.append(
                f"{unseen} addresses and ports of programs forgotten: they will be marked as first seen again "
                "(a larger --first-seen-max remembers more)"
            )
        if programs > 0:
            messages.append(
                f"{programs} process starts and exits lost: some short-lived processes will have no command line"
            )
        return messages

    def report_end(self, held=0) -> None:
        """Report what is left, after the Conntrack is closed. held: flows that were taken from it and not written."""
        messages = self._messages()
        stats = self._conntrack.stats()
        if stats.unrecorded:
            messages.append(f"{stats.unrecorded} flows written and not recorded")
        if stats.unstored:
            messages.append(f"{stats.unstored} flows written and not stored")
        waiting, process = self._conntrack.unconfirmed
        if waiting:
            messages.append(f"{waiting} flows are not stored yet: process {process} (nfct-store) goes on with that")
        if stats.undelivered + held:
            more = " or more" if self._conntrack.unreported[1] else ""
            messages.append(f"{stats.undelivered + held}{more} flows received and not written")
        if stats.live_flows or stats.unended:
            messages.append(f"{stats.live_flows + stats.unended} flows had not ended and have no record")
        if stats.undecoded:
            messages.append(f"{stats.undecoded} events could not be decoded and were not written")
        warn(*messages)
