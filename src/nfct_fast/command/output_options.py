"""The options that say where flows are written to, and what their values mean."""

import re
from typing import NamedTuple

STANDARD_OUTPUT = "-"
_NAMESPACE = re.compile(r"[A-Za-z0-9_.-]+")
_JOURNAL = "/run/systemd/journal{}/socket"
_SYSLOG_PORTS = {"udp": 514, "tcp": 601}


class SyslogServer(NamedTuple):
    """Where syslog messages go: "unix" and a path, or "udp" or "tcp" with a host and a port."""

    transport: str
    host: str
    port: int | None = None

    @property
    def name(self) -> str:
        """For messages."""
        if self.port is None:
            return f"syslog {self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"syslog {self.transport}:{host}:{self.port}"


def journal_socket(namespace) -> str:
    """Return the path of the journal's socket. namespace: "" for the usual journal. ValueError."""
    if namespace and (not _NAMESPACE.fullmatch(namespace) or namespace in (".", "..")):
        raise ValueError(f"--journal: {namespace!r} is not the name of a journal namespace")
    return _JOURNAL.format(f".{namespace}" if namespace else "")


def syslog_server(text) -> SyslogServer:
    """Read unix:PATH, udp:HOST[:PORT] or tcp:HOST[:PORT]; an IPv6 address with a port is in brackets. ValueError."""
    transport, _, rest = text.partition(":")
    if transport == "unix" and rest.startswith("/"):
        return SyslogServer("unix", rest)
    found = re.fullmatch(r"(?:\[(?P<v6>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^:\[\]/\s]+))(?::(?P<port>[0-9]{1,5}))?", rest)
    bare = re.fullmatch(r"[0-9A-Fa-f:.]+", rest) if rest.count(":") > 1 else None
    if transport in _SYSLOG_PORTS and (found or bare):
        port = int(found["port"]) if found and found["port"] else _SYSLOG_PORTS[transport]
        if 0 < port < 65536:
            return SyslogServer(transport, rest if not found else found["v6"] or found["host"], port)
    raise ValueError(f"--syslog: {text!r} is none of unix:/dev/log, udp:HOST[:PORT] and tcp:HOST[:PORT]")


def add_outputs(parser) -> None:
    """Add the options that choose outputs."""
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        action="append",
        default=[],
        help="append to this file instead of writing to standard output, which is -; SIGHUP has the file opened anew. "
        "May be repeated, as in -o - -o FILE",
    )
    parser.add_argument(
        "--journal",
        metavar="NAMESPACE",
        help="write to the systemd journal, or with --journal=NAMESPACE to a namespace of it",
    )
    parser.add_argument(
        "--syslog",
        metavar="SERVER",
        help="write to /dev/log, or with --syslog=udp:HOST[:514] or --syslog=tcp:HOST[:601] to a server, by RFC 5424",
    )


def is_standard_output_alone(arguments) -> bool:
    """Return whether flows are written to standard output and to nothing else."""
    return set(arguments.output) <= {STANDARD_OUTPUT} and arguments.journal is None and arguments.syslog is None
