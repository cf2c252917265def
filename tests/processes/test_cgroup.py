"""Unit, slice and container are read from the path of a cgroup, and paths are found by cgroup id."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfct_fast.processes import cgroup, cgroup_filesystem

ID = "3f" * 32
OTHER = "ab" * 32
POD_ID = "77" * 32
USER = "/user.slice/user-1000.slice/user@1000.service"
POD = "kubepods-burstable-pod2b4f1e5c_6f3a_4f11_9c59_8a3c1a1f2e77.slice"


@pytest.mark.parametrize(
    ("path", "unit", "user_unit", "slice_"),
    [
        ("/", None, None, None),
        ("/init.scope", "init.scope", None, "-.slice"),
        ("/system.slice/cron.service", "cron.service", None, "system.slice"),
        ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service", None, "system-getty.slice"),
        ("/system.slice/dev-disk-by\\x2duuid.mount", "dev-disk-by\\x2duuid.mount", None, "system.slice"),
        ("/system.slice/nginx.service/workers/3", "nginx.service", None, "system.slice"),
        ("/user.slice/user-1000.slice/session-4.scope", "session-4.scope", None, "user-1000.slice"),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/foo.service",
            "user@1000.service",
            "foo.service",
            "user-1000.slice",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/init.scope",
            "user@1000.service",
            "init.scope",
            "user-1000.slice",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/foo.service",  # systemd before 248
            "user@1000.service",
            "foo.service",
            "user-1000.slice",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/app-org.gnome.Terminal.slice/vte-spawn-1.scope",
            "user@1000.service",
            "vte-spawn-1.scope",
            "user-1000.slice",
        ),
        ("/user.slice", None, None, "user.slice"),
        ("/system.slice/_cgroup.procs.service", "cgroup.procs.service", None, "system.slice"),
        ("/system.slice/not a unit", None, None, "system.slice"),
        ("/system.slice/.service", None, None, "system.slice"),
        ("/some/cron.service", None, None, None),
        ("/../system.slice/cron.service", None, None, None),
        ("/docker/" + ID, None, None, None),
    ],
)
def test_unit_is_what_systemctl_status_says(path, unit, user_unit, slice_):
    names = cgroup.names(path)
    assert (names["unit"], names["user_unit"], names["slice"]) == (unit, user_unit, slice_)


@pytest.mark.parametrize(
    ("path", "container", "runtime"),
    [
        (f"/system.slice/docker-{ID}.scope", ID, "docker"),
        (f"/docker/{ID}", ID, "docker"),
        (f"/docker/{ID}/init.scope", ID, "docker"),
        (f"/machine.slice/libpod-{ID}.scope/container", ID, "libpod"),
        (f"/machine.slice/libpod-conmon-{ID}.scope", None, None),
        (f"/system.slice/x.service/libpod-payload-{ID}", ID, "libpod"),
        (f"/libpod_parent/{POD_ID}/libpod-{ID}", ID, "libpod"),
        (f"/libpod_parent/libpod-{ID}", ID, "libpod"),
        (f"/kubepods.slice/kubepods-burstable.slice/{POD}/cri-containerd-{ID}.scope", ID, "cri-containerd"),
        (f"/kubepods.slice/kubepods-burstable.slice/{POD}/crio-{ID}.scope", ID, "crio"),
        (f"/kubepods.slice/kubepods-burstable.slice/{POD}/crio-conmon-{ID}.scope", None, None),
        (f"/kubepods/burstable/pod2b4f1e5c-6f3a-4f11-9c59-8a3c1a1f2e77/{ID}", ID, None),
        (f"/system.slice/containerd.service/{POD}:cri-containerd:{ID}", ID, "cri-containerd"),
        (f"/docker/{OTHER}/kubelet.slice/{POD}/cri-containerd-{ID}.scope", OTHER, "docker"),
        (f"/system.slice/nerdctl-{ID}.scope", ID, "nerdctl"),
        ("/lxc/web", "web", "lxc"),
        ("/lxc/web/system.slice/nginx.service", "web", "lxc"),
        ("/lxc.payload.web/system.slice/nginx.service", "web", "lxc"),
        ("/lxc.payload/web", "web", "lxc"),
        ("/lxc.monitor.web", None, None),
        ("/machine.slice/systemd-nspawn@deb.service/payload/system.slice/cron.service", "deb", "systemd-nspawn"),
        ("/machine.slice/systemd-nspawn@deb.service/supervisor", None, None),
        ("/machine.slice/machine-my\\x2ddeb.scope/payload", "my\\x2ddeb", "machine"),
        ("/system.slice/cron.service", None, None),
        (f"/system.slice/docker-{ID[:-1]}.scope", None, None),
        (f"/system.slice/docker-{ID[:-1]}g.scope", None, None),
        ("/user.slice/lxc/web", None, None),
        (f"/{ID[:32]}", None, None),
    ],
)
def test_container_is_the_outermost_one(path, container, runtime):
    names = cgroup.names(path)
    assert (names["container"], names["runtime"]) == (container, runtime)


@pytest.mark.parametrize(
    ("path", "container", "claimed", "runtime"),
    [
        (f"{USER}/user.slice/libpod-{ID}.scope", None, ID, "libpod"),
        (f"{USER}/user.slice/x.service/libpod-payload-{ID}", None, ID, "libpod"),
        (f"{USER}/docker-{ID}.scope", None, ID, "docker"),
        (f"{USER}/docker/{ID}", None, ID, "docker"),
        (f"{USER}/lxc.payload.web", None, "web", "lxc"),
        (f"{USER}/machine.slice/machine-web.scope", None, "web", "machine"),
        (f"/docker/{OTHER}/kubelet.slice/{POD}/cri-containerd-{ID}.scope", OTHER, ID, "cri-containerd"),
        (f"/system.slice/docker-{OTHER}.scope/docker-{ID}.scope", OTHER, ID, "docker"),
        (f"/machine.slice/libpod-{OTHER}.scope/container/lxc.payload.web", OTHER, "web", "lxc"),
        ("/lxc.payload.db/lxc.payload.web", "db", "web", "lxc"),
        (f"/machine.slice/systemd-nspawn@deb.service/payload/system.slice/docker-{ID}.scope", "deb", ID, "docker"),
        (f"/own/docker-{ID}.scope", None, ID, "docker"),  # no unit: systemd has not made it
        (f"/system.slice/x.service/docker-{ID}.scope", None, ID, "docker"),
    ],
)
def test_what_a_user_or_a_container_can_write_is_claimed(path, container, claimed, runtime):
    names = cgroup.names(path)
    assert (names["container"], names["claimed_container"], names["claimed_runtime"]) == (container, claimed, runtime)
    if container is None:
        assert names["runtime"] is None


def test_only_levels_that_root_made_count():
    """/srv.slice is a user's: the level itself is named by root, all below it by that user."""
    path, names = f"/srv.slice/docker-{ID}.scope", cgroup.names
    assert names(path, trusted=10) == {
        "unit": None,
        "user_unit": None,
        "slice": "srv.slice",
        "container": None,
        "runtime": None,
        "claimed_unit": f"docker-{ID}.scope",
        "claimed_container": ID,
        "claimed_runtime": "docker",
    }
    assert names(path)["unit"] == f"docker-{ID}.scope" and names(path)["container"] == ID
    assert names("/a.slice/user@0.service/x.service", trusted=8)["user_unit"] is None
    assert set(names(path, trusted=0).values()) == {None, f"docker-{ID}.scope", ID, "docker"}
    assert names(path, trusted=0)["unit"] is None and names(path, trusted=0)["slice"] is None


