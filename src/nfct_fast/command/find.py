"""`nfct-fast find`: print the flows that were asked for, of a store or of many hosts' in ClickHouse."""

import codecs
import json
import os
import sys
import time

from nfct_fast.command.find_arguments import parser  # noqa: F401 -- every subcommand has it, with run()
from nfct_fast.command.standard_error import warn
from nfct_fast.kernel.program_user import find_user
from nfct_fast.output.sink import Sink
from nfct_fast.output.template import DEFAULT, Template
from nfct_fast.search.alert_lines import read_alerts
from nfct_fast.search.alert_text import alert_line
from nfct_fast.search.fleet_store import ClickHouseStore
from nfct_fast.search.flow_store import DEFAULT_DIRECTORY, Store
from nfct_fast.search.story_text import story_lines
from nfct_fast.search.time_spans import MOST_NS, span_ns
from nfct_fast.search.time_words import around_ns, moment_ns

_FOUND, _NOTHING, _FAILED = 0, 1, 2
_BLOCK = 1 << 16  # bytes written at once
_DELAY_S = 0.2  # how long a line waits for others at most, if more lines come
_WITH_HOST = DEFAULT.replace("{ts}:", "{ts} {ev.host}:", 1)  # as journalctl has it
_COMPLAINTS_MOST = 10  # bad lines of a file of alerts that are told one by one


class _Output:
    def __init__(self, arguments):
        self._is_fleet = arguments.clickhouse is not None
        form = arguments.format
        if form is None:
            form = _WITH_HOST if self._is_fleet else DEFAULT
        template = Template(form, arguments.format_ts)  # an invalid one is an error even with --json
        self._line = (lambda flow: flow.to_json() + "\n") if arguments.json else template.line
        self._is_json = arguments.json
        self._sink = Sink(1)
        self._waiting, self._size = [], 0
        self._flushed = time.monotonic()

    def write(self, text):
        data = text.encode("utf-8", "backslashreplace")
        self._waiting.append(data)
        self._size += len(data)
        if self._size >= _BLOCK or time.monotonic() - self._flushed > _DELAY_S:
            self.flush()

    def flush(self):
        data, self._waiting, self._size = b"".join(self._waiting), [], 0
        self._flushed = time.monotonic()
        if data:
            self._sink.write(data)

    def flow(self, flow, indent=""):
        self.write(indent + self._line(flow))

    def story(self, story):
        if self._is_json:
            self.write(json.dumps(story.to_dict()) + "\n")
        else:
            self.write("\n".join(story_lines(story, with_host=self._is_fleet)) + "\n\n")

    def alert(self, alert, flows):
        if self._is_json:
            about = {name: value for name, value in alert._asdict().items() if value is not None}
            self.write(json.dumps({"alert": about, "flows": [flow.to_dict() for flow in flows]}) + "\n")
            return
        nobody = ": no flow of any host" if self._is_fleet else ": no flow of this host"
        self.write(f"{alert_line(alert)}{'' if flows else nobody}\n")
        for flow in flows:
            self.flow(flow, "    ")


def _times(arguments):
    """Since and until, in ns."""
    now = time.time_ns()
    if arguments.around is not None:
        if arguments.since is not None or arguments.until is not None:
            raise ValueError("--around is a time by itself: --since and --until do not go with it")
        return around_ns(arguments.around, now)
    since = 0 if arguments.since is None else moment_ns(arguments.since, now)
    until = MOST_NS if arguments.until is None else moment_ns(arguments.until, now)
    if since >= until:
        raise ValueError("--until is not after --since: no record can be between")
    return since, until


def _open_alerts(path):
    if path == "-":
        return sys.stdin.buffer if sys.stdin is not None else open(os.devnull, "rb")
    return open(path, "rb")


def _stop_being_root(arguments):
    """As root, continue as the user who owns the store, as SQLite reads files that this user may have forged; or for
    ClickHouse, which may answer anything, as the one the logger continues as."""
    if os.geteuid() != 0:
        return
    for codec in ("idna", "unicode_escape", "latin_1"):  # modules that this user may not be able to read
        codecs.lookup(codec)
    if arguments.clickhouse is not None:
        uid, gid = find_user()
    else:
        owner = os.stat(arguments.store or DEFAULT_DIRECTORY)
        uid, gid = owner.st_uid, owner.st_gid
    if uid != 0:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)


