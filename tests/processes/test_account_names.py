"""Names of users and groups are those of the two files, and nothing that waits is asked."""

import grp
import os
import pwd

import pytest

from nfct_fast.processes.account_names import AccountNames
from support.cli import until

PASSWD = """\
# a comment:x:5:5::/:
root:x:0:0:root:/root:/bin/sh
toor:x:0:0:root:/root:/bin/sh
+nis:x:6:6::/:
-:x:7:7::/:
:x:8:8::/:
bare
short:x:9
words:x:ten:10::/:
negative:x:-1:1::/:
huge:x:4294967296:1::/:
most:x:4294967295:1::/:
last:x:1000:1000::/home:/bin/sh"""


@pytest.fixture
def files(tmp_path):
    passwd, group = tmp_path / "passwd", tmp_path / "group"
    passwd.write_text(PASSWD)
    group.write_text("wheel:x:10:root\nstaff:*:50:\n")
    return passwd, group


def test_like_the_c_library():
    names = AccountNames()
    for entry in pwd.getpwall():
        assert names.names(entry.pw_uid, 0)[0] == pwd.getpwuid(entry.pw_uid).pw_name
    for entry in grp.getgrall():
        assert names.names(0, entry.gr_gid)[1] == grp.getgrgid(entry.gr_gid).gr_name


def test_odd_lines(files):
    names = AccountNames(*files)
    users = [names.names(uid, 0)[0] for uid in (0, 5, 6, 7, 8, 9, 10, 1000, 4294967295, 1)]
    assert users == ["root", None, None, None, None, None, None, "last", "most", None]
    assert [names.names(0, gid)[1] for gid in (10, 50, 0)] == ["wheel", "staff", None]


def test_changes_are_noticed(files):
    names = AccountNames(*files, interval=0)
    assert names.names(1001, 10) == (None, "wheel")
    new = files[0].with_name("new")
    new.write_text(PASSWD + "\nnew:x:1001:1001::/:\n")
    os.replace(new, files[0])
    assert names.names(1001, 10) == ("new", "wheel")
    files[1].unlink()
    assert names.names(1001, 10) == ("new", "wheel")


def test_files_are_not_read_at_each_call(files):
    names = AccountNames(*files)
    files[0].write_text("other:x:0:0::/:\n")
    assert names.names(0, 10) == ("root", "wheel")


def test_no_files_and_no_fifo_to_wait_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    names = AccountNames(tmp_path / "fifo", tmp_path / "nothing", interval=0)
    assert until(lambda: names.names(0, 0) == (None, None))


def test_many(tmp_path):
    passwd = tmp_path / "passwd"
    passwd.write_text("".join(f"u{i}:x:{i * 65536}:0::/:\n" for i in range(20000)))
    names = AccountNames(passwd, passwd)
    assert all(names.names(i * 65536, 0)[0] == f"u{i}" for i in range(20000))
    assert names.names(1, 1) == (None, None)