PIECES = st.sampled_from(
    [
        "/",
        "a.slice",
        "b.service",
        "..",
        "docker",
        "-",
        ":",
        "lxc",
        "lxc.payload.",
        ID,
        ".scope",
        "machine-",
        "systemd-nspawn@",
        "user@",
        "1000",
        "_",
        "\\x2d",
        "\udcff",
        "libpod-payload-",
        "docker-",
    ]
)


@given(st.one_of(st.lists(PIECES).map("".join), st.binary()), st.one_of(st.none(), st.integers(0, 100)))
def test_any_path_has_names_that_are_part_of_it(path, trusted):
    names = cgroup.names(path, trusted)
    text = path if isinstance(path, str) else path.decode("utf-8", "surrogateescape")
    for name in names.values():
        assert name is None or name == "-.slice" or (name and name in text)


MOUNT = cgroup_filesystem.find_mount()


@pytest.fixture
def own_group():
    if MOUNT is None:
        pytest.skip("no cgroup2 mount")
    path = Path(os.fsdecode(MOUNT)) / f"nfproc-{os.getpid()}"
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup of our own: {error}")
    yield path
    path.rmdir()


@pytest.mark.root
def test_id_to_path_and_pids(own_group):
    fs = cgroup_filesystem.CgroupFilesystem()
    number = own_group.stat().st_ino
    assert fs.path_of(number) == f"/{own_group.name}"
    assert fs.path_of(Path(os.fsdecode(MOUNT)).stat().st_ino) == "/"
    assert fs.pids_of(number) == []
    children = []
    try:
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                os.read(os.pipe()[0], 1)
                os._exit(0)
            children.append(pid)
            (own_group / "cgroup.procs").write_text(str(pid))
        assert sorted(fs.pids_of(number)) == sorted(children)
        assert len(fs.pids_of(number, limit=2)) == 2
    finally:
        for pid in children:
            os.kill(pid, 9)
            os.waitpid(pid, 0)


