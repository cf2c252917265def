"""Have a real Prometheus scrape the program: `make prometheus`, as root.

Prometheus comes from Debian into a tree of its own in the user's cache. In a network namespace it scrapes a running
nfct-fast ten times a second while flows are made, in both formats, evaluates the alert rules of README.md, and is then
asked for what it stored. promtool has to find nothing wrong with the text and with the rules.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "wheels")]

from nfct_fast.kernel.netns import resolve  # noqa: E402
from roots import Root, command_in  # noqa: E402
from support.cli import PROGRAM, Program, inside, until  # noqa: E402
from support.netns import made, use_conntrack  # noqa: E402

ROOT = Root("trixie", "3.13", ("prometheus",))
FLOWS = 500
# The first one is scraped as Prometheus prefers, which is OpenMetrics; of the other only the old format is wanted.
CONFIG = """
global: {scrape_interval: 100ms, scrape_timeout: 100ms, evaluation_interval: 500ms}
rule_files: [/mnt/p/rules.yaml]
scrape_configs:
  - {job_name: nfct-fast, static_configs: [{targets: ["127.0.0.1:9464"]}]}
  - job_name: text
    scrape_protocols: [PrometheusText0.0.4]
    static_configs: [{targets: ["127.0.0.1:9464"]}]
"""


def ask(path, **arguments):
    query = "?" + urllib.parse.urlencode(arguments) if arguments else ""
    with urllib.request.urlopen(f"http://127.0.0.1:9090/api/v1/{path}{query}", timeout=10) as answer:
        return json.load(answer)["data"]


def value(expression):
    result = ask("query", query=expression)["result"]
    return float(result[0]["value"][1]) if result else None


def scrape():
    with urllib.request.urlopen("http://127.0.0.1:9464/metrics", timeout=10) as answer:
        return answer.read().decode()


def is_up():
    with contextlib.suppress(OSError):
        return [target["health"] for target in ask("targets")["activeTargets"]] == ["up", "up"]


def promtool(folder, *words, text=None):
    done = subprocess.run(
        command_in(ROOT.path, ["promtool", *words], [(folder, "/mnt/p")]), input=text, capture_output=True, text=True
    )
    print(f"promtool {' '.join(words)}: {(done.stdout + done.stderr).strip() or 'nothing to say'}")
    return done.returncode == 0


def make_flows():
    for number in range(FLOWS):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 20_000 + number))
            sock.sendto(b"x", ("127.0.0.1", 4321))


def main():
    if os.geteuid() != 0:
        raise SystemExit("needs root, for network namespaces and conntrack events")
    ROOT.ensure()
    readme = (HERE.parents[1] / "README.md").read_text()
    rules = re.search(r"```yaml\n(groups:.*?)```", readme, re.S)[1]
    with made() as name, tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        use_conntrack(name)
        [space] = resolve(name)
        stack.enter_context(space)
        stack.enter_context(space.entered())
        Path(folder, "prometheus.yaml").write_text(CONFIG)
        Path(folder, "rules.yaml").write_text(rules)
        program = stack.enter_context(Program(name, "-p", "udp", "--metrics", "9464", "dport 4321", command=PROGRAM))
        fine = promtool(folder, "check", "rules", "/mnt/p/rules.yaml")
        fine &= promtool(folder, "check", "metrics", text=scrape())
        command = ["prometheus", "--config.file=/mnt/p/prometheus.yaml", "--storage.tsdb.path=/mnt/p/data"]
        command += ["--web.listen-address=127.0.0.1:9090", "--log.level=error"]
        prometheus = subprocess.Popen(inside(name, command_in(ROOT.path, command, [(folder, "/mnt/p")])))
        stack.callback(prometheus.wait)
        stack.callback(prometheus.kill)
        until(is_up, 60, "both targets")
        make_flows()
        for job in ("nfct-fast", "text"):
            until(lambda: value(f'nfct_flows_total{{event="new",job="{job}"}}') == FLOWS, 20, f"all flows in {job}")  # noqa: B023
        time.sleep(3)  # scrapes and evaluations
        print(f"flows stored: {value('sum by (job) (nfct_flows_total)'):g} of {FLOWS}")
        print(f"median delay: {value('histogram_quantile(0.5, sum by (le) (nfct_delivery_delay_seconds_bucket))'):g} s")
        print(
            f"a scrape took, median: {value('quantile(0.5, quantile_over_time(0.5, scrape_duration_seconds[1m]))'):g} s"
        )
        fine &= value("min(min_over_time(up[1m]))") == 1
        groups = ask("rules")["groups"]
        states = {rule["name"]: (rule["health"], rule["state"]) for group in groups for rule in group["rules"]}
        print(f"alert rules: {states}")
        fine &= bool(states) and set(states.values()) == {("ok", "inactive")}
        kinds = {key: entries[0]["type"] for key, entries in ask("metadata").items() if key.startswith("nfct_")}
        print(f"{len(kinds)} metrics with a type: {sorted(set(kinds.values()))}")
        fine &= program.end(signal.SIGTERM)[0] == 0 and program.complaints == []
    print("fine" if fine else "NOT fine")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
