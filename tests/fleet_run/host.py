"""A host: nfct-fast writes its records to a file, rsyslog sends them, a program makes flows that are written down."""

import gzip
import json
import shutil
import signal
import sys
from pathlib import Path
from typing import NamedTuple

from machine import Machine, start_rsyslog, wait_for

from support.cli import PROGRAM
from support.netns import ip

HERE = Path(__file__).resolve().parent
LOG = "/var/log/nfct-fast/flows.json"
# As README.md has it, apart from when, and from who is told.
LOGROTATE = f"""{LOG} {{
    rotate 7
    create 0600 root root
    compress
    delaycompress
    postrotate
        kill -HUP $(cat /var/log/nfct-fast.pid)
    endscript
}}
"""


class Record(NamedTuple):
    """What tells a record from all others of its host, here as in the tables."""

    time_ns: int
    type: str
    src: str
    sport: int
    dst: str
    dport: int


class Host:
    def __init__(self, machine: Machine, fleet):
        self.machine, self.name, self._truth, self._senders = machine, machine.name, machine.folder / "made", 0
        shutil.copy(fleet / "relay.py", machine.folder / "rsyslog.d")
        shutil.copy(fleet / "rsyslog-host.conf", machine.folder / "rsyslog.d/nfct-fast.conf")
        (machine.folder / "logrotate.conf").write_text(LOGROTATE)
        # Flows go where nobody is, so that they are made whatever becomes of the way to the collector.
        ip("link", "add", "sink", "type", "veth", "peer", "name", "nowhere", netns=machine.netns)
        ip("link", "set", "sink", "arp", "off", "up", netns=machine.netns)
        ip("link", "set", "nowhere", "up", netns=machine.netns)
        ip("addr", "add", "198.19.255.254/15", "dev", "sink", netns=machine.netns)

    def start(self):
        self.start_nfct_fast()
        start_rsyslog(self.machine)

    def start_nfct_fast(self):
        program = self.machine.start(
            "nfct-fast", *PROGRAM, "--track", "--json", "--community-id", "-o", LOG, "dst", "198.18.0.0/15",
        )  # fmt: skip
        (self.machine.folder / "var/log/nfct-fast.pid").write_text(str(program.pid))
        wait_for(lambda: self._is_ready(program.pid), 20, f"{self.name}: nfct-fast")

    @staticmethod
    def _is_ready(pid):
        """Whether everything is open, which shows in that the program handles SIGTERM."""
        [caught] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt")]
        return int(caught.split()[1], 16) >> signal.SIGTERM - 1 & 1

    def restart_nfct_fast(self):
        """As `systemctl restart` does. Flows made meanwhile are nobody's, so the sender waits."""
        self.machine.signal("sender", signal.SIGSTOP)
        self.machine.end("nfct-fast", signal.SIGTERM)
        self.start_nfct_fast()
        self.machine.signal("sender", signal.SIGCONT)

    def shrink_disk(self, size):
        """Have the records on a disk of `size`, which it can get full of."""
        self.machine.end("nfct-fast", signal.SIGTERM)
        self.machine.run("mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "none", Path(LOG).parent)
        self.start_nfct_fast()

    def grow_disk(self, size):
        self.machine.run("mount", "-o", f"remount,size={size}", Path(LOG).parent)

    def rotate(self):
        folder = self.machine.folder
        self.machine.run("logrotate", "--force", "--state", folder / "logrotate.state", folder / "logrotate.conf")

    def start_sender(self, count, rate):
        first = self._senders << 19
        self._senders += 1
        self.machine.start("sender", sys.executable, HERE / "sender.py", count, rate, first, self._truth)

    def made(self):
        """The flows that were made: (sport, dst, dport) of each."""
        return [tuple(line.split()) for line in self._truth.read_text().splitlines()]

    def records(self):
        """The records that nfct-fast wrote, a dict with its arguments for each, and the sum of its LOST records."""
        records, lost = {}, 0
        for path in sorted(self.machine.path(LOG).parent.iterdir()):
            content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            for line in content[: content.rfind(b"\n")].split(b"\n") if b"\n" in content else ():
                record = json.loads(line)
                if record["type"] == "LOST":
                    lost += record["lost"]
                    continue
                ends = record["original"]
                name = Record(record["time_ns"], record["type"], ends["src"], ends["sport"], ends["dst"], ends["dport"])
                if name in records:
                    raise SystemExit(f"{self.name}: two records cannot be told apart: {name}")
                records[name] = record["owner"].get("cmdline")
        return records, lost
