"""Build the wheel with cibuildwheel, audit it and try it on every supported Python: `make wheels`.

Needs root. Debian packages it uses: podman runc netavark debootstrap binutils. All else is kept under the user's cache,
see roots.cache().
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import image
from roots import BARE_ROOT, TEST_ROOTS, cache, command_in

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
SETTINGS = tomllib.loads((PROJECT / "pyproject.toml").read_text())
GROUPS, FLAGS = SETTINGS["dependency-groups"], SETTINGS["tool"]["cibuildwheel"]["environment"]
# What the container needs to make namespaces and load BPF programs: the host's view of everything but files.
CREATE = "--privileged --network=host --pid=host --cgroupns=host --volume=/sys/fs/cgroup:/sys/fs/cgroup:rw"
# In the container's own cgroup no thread may be real-time where the kernel groups these (CONFIG_RT_GROUP_SCHED), and
# all of it has the share of one process of the host's.
LEAVE_CGROUP = (
    "for at in /sys/fs/cgroup /sys/fs/cgroup/cpu; do [ ! -e $at/cgroup.procs ] || echo $$ >$at/cgroup.procs; done; "
)
MAIN_JOB = "unshare --net /tmp/venv/bin/python /mnt/tree/tests/wheels/main_job.py --bpf"
TESTS = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]


def step(text):
    print(f"\n== {text} ({time.strftime('%H:%M:%S')})", flush=True)


def run(*command, **options):
    subprocess.run([str(part) for part in command], check=True, **options)


def tools():
    """bin folder of a virtual environment with the dependency group `release`."""
    names = [name for group in ("release", "wheel", "build") for name in GROUPS[group] if isinstance(name, str)]
    venv = cache() / f"tools-{hashlib.sha256(repr(names).encode()).hexdigest()[:8]}"
    if not (venv / "bin/cibuildwheel").exists():
        run(sys.executable, "-m", "venv", "--clear", venv)
        run(venv / "bin/pip", "install", "-q", *names)
    return venv / "bin"


def build(bin, out):
    """(sdist, wheel, result of its tests): the wheel by cibuildwheel in the local image, from the sdist."""
    shutil.rmtree(out, ignore_errors=True)
    run(bin / "python", "-m", "build", "-q", "--no-isolation", "--sdist", "--outdir", out, PROJECT)
    (sdist,) = out.glob("*.tar.gz")
    inside = {**FLAGS, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/opt/wheelhouse"}
    env = {
        **image.engine_environment(),
        "PATH": f"{bin}:{os.environ['PATH']}",
        "CIBW_BUILD": "cp311-manylinux_x86_64",
        "CIBW_MANYLINUX_X86_64_IMAGE": image.ensure(GROUPS["test"]),
        "CIBW_CONTAINER_ENGINE": f"podman; create_args: {CREATE}; disable_host_mount: true",
        "CIBW_ENVIRONMENT": " ".join(f'{name}="{value}"' for name, value in inside.items()),
        "CIBW_DEPENDENCY_VERSIONS": "latest",
        # A failed test is reported at the end, beside those on the other Pythons; here it would leave no wheel to try
        # there.
        "CIBW_TEST_COMMAND": LEAVE_CGROUP + SETTINGS["tool"]["cibuildwheel"]["test-command"] + " || true",
        # It would fetch a virtualenv from outside the package index for this; audit() below does the same.
        "CIBW_AUDIT_COMMAND": "",
    }
    # A sdist is looked for below the working directory.
    status, line = tee([bin / "cibuildwheel", "--platform", "linux", "--output-dir", out, sdist.name], cwd=out, env=env)
    wheels = list(out.glob("*.whl"))
    if len(wheels) != 1:
        raise SystemExit("cibuildwheel made no wheel")
    passed = re.search(r"\d+ passed", line) and not re.search(r"\d+ (failed|error)", line)
    return sdist, wheels[0], (status or int(not passed), line)


def audit(bin, sdist, wheel):
    """A result as of a test run: what is found here does not keep the wheel from being tried."""
    env = {**os.environ, "PATH": f"{bin}:{os.environ['PATH']}"}
    run("auditwheel", "show", wheel, env=env)
    run(sys.executable, "-m", "zipfile", "-l", wheel)
    checks = [
        [bin / "twine", "--no-color", "check", "--strict", sdist, wheel],
        [bin / "abi3audit", "--strict", wheel],
        [bin / "python", HERE / "check.py", wheel],
    ]
    wrong = []
    for check in checks:
        done = subprocess.run(check, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        print(done.stdout)
        if done.returncode:
            wrong.append(" ".join(done.stdout.split()))
    return int(bool(wrong)), "; ".join(wrong) or "nothing wrong"


def install_commands(wheel_folder, python):
    """Shell lines: a fresh environment, the wheel from a folder, nothing from any index."""
    return (
        f"{python} -m venv /tmp/venv && /tmp/venv/bin/pip install -q --no-index --no-deps --disable-pip-version-check "
        f"{wheel_folder}/*.whl"
    )


def try_in_root(root, wheel):
    """(Python's version, pytest's last line) from the suite, after the main job, in one tree."""
    needs = hashlib.sha256(repr(GROUPS["test"]).encode()).hexdigest()[:8]
    testing = image.wheelhouse(root.python, GROUPS["test"], cache() / f"wheelhouse-test-{root.python}-{needs}")
    with tempfile.TemporaryDirectory() as scratch:
        copy_tests(Path(scratch))
        script = f"""set -e
            {install_commands("/mnt/wheel", "python3")}
            {MAIN_JOB}
            /tmp/venv/bin/pip install -q --no-index --find-links /mnt/testing --disable-pip-version-check \\
                {quoted(GROUPS["test"])}
            cd /mnt/tree && exec /tmp/venv/bin/python {" ".join(TESTS)}"""
        binds = [(wheel.parent, "/mnt/wheel"), (testing, "/mnt/testing"), (scratch, "/mnt/tree")]
        return tee(command_in(root.ensure(), ["sh", "-c", script], binds))


def try_in_bare_root(root, wheel):
    """The main job where neither a compiler nor the library is."""
    with tempfile.TemporaryDirectory() as scratch:
        copy_tests(Path(scratch))
        script = f"""set -e
            if command -v gcc cc clang; then echo "a compiler is here"; exit 1; fi
            if find / -xdev -name 'libnetfilter_conntrack*' | grep .; then echo "the library is here"; exit 1; fi
            {install_commands("/mnt/wheel", "python3")}
            exec {MAIN_JOB}"""
        return tee(
            command_in(root.ensure(), ["sh", "-c", script], [(wheel.parent, "/mnt/wheel"), (scratch, "/mnt/tree")])
        )


def try_on_host(wheel):
    """The main job with the interpreter that runs this, on a machine that may well have the libraries itself."""
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        run(sys.executable, "-m", "venv", scratch / "venv")
        run(scratch / "venv/bin/pip", "install", "-q", "--disable-pip-version-check", "--no-index", "--no-deps", wheel)
        return tee(["unshare", "--net", scratch / "venv/bin/python", HERE / "main_job.py", "--bpf"], cwd=scratch)


def copy_tests(folder):
    """The tests without the tree they came from, so that only the installed package can be imported."""
    shutil.copytree(PROJECT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "pyproject.toml", folder)


def quoted(names):
    return " ".join(f"'{name}'" for name in names)


def tee(command, **options):
    """Run, passing the output on; (exit status, pytest's closing line)."""
    last = ""
    with subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    ) as process:
        for line in process.stdout:
            print("   ", line, end="", flush=True)
            last = line.strip() if re.search(r"\d+ (passed|failed|error)|^line that names", line) else last
    return process.returncode, last