def _open_store(arguments, seed):
    if arguments.clickhouse is None:
        if arguments.host:
            raise ValueError("--host selects hosts of --clickhouse: a store is of one host")
        return Store(arguments.store or DEFAULT_DIRECTORY, community_id=seed)
    if arguments.store is not None:
        raise ValueError("--store and --clickhouse do not go together: one of them is searched")
    return ClickHouseStore(arguments.clickhouse, community_id=seed, hosts=tuple(arguments.host or ()))


class _Find:
    def __init__(self, arguments):
        self._arguments = arguments
        self._filter = " ".join(arguments.filter) or None
        if arguments.new:
            self._filter = f"({self._filter}) and first_seen any" if self._filter else "first_seen any"
        self._since, self._until = _times(arguments)
        self._window, self._story_window = span_ns(arguments.window), span_ns(arguments.story_window)
        self._id = arguments.community_id if isinstance(arguments.community_id, str) else None
        if self._id is not None and arguments.alert is not None:
            raise ValueError("--alert tells which flow is meant: --community-id ID does not go with it")
        if arguments.alive and self._since == 0 and self._until == MOST_NS:
            raise ValueError("--alive needs a time: --around, --since or --until")
        seed = 0 if self._id is not None else arguments.community_id
        self._store = _open_store(arguments, seed)
        self._output = _Output(arguments)
        self._found = 0
        self._bad = 0

    def run(self, alerts):
        with self._store:
            try:
                if alerts is None:
                    self._find()
                else:
                    with alerts:
                        self._find_alerts(alerts)
                self._output.flush()
            except BrokenPipeError:
                raise
            except OSError:
                self._output.flush()  # what was found before
                raise
            finally:
                self._complain()
            if self._found:
                return _FOUND
            is_empty = self._store.is_empty
        if is_empty and self._arguments.clickhouse is not None:
            warn("no flows are in that table; `nfct-fast fleet clickhouse.sql` says how they come there")
        elif is_empty:
            warn(
                f"{self._arguments.store or DEFAULT_DIRECTORY}: no flows are stored there; nfct-fast --store makes them"
            )
        return _FAILED if is_empty or self._store.complaints or self._bad else _NOTHING

    def _complain(self):
        warn(*self._store.complaints)
        if self._bad > _COMPLAINTS_MOST:
            warn(f"{self._bad} lines of {self._arguments.alert} were passed over")

    def _find(self):
        arguments = self._arguments
        flows = self._store.find(
            self._filter,
            protocol=arguments.protocol,
            since=self._since,
            until=self._until,
            alive=arguments.alive,
            community_id=self._id,
            all_records=arguments.events,
            newest_first=arguments.reverse,
            limit=arguments.lines,
        )
        for flow in flows:
            self._show(flow)
        if lost := self._store.lost(self._since, self._until):
            warn(f"{lost} events were lost in this time: what is missing here may be among them")

    def _show(self, flow):
        self._found += 1
        if self._arguments.story:
            self._output.story(self._store.story(flow, window_ns=self._story_window))
        else:
            self._output.flow(flow)

    def _find_alerts(self, alerts):
        for alert in read_alerts(alerts, self._pass_over):
            if alert.time_ns is not None and not self._since <= alert.time_ns < self._until:
                continue
            flows = [life.flow for life in self._store.find_alert(alert, window_ns=self._window, filter=self._filter)]
            self._found += len(flows)
            self._output.alert(alert, flows)
            if self._arguments.story:
                for flow in flows:
                    self._output.story(self._store.story(flow, window_ns=self._story_window))
            self._output.flush()  # more may come through a pipe, much later

    def _pass_over(self, number, why):
        self._bad += 1
        if self._bad <= _COMPLAINTS_MOST:
            warn(f"{self._arguments.alert}: line {number}: {why}")


def run(arguments) -> int:
    """Print what is found and return the exit status: 0 if something was, 1 if nothing was, 2 after an error.

    Raises ValueError if an argument is wrong, and BrokenPipeError if the output's reader is gone.
    """
    try:
        find = _Find(arguments)
        alerts = None if arguments.alert is None else _open_alerts(arguments.alert)
        _stop_being_root(arguments)
        return find.run(alerts)
    except BrokenPipeError:
        raise
    except OSError as error:
        if arguments.debug:
            raise
        warn(f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror or error)
        return _FAILED