def test_id_of_no_cgroup_is_an_oserror():
    if MOUNT is None:
        pytest.skip("no cgroup2 mount")
    with pytest.raises(OSError):
        cgroup_filesystem.CgroupFilesystem().path_of(2**63)


def test_without_a_mount_every_question_is_enoent(tmp_path):
    info = tmp_path / "mountinfo"
    info.write_text("22 27 0:21 / /proc rw,relatime - proc proc rw\nbroken\n")
    assert cgroup_filesystem.find_mount(info) is None
    with pytest.raises(FileNotFoundError):
        cgroup_filesystem.CgroupFilesystem(tmp_path / "missing").path_of(1)


def test_mount_point_is_unescaped(tmp_path):
    info = tmp_path / "mountinfo"
    info.write_text("41 31 0:38 / /sys/fs/my\\040group rw shared:4 - cgroup2 cgroup2 rw\n")
    assert cgroup_filesystem.find_mount(info) == b"/sys/fs/my group"


def test_the_mount_of_systemd_in_a_v1_hierarchy(tmp_path):
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(
        "39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
        "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
        "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 name=systemd rw\n"
    )
    assert cgroup_filesystem.find_mount(mountinfo, b"cgroup") == b"/sys/fs/cgroup/systemd"


@pytest.mark.parametrize(
    "lines, path",
    [
        (
            "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
            "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
            b"/sys/fs/cgroup/unified",
        ),
        ("35 24 0:30 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n", b"/sys/fs/cgroup"),
        ("35 24 0:30 /a/b /part rw - cgroup2 c rw\n36 24 0:30 / /the\\040whole rw - cgroup2 c rw\n", b"/the whole"),
        ("35 24 0:30 /a/b /part rw - cgroup2 c rw\n", b"/part"),
        ("31 23 0:28 / /cgroup2 rw - cgroup cgroup2 rw\n", None),
    ],
)
def test_the_mount_that_is_taken(tmp_path, lines, path):
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(lines)
    assert cgroup_filesystem.find_mount(mountinfo) == path
