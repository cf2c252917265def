"""The words that records use, as enumerations whose members are strings: flow.type == "NEW" holds as well."""

from enum import StrEnum


class EventType(StrEnum):
    """What happened to a conntrack entry."""

    NEW = "NEW"
    UPDATE = "UPDATE"
    DESTROY = "DESTROY"
    FLOW = "FLOW"  # it ended, and the record is of the whole flow
    ENTRY = "ENTRY"  # nothing: it is in the table


class Direction(StrEnum):
    """Which ends of a flow are on this host."""

    OUT = "out"  # the originator
    IN = "in"  # the responder
    LOCAL = "local"  # both
    FORWARD = "forward"  # neither


class Outcome(StrEnum):
    """What became of a flow that has ended, as far as its conntrack entry says."""

    ANSWERED = "answered"  # a packet came back; of TCP, and both ends closed it or its entry was deleted
    UNANSWERED = "unanswered"  # nothing came back
    REFUSED = "refused"  # TCP: the first thing that came back was a reset
    RESET = "reset"  # TCP: a reset ended it, by either end
    TIMED_OUT = "timed_out"  # TCP: it was not closed, and nobody spoke until the entry expired


class FirstSeenMark(StrEnum):
    """What a flow is the first of that its program was seen to make."""

    DESTINATION = "destination"  # to this address
    PORT = "port"  # to this port, of any address
    ROAMING = "roaming"  # of so many new addresses that no more of them are marked
    SCANNING = "scanning"  # of so many new ports that no more of them are marked


class Match(StrEnum):
    """How an owner was found."""

    BPF = "bpf"  # by a note that a BPF program took when the socket was used
    SOCKET = "socket"  # by the socket of exactly this tuple
    WILDCARD = "wildcard"  # by the unconnected socket that is bound to the local end
    LISTENER = "listener"  # by the listening socket of the connection
    PROTOCOL = "protocol"  # by the only raw socket of the IP protocol


class Reason(StrEnum):
    """Why there is no process."""

    OFF = "off"  # attribution is turned off
    FORWARDED = "forwarded"  # neither end is an address of this namespace
    CLOSED = "closed"  # no socket has this tuple, or not any more
    ORPHANED = "orphaned"  # the process has closed the socket, which lives on in the kernel
    EXITED = "exited"  # the socket was found, but no process holds it
    PERMISSION = "permission"  # some processes may not be inspected
    BUDGET = "budget"  # the search was given up, as it would have taken too long
    AMBIGUOUS = "ambiguous"  # several sockets match this tuple
    KERNEL = "kernel"  # the kernel itself sends or answers, or no process has the socket open
    UNSUPPORTED = "unsupported"  # the kernel has no table of this protocol's sockets
    ERROR = "error"  # a query to the kernel failed
    REMOTE = "remote"  # this end is on another host
    NETNS = "netns"  # possibly in a network namespace that could not be entered
    FORGOTTEN = "forgotten"  # it is not remembered who began the flow, and cannot be told at its end
