"""The options of the logger, and their help."""

import argparse

from nfct_fast.attribution.resolver import ATTRIBUTIONS, NOTED_FLOWS
from nfct_fast.build_info import LIBRARIES
from nfct_fast.command import documents
from nfct_fast.command.documents import Document
from nfct_fast.command.formats import add_formats
from nfct_fast.command.output_options import add_outputs
from nfct_fast.command.standard_error import PROGRAM, Parser
from nfct_fast.command.whole_number import whole_number
from nfct_fast.conntrack import DEFAULT_RCVBUF, DEFAULT_RCVBUF_LIMIT
from nfct_fast.metrics.listen_address import parse_listen_address
from nfct_fast.search.time_error import TimeError
from nfct_fast.search.time_spans import NS, span_ns
from nfct_fast.seen.first_seen import KNOWN

from .._version import __version__

_EPILOG = """\
examples:
  nfct-fast -p udp                       new UDP flows, IPv4 and IPv6
  nfct-fast -p '^ipv4/(tcp|udp)$'        only these two
  nfct-fast dport 22,443 and not user root
  nfct-fast -e new,destroy               also when a flow ends
  nfct-fast -L -p tcp                    the TCP flows in the conntrack table now
  nfct-fast --flows --json               each flow at its end, with bytes and outcome
  nfct-fast --check                      does it work here, and if not, what helps?
  nfct-fast --flows -e new --store /var/lib/nfct-fast
                                         and keep them all, for 30 days or 10 GiB
  nfct-fast --track                      also on hosts where no firewall rule uses connection tracking
  nfct-fast -t '%F %T.%f' -f '{ts} {ev.dst}:{ev.dport} {info.pid} {info.unit} {info.cmdline}'

An unknown pid is printed as "?", any other unknown field as "-". Control characters and bytes that are not
UTF-8 are printed as \\n, \\x1b, \\xff, a backslash as \\\\; a command line longer than 4096 bytes is cut and
ends in "...". The exit status is 1 on a failure and 2 for invalid arguments.
"""


def _size(text):
    units = {"k": 10, "m": 20, "g": 30}
    number, shift = (text[:-1], units[text[-1].lower()]) if text[-1:].lower() in units else (text, 0)
    if (units_of := whole_number(number, 0, 1 << 30)) is None or not 4096 <= units_of << shift < 1 << 30:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size from 4K to below 1G, such as 64M")
    return units_of << shift


def _large_size(text):
    units = {"m": 20, "g": 30, "t": 40}
    number, unit = text[:-1], text[-1:].lower()
    if unit not in units or not number.isascii() or not number.isdecimal() or len(number) > 6:
        size = 0
    else:
        size = int(number) << units[unit]
    if not 1 << 24 <= size <= 1 << 50:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size from 16M to 1024T, such as 10G")
    return size


def _number(least, most, what="number"):
    """Return a reader of whole numbers from `least` to `most`."""

    def read(text):
        if (number := whole_number(text, least, most)) is None:
            raise argparse.ArgumentTypeError(f"{text!r} is not a {what} from {least} to {most}")
        return number

    return read


def _window(text):
    try:
        window = span_ns(text) / NS
    except TimeError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not 1 <= window <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time from 1s to 1h, such as 10s or 1min")
    return window


def _speed(text):
    try:
        speed = float(text)
    except ValueError:
        speed = 0
    if not 0 < speed < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return speed


