"""The options of `nfct-fast find`, and their help."""

import argparse
import re
import sys

from nfct_fast.command.standard_error import PROGRAM, Parser
from nfct_fast.command.whole_number import whole_number
from nfct_fast.search.flow_store import DEFAULT_DIRECTORY

_EPILOG = """\
examples:
  nfct-fast find --around '03:12 ±5m' port 51234     which program used this port then
  nfct-fast find --since yesterday dst 203.0.113.7
  nfct-fast find --new --since yesterday             what programs talked to for the first time
  nfct-fast find --community-id 1:CBicJdZj0b8kPjK5Zy8MRAYdz94= --story
  nfct-fast find --alert eve.json                    who is behind each alert of Suricata, or line of Zeek
  nfct-fast find --clickhouse https://db.example:8443 --host 'web*' dst 203.0.113.7

Times are those of journalctl(1): "2026-11-24 03:12:00", "03:12", "yesterday", "-1h", "2 hours ago", "@1700000000",
with or without a zone such as UTC. FILTER has the words of the logger; README.md has all. The exit status is 0 if a
flow was found, 1 if none was, and 2 after an error.
"""
_TIMES = {"-S": "-S", "-U": "-U", "--since": "--since=", "--until": "--until=", "--around": "--around="}
_ID = re.compile(r"1:[A-Za-z0-9+/]{27}=")


class _FindParser(Parser):
    """A parser for which what follows --since is a time, also if it begins with a dash: "-1h"."""

    def parse_intermixed_args(self, args=None, namespace=None):
        joined = []
        words = iter(sys.argv[1:] if args is None else args)
        for word in words:
            following = next(words, None) if word in _TIMES else None
            joined.append(word if following is None else _TIMES[word] + following)
        return super().parse_intermixed_args(joined, namespace)


def _community_id(text):
    if _ID.fullmatch(text):
        return text
    if (seed := whole_number(text, 0, 65535)) is not None:
        return seed
    raise argparse.ArgumentTypeError(f"{text!r} is neither a Community ID, such as 1:CBicJd...=, nor a seed to 65535")


def _count(text):
    if (number := whole_number(text, 1, 1 << 31)) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def parser() -> Parser:
    """Return the parser of the arguments."""
    parser = _FindParser(
        prog=f"{PROGRAM} find",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        description="Find flows in what nfct-fast --store keeps, or in a ClickHouse that has those of many hosts: the "
        "process behind a port, an address or an alert.",
    )
    add = parser.add_argument
    add("filter", metavar="FILTER", nargs="*", help='only such flows, as in "dst 192.0.2.0/24 and dport 443"')
    add("--store", metavar="DIR", help=f"the directory to search (default: {DEFAULT_DIRECTORY})")
    add(
        "--clickhouse",
        metavar="URL",
        help="the flows of many hosts in a ClickHouse instead: http[s]://[USER@]HOST[:PORT][?database=NAME]; user and "
        "password are better in CLICKHOUSE_USER and CLICKHOUSE_PASSWORD, as ps(1) shows a URL to everybody",
    )
    add(
        "--host",
        metavar="NAME",
        action="append",
        help="with --clickhouse, only what this host recorded; may be repeated, and have * and ?",
    )
    add("-p", "--protocol", metavar="REGEX", help="only protocols that match this, as of the logger")
    add("-S", "--since", metavar="TIME", help="only records from then on: of a NEW when it began, else when it ended")
    add("-U", "--until", metavar="TIME", help="only records from before then")
    add("--around", metavar="TIME", help="only records from around then: '03:12 ±5m' or '03:12 +-5m' (default: ±1m)")
    add("--alive", action="store_true", help="with a time, flows that were alive at some moment of it instead")
    add(
        "--community-id",
        metavar="ID|SEED",
        nargs="?",
        type=_community_id,
        const=0,
        help="only the flow with this Community ID (of seed 0), on either side of NAT; with a seed or nothing, add the "
        "Community ID of each flow to JSON, as the logger does",
    )
    add(
        "--new",
        action="store_true",
        help="only flows of a program to an address or a port that it was never seen to talk to before, as "
        "nfct-fast --store DIR --first-seen marked them",
    )
    add(
        "--alert",
        metavar="FILE",
        help="the flow of each line of a file, or of - for standard input: Suricata's eve.json, Zeek's conn.log and "
        "notice.log, as tables or JSON",
    )
    add("--window", metavar="SPAN", default="2min", help="how far an alert's time may be off (default: 2min)")
    add(
        "--events",
        action="store_true",
        help="every record; by default one of each flow, that of its end if it is there",
    )
    add("-n", "--lines", metavar="N", type=_count, help="only the newest N flows")
    add("-r", "--reverse", action="store_true", help="the newest first")
    add("--story", action="store_true", help="the whole story of each flow: its process, and what else that did")
    add("--story-window", metavar="SPAN", default="10min", help="how long before and after (default: 10min)")
    add(
        "-t",
        "--format-ts",
        metavar="FMT",
        default="%F %T",
        help="strftime(3) format of {ts} (default: %(default)r)".replace("%F", "%%F").replace("%T", "%%T"),
    )
    add("-f", "--format", metavar="FMT", help="template of a line, as of the logger; {ev.host} is whose flow it is")
    add("--json", action="store_true", help="print one JSON object per line instead")
    add("--debug", action="store_true", help="print a traceback on a failure")
    return parser
