"""What was seen outlives the program: in a file that a crash, a full disk or another user cannot turn against it."""

import os
import resource
import struct

import pytest

from nfct_fast.seen.first_seen import FirstSeen
from nfct_fast.seen.seen_file import SeenFile, read_seen

ENTRY = struct.Struct("=QIHH")
KEY, OTHER_KEY = bytes(range(16)), bytes(16)
NOW = 1_800_000_000
HEADER = 64


def chunk(first, count, key=KEY, limit=2000, last=NOW):
    entries = [ENTRY.pack(first + i, last, 5, 0) for i in range(count)]
    return key + struct.pack("=II", limit, 0) + b"".join(entries)


@pytest.fixture
def said():
    return []


@pytest.fixture
def file(tmp_path, said):
    made = SeenFile(str(tmp_path), said.append)
    yield made
    made.close()


def known(directory, limit=2000):
    """The hashes that the next start knows, and what it tells the operator."""
    seen, problem = read_seen(str(directory), limit)
    key, entries = seen.dump()
    return key, {number for number, *_ in ENTRY.iter_unpack(entries)}, problem


def test_what_is_committed_is_known_at_the_next_start(file, tmp_path, said):
    assert "nothing is remembered yet" in known(tmp_path)[2]
    file.add(chunk(1, 10))
    assert not os.listdir(tmp_path)
    file.commit()
    file.add(chunk(11, 5))
    assert known(tmp_path) == (KEY, set(range(1, 11)), None)
    file.commit()
    assert known(tmp_path) == (KEY, set(range(1, 16)), None)
    assert os.stat(tmp_path / "seen").st_mode & 0o777 == 0o600 and said == []
    file.close()
    again = SeenFile(str(tmp_path), said.append)
    again.add(chunk(90, 1))
    again.commit()
    again.close()
    assert known(tmp_path)[1] == {*range(1, 16), 90}


def test_what_is_not_to_be_remembered_is_not(file, tmp_path):
    file.add(chunk(1, 10))
    file.add(None)
    file.add(chunk(20, 1))
    file.add(b"short")
    file.commit()
    assert known(tmp_path)[1] == {20}


def test_an_entry_that_was_cut_is_left_out_and_what_follows_is_whole(file, tmp_path):
    file.add(chunk(1, 3))
    file.commit()
    file.close()
    path = tmp_path / "seen"
    for cut in range(1, 16):
        path.write_bytes(path.read_bytes()[: HEADER + 48] + b"\xff" * cut)
        assert known(tmp_path)[1] == {1, 2, 3}
    file.add(chunk(4, 1))
    file.commit()
    assert known(tmp_path)[1] == {1, 2, 3, 4}


@pytest.mark.parametrize(
    "content",
    [b"", b"\x89NFCTsee" + b"\0" * 20, b"x" * 200, b"\x89NFCTsee" + struct.pack("=II", 2, 0x01020304) + bytes(99)],
)
def test_a_damaged_file_is_put_aside(content, file, tmp_path):
    (tmp_path / "seen").write_bytes(content)
    key, found, problem = known(tmp_path)
    assert found == set() and "every address and port is first seen again" in problem and "Traceback" not in problem
    file.add(chunk(7, 1, key))
    file.commit()
    assert known(tmp_path) == (key, {7}, None)
    assert (tmp_path / "seen.damaged").read_bytes() == content


def test_a_file_of_another_key_is_of_no_use(file, tmp_path):
    file.add(chunk(1, 1, OTHER_KEY))
    file.commit()
    file.close()
    file.add(chunk(2, 1))
    file.commit()
    assert known(tmp_path) == (KEY, {2}, None)


def test_nothing_is_read_through_a_link_nor_waited_for(file, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"not for others")
    path = tmp_path / "seen"
    path.symlink_to(secret)
    assert "is a symbolic link" in known(tmp_path)[2]
    file.add(chunk(1, 1))
    file.commit()
    assert secret.read_bytes() == b"not for others" and known(tmp_path)[1] == {1}
    file.close()
    path.unlink()
    os.mkfifo(path)
    assert "no regular file" in known(tmp_path)[2]
    path.unlink()
    os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 1 << 40)
    assert "too large" in known(tmp_path)[2]


def test_the_file_does_not_grow_without_end(file, tmp_path):
    for i in range(60):
        file.add(chunk(1, 8000, limit=9000, last=NOW + i))
        file.commit()
        assert os.stat(tmp_path / "seen").st_size <= HEADER + 16 * 8000 + (4 << 20) + 16 * 8000
    assert known(tmp_path, 9000)[1] == set(range(1, 8001))
    assert sorted(os.listdir(tmp_path)) == ["seen"]


def test_a_full_disk_is_told_once_and_nothing_is_spoiled(file, tmp_path, said):
    file.add(chunk(1, 100))
    file.commit()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (HEADER + 16 * 100 + 40, before[1]))
    try:
        for i in range(3):
            file.add(chunk(200 + 10 * i, 5))
            file.commit()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(said) == 1 and "File too large. What is seen now may be marked again later" in said[0]
    file.add(chunk(300, 2))
    file.commit()
    assert set(range(1, 101)) | {300, 301} <= known(tmp_path)[1] <= set(range(1, 302))


def test_it_is_as_bounded_as_what_is_remembered(file, tmp_path):
    file.add(chunk(1, 5000, limit=1024))
    file.commit()
    assert len(known(tmp_path, 1024)[1]) <= 1024
    assert FirstSeen(1024, KEY).known.count == 0
