"""Which lines of Python, Cython and C the tests run: python tests/line_coverage [pytest's arguments]; `make coverage`.

The package is built once more, in build/coverage, as gcov wants it. Python is measured by coverage.py, in the programs
that tests start as well. A process writes down what it ran when it ends, which a sandbox forbids: programs run without
theirs, as under the sanitizers, and what they do before SIGKILL or _exit(2) is not in the figures. Cython's own tracing
is not used: in functions without the GIL, which are most here, it would take the GIL for every line, also while a lock
is held that a thread with the GIL waits for.
"""

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import coverage

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PLACE = ROOT / "build" / "coverage"
# Nothing of ours runs there, or what is looked at is the rights of a program as it is shipped; see tests/sanitize.
NOT_HERE = ["command_line/test_rights.py", "package/test_wheel.py", "package/test_sdist.py", "package/test_types.py"]
SETTINGS = f"""[run]
source_pkgs = nfct_fast
data_file = {PLACE}/data/python
parallel = true
patch = subprocess
disable_warnings = module-not-imported, no-data-collected, module-not-measured
"""


def build():
    folders = ["--build-lib", PLACE / "package", "--build-temp", PLACE / "objects"]
    flags = {"CC": f"{sys.executable} {HERE / 'compiler.py'}", "CFLAGS": "--coverage -O0 -w", "LDFLAGS": "--coverage"}
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_py", *folders[:2], "build_ext", "--with-hooks", *folders],
        cwd=ROOT,
        check=True,
        env={**os.environ, **flags},
    )
    testing = "nfct_fast/testing"
    shutil.copytree(ROOT / "src" / testing, PLACE / "package" / testing, dirs_exist_ok=True)


def test(arguments):
    """pytest's status."""
    for old in (*PLACE.rglob("*.gcda"), *(PLACE / "data").glob("*")):
        old.unlink()
    (PLACE / "data").mkdir(exist_ok=True)
    (PLACE / "settings").write_text(SETTINGS)
    # Programs that gave up their rights add to what others wrote.
    os.umask(0)
    for folder in (PLACE / "data", *(path for path in (PLACE / "objects").rglob("*") if path.is_dir())):
        if folder.stat().st_uid == os.geteuid():
            folder.chmod(0o777)
    paths = [str(PLACE / "package"), *os.environ.get("PYTHONPATH", "").split(":")]
    measured = [sys.executable, "-m", "coverage", "run", f"--rcfile={PLACE / 'settings'}", "-m", "pytest", "-q"]
    arguments = arguments or [f"--ignore=tests/{name}" for name in NOT_HERE]
    env = {"NFCT_TEST_ARGUMENTS": "--no-sandbox", **os.environ, "PYTHONPATH": ":".join(filter(None, paths))}
    return subprocess.run([*measured, "-p", "no:cacheprovider", *arguments], cwd=ROOT, env=env).returncode


def of_python():
    """{path in src: (lines there are, lines that ran)}."""
    measured = coverage.Coverage(config_file=PLACE / "settings")
    measured.combine()
    found = {}
    for path in sorted((PLACE / "package").rglob("*.py")):
        _, lines, _, missing, _ = measured.analysis2(str(path))
        found[f"src/{path.relative_to(PLACE / 'package')}"] = set(lines), set(lines) - set(missing)
    return found


def of_compiled():
    """The same of .pyx, .pxd and .h files."""
    there, ran = defaultdict(set), defaultdict(set)
    for notes in (PLACE / "objects").rglob("*.gcno"):
        # Without the file that counts, gcov says of all its lines that they did not run.
        command = ["gcov", "--json-format", "--stdout", notes]
        text = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
        for file in json.loads(gzip.decompress(text) if text[:2] == b"\x1f\x8b" else text)["files"]:
            if file["file"].startswith("src/nfct_fast/"):
                there[file["file"]] |= {line["line_number"] for line in file["lines"]}
                ran[file["file"]] |= {line["line_number"] for line in file["lines"] if line["count"]}
    return {name: (lines, ran[name]) for name, lines in there.items()}


def main():
    build()
    status = test(sys.argv[1:])
    measured = {**of_python(), **of_compiled()}
    found = {name: lines for name, lines in measured.items() if lines[0] and "/testing/" not in name}
    print(f"{'lines':>6} {'ran':>6}")
    kinds = defaultdict(lambda: [0, 0])
    for name, (there, ran) in sorted(found.items()):
        print(f"{len(there):6} {len(ran) / len(there):6.0%} {name.removeprefix('src/nfct_fast/')}")
        for kind in (Path(name).suffix, "all"):
            kinds[kind][0] += len(there)
            kinds[kind][1] += len(ran)
    for kind, (there, ran) in sorted(kinds.items()):
        print(f"{there:6} {ran / there:6.1%} {kind}")
    sys.exit(status)


if __name__ == "__main__":
    main()