def _listen_address(text):
    try:
        return parse_listen_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _events(text):
    names = {"new": "NEW", "update": "UPDATE", "updates": "UPDATE", "destroy": "DESTROY"}  # conntrack(8) says updates
    words = [word.strip().lower() for word in text.split(",")]
    if words == ["all"]:
        return ("NEW", "UPDATE", "DESTROY")
    if not all(word in names for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of new, update and destroy, such as new,destroy")
    return tuple(dict.fromkeys(names[word] for word in words))


def _version():
    return (
        f"{PROGRAM} {__version__}\nbuilt with {LIBRARIES}\n"
        "Licence GPL-2.0-or-later: free software, without any warranty."
    )


def parser() -> Parser:
    """Return the parser of the logger's arguments."""
    parser = Parser(
        prog=PROGRAM,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        optional_values={"--journal": "", "--syslog": "unix:/dev/log"},
        description="Log every new network connection of this host with the process behind it.",
    )
    parser.add_argument(
        "filter",
        metavar="FILTER",
        nargs="*",
        help='log only such flows, as in "dst 192.0.2.0/24 and dport 443 and not user alice"; README.md has all words',
    )
    parser.add_argument(
        "-p",
        "--protocol",
        metavar="REGEX",
        help='log only protocols that match this regular expression, such as "ipv4/tcp" or "ipv6/udp"',
    )
    parser.add_argument(
        "-e",
        "--events",
        metavar="EVENTS",
        type=_events,
        help="what to log of a flow: new, update and destroy, separated by commas, or all (default: new; with "
        "--replay, all that was recorded)",
    )
    parser.add_argument(
        "--flows",
        action="store_true",
        help="log each flow once, when it has ended: with bytes and packets of both directions "
        "(net.netfilter.nf_conntrack_acct=1), its duration and outcome, and the process that began it",
    )
    parser.add_argument(
        "--first-seen",
        action="store_true",
        help="mark the first flow of each program to an address or a port: first_seen in JSON, {ev.first_seen} in "
        "lines, and first_seen any in filters",
    )
    parser.add_argument(
        "--first-seen-max",
        metavar="N",
        type=_number(1024, 1 << 26),
        default=KNOWN,
        help="how many addresses and ports of programs to remember, at 21 to 43 bytes each (default: %(default)s)",
    )
    parser.add_argument(
        "--aggregate",
        metavar="TIME",
        type=_window,
        help="make one line of flows within that time, from 1s to 1h, that differ only in the source port: with their "
        "number, and the sums of bytes and packets. --record and --store keep each flow",
    )
    add_formats(parser)
    add_outputs(parser)
    parser.add_argument(
        "--community-id",
        metavar="SEED",
        nargs="?",
        type=_number(0, 65535, "seed"),
        const=0,
        help="add the Community ID of each flow to JSON, and set the seed of {ev.community_id} (default: 0)",
    )
    parser.add_argument("--no-cmdline", action="store_true", help="show no command lines")
    parser.add_argument(
        "--redact",
        metavar="REGEX",
        action="append",
        default=[],
        help="show [redacted] for what matches in a command line, or for its group (?P<secret>...); may be repeated",
    )
    parser.add_argument(
        "--redact-defaults",
        action="store_true",
        help="do so with the usual arguments for passwords, tokens and keys",
    )
    parser.add_argument(
        "--attribution",
        choices=ATTRIBUTIONS,
        default="auto",
        help="how to look for the process (default: auto, the best way this kernel supports)",
    )
    parser.add_argument(
        "--notes",
        metavar="N",
        type=_number(1, 1 << 24),
        default=NOTED_FLOWS,
        help="how many flows the BPF programs remember, with the memory for that from the start "
        "(default: 65536, and %(default)s once there are thousands per second)",
    )
    parser.add_argument(
        "-L",
        "--list",
        action="store_true",
        help="print the entries of the conntrack table as it is now, and end",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="say what this host offers for all this and what is in the way, try a real flow, and end: with status 0 "
        "if all is well, 3 if something is limited, 1 if something is missing",
    )
    parser.add_argument(
        "--track",
        action="store_true",
        help="turn connection tracking on while the program runs, by an nftables table of its own. "
        "When the conntrack table is full, the kernel drops new connections",
    )
    parser.add_argument(
        "--netns",
        metavar="NAME|PID|all",
        help="monitor this network namespace instead of the program's own; with all, every one on this "
        "host, as they come and go",
    )
    parser.add_argument(
        "--rcvbuf",
        metavar="SIZE",
        type=_size,
        default=DEFAULT_RCVBUF,
        help="receive buffer to ask the kernel for (default: 64M); 1M holds about 1,600 flows",
    )
    parser.add_argument(
        "--rcvbuf-max",
        metavar="SIZE",
        type=_size,
        default=DEFAULT_RCVBUF_LIMIT,
        help="size the receive buffer may grow to as it fills, and with --netns all the sum of all "
        "buffers (default: 256M); the kernel may take twice as much memory",
    )
    parser.add_argument(
        "--record",
        metavar="FILE",
        help="make this file, and record all that is written and what it was made from, for --replay",
    )
    parser.add_argument(
        "--store",
        metavar="DIR",
        help="keep all that is written in this directory as well, which is made if it is not there; see README.md",
    )
    parser.add_argument(
        "--store-days",
        metavar="N",
        type=_number(1, 1000000, "number of days"),
        help="how long it is kept there (default: 30)",
    )
    parser.add_argument(
        "--store-size",
        metavar="SIZE",
        type=_large_size,
        help="how large the store may become, before the oldest goes (default: 10G)",
    )
    parser.add_argument(
        "--replay",
        metavar="FILE",
        help="write the flows of a recording again instead of new ones; needs no privileges",
    )
    parser.add_argument(
        "--speed",
        metavar="N",
        type=_speed,
        help="with --replay, write the flows as they came (1), or N times as fast (default: without waiting)",
    )
    parser.add_argument(
        "--metrics",
        metavar="[ADDR:]PORT",
        type=_listen_address,
        help="serve metrics for Prometheus at http://127.0.0.1:PORT/metrics, or at another address",
    )
    parser.add_argument(
        "--user",
        metavar="NAME",
        help="user to switch to once everything is open, if started as root (default: nfct-fast if "
        "that user exists, else nobody)",
    )
    parser.add_argument(
        "--no-sandbox",
        action="store_true",
        help="stay root, in a single process with all system calls allowed; give up only capabilities "
        "that are not needed",
    )
    parser.add_argument(
        "--debug", action="store_true", help="print statistics at the end, and a traceback on a failure"
    )
    parser.add_argument(
        "--print-unit",
        action=Document,
        nargs=0,
        show=documents.unit,
        help="print a systemd unit for the place where the program is installed, and end",
    )
    parser.add_argument(
        "--man", action=Document, nargs=0, show=documents.manual, help="show the manual page; its source, into a pipe"
    )
    parser.add_argument(
        "--completion",
        action=Document,
        choices=("bash", "zsh", "fish"),
        show=documents.completion,
        help="print what completes the arguments in this shell, and end",
    )
    parser.add_argument("--version", action="version", version=_version())
    return parser
