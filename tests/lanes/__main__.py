"""The whole suite on two processors: python tests/lanes [pytest's arguments]; `make test`.

Most tests spend half of their time waiting, for a program to start or a packet to be lost. Those of the folders below
need no processor of their own and look at nothing that is the host's, so they run beside the others, as a process that
comes second where both want to run, and are reported at the end. With arguments there is one pytest, with these.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
BESIDE = [
    "package",
    "store",
    "search",
    "seen",
    "checking",
    "columns",
    "examples",
    "filters",
    "fleet",
    "kernel",
    "live_table",
    "metrics",
    "namespaces",
    "output",
    "records",
    "replay",
    "text",
]
PYTEST = [sys.executable, "-m", "pytest"]


def main(arguments):
    if arguments:
        return subprocess.run([*PYTEST, *arguments], cwd=TESTS.parent).returncode
    beside = [str(TESTS / path) for path in BESIDE]
    with tempfile.TemporaryFile("w+") as output:
        other = subprocess.Popen(
            ["nice", "-n5", *PYTEST, "-p", "no:cacheprovider", *beside],
            cwd=TESTS.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            status = subprocess.run(
                [*PYTEST, "--durations=10", *[f"--ignore={path}" for path in beside]], cwd=TESTS.parent
            ).returncode
            print(f"\n--- beside these: {' '.join(BESIDE)}", flush=True)
            other_status = other.wait()
        finally:
            other.terminate()
            other.wait()
        output.seek(0)
        print(output.read())
    return status or other_status


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main(sys.argv[1:]))
