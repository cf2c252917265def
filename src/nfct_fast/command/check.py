"""`nfct-fast --check`: examine the host as the program would use it, and print what was found on one screen."""

from nfct_fast.checking.check_report import CheckState
from nfct_fast.checking.examination import examine
from nfct_fast.command.arguments import parser
from nfct_fast.command.check_screen import screen
from nfct_fast.command.formats import terminal_of
from nfct_fast.command.opening import rights_of
from nfct_fast.command.standard_error import warn
from nfct_fast.conntrack import Conntrack
from nfct_fast.output.sink import Sink

_STDOUT = 1
_STATUS = {CheckState.OK: 0, CheckState.MISSING: 1}
_LIMITED = 3
_GO_WITH_IT = ("check", "json", "netns", "track", "attribution", "rcvbuf", "user", "no_sandbox", "debug")


def _refuse_others(arguments):
    usual = vars(parser().parse_args([]))
    others = sorted(
        name for name, value in vars(arguments).items() if name not in _GO_WITH_IT and value != usual.get(name)
    )
    if others:
        words = ", ".join("FILTER" if name == "filter" else f"--{name.replace('_', '-')}" for name in others)
        raise ValueError(f"--check logs no flows: {words} does not go with it")


def run(arguments) -> int:
    """Print the report, and return the exit status: 0 if all is well, 3 if something is limited or unknown, else 1.

    Raises:
        ValueError: An argument is wrong.
        OSError: The namespace cannot be entered, or the output cannot be written.
    """
    _refuse_others(arguments)
    rights = rights_of(arguments)
    sink = Sink(_STDOUT)
    coloured = terminal_of(_STDOUT, "auto").colour

    def opened(**options):
        # As the logger does it, so that the flow is received with the privileges that the logger keeps.
        conntrack = Conntrack(**options, drop_privileges=rights)
        try:
            rights.drop()
        except BaseException:
            conntrack.close()
            raise
        return conntrack

    report = examine(
        opened,
        netns=arguments.netns,
        track=arguments.track,
        attribution=arguments.attribution,
        rcvbuf=arguments.rcvbuf,
    )
    warn(*rights.reasons)
    text = report.to_json() + "\n" if arguments.json else screen(report, coloured)
    sink.write(text.encode())
    return _STATUS.get(report.state, _LIMITED)