def main():
    if os.geteuid():
        raise SystemExit("make wheels needs root: it makes containers and network namespaces")
    start, out, results = time.monotonic(), PROJECT / "wheelhouse", {}
    step("tools")
    bin = tools()
    step("sdist and wheel")
    sdist, wheel, result = build(bin, out)
    step("audit")
    results["audit"] = audit(bin, sdist, wheel)
    results["CPython 3.11 (bookworm, by cibuildwheel)"] = result
    step("main job on this machine")
    results["main job beside system libraries"] = try_on_host(wheel)
    step(f"main job in {BARE_ROOT.suite} without compiler and library")
    results[f"main job without compiler and library ({BARE_ROOT.suite})"] = try_in_bare_root(BARE_ROOT, wheel)
    for root in TEST_ROOTS:
        step(f"CPython {root.python} in {root.suite}")
        results[f"CPython {root.python} ({root.suite})"] = try_in_root(root, wheel)
    step("result")
    print(f"{wheel.relative_to(PROJECT)}: {wheel.stat().st_size} bytes, {time.monotonic() - start:.0f} s")
    for name, (status, line) in results.items():
        print(f"{name}: {line}{f' (exit status {status})' if status else ''}")
    sys.exit(any(status for status, _ in results.values()))


if __name__ == "__main__":
    main()
