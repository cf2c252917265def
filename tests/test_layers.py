"""The rooms of the package in order: none imports one of a storey above its own, or beside it."""
import re
from pathlib import Path

import pytest

import nfct_fast

# From the ground up; each line is a storey. Rooms of one storey do not know each other.
STOREYS = """
    _version _joined forkmark libraries privileges sandbox wakeup
    flow mutex netlink netquery news outbuf procfs protocol rights sink words cgroup sock netns
    addrtable census diagnosis diagmsg filter nftables pace procstat seen socktable status table timestamp cgroupfs
    channel cmdlines
    addresses allowance door holders links process procconnector procnet sockdiag
    direction lookout member procfd processreader programs shares source tracking
    seeker sources
    atlas cgrouppaths
    space
    scout
    processcache
    owner directory listen
    places
    follow
    record inquiry
    fields formatter ring
    owners_bpf procevents
    processwatch
    notes vacancies
    responders
    attribution
    batch intake jsonlines messages template trial
    recovery writer
    reader
    engine
    conntrack
    __init__
    __main__
"""
LEVEL = {room: level for level, rooms in enumerate(STOREYS.split("\n")) for room in rooms.split()}
FOLDER = Path(__file__).parent.parent / "src" / "nfct_fast"
SOURCES = sorted(path for path in FOLDER.glob("*") if path.suffix in (".py", ".pyx", ".pxd"))
from_source = pytest.mark.skipif(not SOURCES, reason="the sources are not here: tests run against an installed package")
_FROM = re.compile(r"^\s*from\s+(?:nfct_fast|(?=\.))\.?(\w*)\s+c?import\s+(\([^)]*\)|[^\n#]*)", re.M)
_WHOLE = re.compile(r"^\s*c?import\s+nfct_fast\.(\w+)", re.M)


def imported(text):
    for match in _FROM.finditer(text):
        if match[1]:
            yield match[1]
        else:       # from . import a, b
            yield from (name.split(" as ")[0].strip() for name in match[2].strip("()").split(",") if name.strip())
    yield from _WHOLE.findall(text)


@from_source
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_a_room_imports_only_from_below(path):
    room = path.stem
    assert room in LEVEL, f"{path.name} has no place in the table above"
    for other in set(imported(path.read_text())) - {room}:
        assert other in LEVEL, f"{path.name} imports {other}, which has no place in the table above"
        assert LEVEL[other] < LEVEL[room], f"{path.name} imports {other}, which is not below it"


@from_source
def test_every_room_of_the_table_is_there():
    assert set(LEVEL) == {path.stem for path in SOURCES}


def test_what_is_exported_is_there():
    for name in nfct_fast.__all__:
        assert getattr(nfct_fast, name) is not None
    with pytest.raises(AttributeError):
        nfct_fast.nothing


@pytest.mark.parametrize(("text", "names"), [
    ("from .flow cimport tuple_t", ["flow"]), ("from nfct_fast.flow cimport (a,\n   b)", ["flow"]),
    ("from . import netns, flow as f", ["netns", "flow"]), ("    cimport nfct_fast.sock", ["sock"]),
    ("from libc.errno cimport errno\nimport os", []),
])
def test_imports_are_seen(text, names):
    assert list(imported(text)) == names
