"""What users write into the path of a cgroup of their own is reported as a claim, never as a name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nfct_fast.processes import cgroup_filesystem
from nfct_fast.processes.process_object import process
from support.child import Child
from support.cli import Program, inside, until
from support.socket_notes import unusable

pytestmark = pytest.mark.root

ID = "3f" * 32
POD = "kubepods-burstable-pod2b4f1e5c_6f3a_4f11_9c59_8a3c1a1f2e77.slice"


@pytest.fixture(params=["cgroup2", "cgroup"])
def delegated(request):
    """A cgroup that root gave to uid 65534, as systemd does with user@UID.service, and another below it that is
    root's."""
    mount = cgroup_filesystem.find_mount(kind=request.param.encode())
    if mount is None:
        pytest.skip(f"no {request.param} mount with systemd's names")
    top = Path(os.fsdecode(mount)) / f"nfclaims-{os.getpid()}.slice"
    try:
        (top / "x.service").mkdir(parents=True)
    except OSError as error:
        pytest.skip(f"no cgroup of our own: {error}")
    for path in (top / "x.service", top / "x.service/cgroup.procs"):
        os.chown(path, 65534, 65534)
    yield request.param, top / "x.service"
    for folder, _, _ in os.walk(top, topdown=False):
        os.rmdir(folder)


FORGE = """
import os, sys, time
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for path in sys.argv[1:]:
    os.mkdir(path)
    with open(path + "/cgroup.procs", "w") as procs:
        procs.write("0")
print("moved", flush=True)
time.sleep(30)
"""


@pytest.mark.parametrize(
    "below",
    [
        [f"docker-{ID}.scope"],
        ["docker", f"docker/{ID}"],
        ["lxc.payload.web"],
        [f"crio-{ID}"],
        [f"{POD}:cri-containerd:{ID}"],
    ],
)
def test_a_user_with_a_cgroup_of_their_own_forges_no_container(delegated, below):
    kind, path = delegated
    command = f'echo $$ > "{path}/cgroup.procs" && exec "$0" -c "$1" "${{@:2}}"'
    with Child(
        ["bash", "-c", command, sys.executable, FORGE, *[str(path / name) for name in below]], stdout=subprocess.PIPE
    ) as child:
        try:
            assert child.stdout.readline() == b"moved\n"
            found = process(child.pid)
        finally:
            child.kill()
    assert found.cgroup == f"/{path.parent.name}/x.service/{below[-1]}" and found.uid == 65534
    assert (found.container, found.runtime) == (None, None)
    assert (found.unit, found.slice) == ("x.service", path.parent.name)
    assert found.claimed_container == ("web" if "lxc" in below[0] else ID) and found.claimed_unit is None


def test_whose_levels_count(delegated):
    kind, path = delegated
    fs, top = cgroup_filesystem.CgroupFilesystem(), f"/{path.parent.name}"

    def trusted(name):
        return name[: fs.trusted_of(name, systemd=kind == "cgroup")]

    (path / "a/b").mkdir(parents=True)  # root's, below a user's: the user could have made others of these names
    assert trusted(f"{top}/x.service/a/b") == f"{top}/x.service"
    assert trusted(f"{top}/x.service") == f"{top}/x.service" and trusted("/") == "/"
    assert trusted(f"{top}/gone/a/b") == f"{top}/gone"
    os.chown(path, 0, 0)
    assert trusted(f"{top}/x.service/a/b") == f"{top}/x.service/a/b"
    path.chmod(0o775)
    assert trusted(f"{top}/x.service/a/b") == f"{top}/x.service"
    with pytest.raises(ValueError, match="does not begin with /"):
        fs.trusted_of("a/b")
    assert len(trusted("/" + "x" * 5000 + "/y")) == 5001
    assert fs.trusted_of("/../../etc/" + "a/" * 3000) < 100


@pytest.mark.parametrize("delegated", ["cgroup2"], indirect=True)
@pytest.mark.parametrize(
    ("attribution", "then"), [("diag", "sleep 30"), ("bpf", "sleep 30"), ("bpf", "exec true"), ("bpf", "")]
)
def test_flows_of_a_forger(tracked, delegated, attribution, then):
    """Found alive in /proc, named by a note, replaced by another program, and gone immediately."""
    if attribution == "bpf" and (reason := unusable()):
        pytest.skip(f"owner tracking cannot run here: {reason}")
    _, path = delegated
    script = f"exec 3>/dev/udp/127.0.0.1/4099; echo x >&3; {then}"
    code = FORGE.replace("time.sleep(30)", f"os.execv('/bin/bash', ['bash', '-c', {script!r}])")
    command = f'echo $$ > "{path}/cgroup.procs" && exec "$0" -c "$1" "$2"'
    with Program(tracked, "--json", "-p", "ipv4/udp", "--attribution", attribution) as program:
        child = subprocess.Popen(
            inside(tracked, ["bash", "-c", command, sys.executable, code, str(path / f"docker-{ID}.scope")]),
            stdout=subprocess.DEVNULL,
        )
        try:
            [line] = until(lambda: list(program.lines))
        finally:
            child.kill()
            child.wait()
        program.end()
    owner = json.loads(line)["owner"]
    assert (owner["pid"], owner["uid"]) == (child.pid, 65534)
    assert owner["cgroup"] == f"/{path.parent.name}/x.service/docker-{ID}.scope"
    assert "container" not in owner and "runtime" not in owner and owner["unit"] == "x.service"
    assert (owner["claimed_container"], owner["claimed_runtime"]) == (ID, "docker")
