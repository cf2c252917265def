"""The files of a store: their names, what is in them, and which cover a time."""

import base64
import calendar
import os
import re
import sqlite3
import time
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import quote

from nfct_fast.store.store_error import StoreError

APPLICATION_ID = 0x6E666374
VERSION = 1
HOUR_NS = 3600 * 10**9
INDEX_AT_ONCE = "CREATE INDEX flow_time ON flow(time)"
_NAME = re.compile(r"flows-(\d{4})(\d\d)(\d\d)T([01]\d|2[0-3])(?:-(\d{1,6}))?\.sqlite", re.ASCII)
_WHERE = {name: f" WHERE {name} IS NOT NULL" for name in ("peer", "nat_src", "nat_dst", "community_nat", "seen")}

# What is not known, or what a protocol does not have, is NULL. Of an address 4 or 16 bytes, in network order.
# flow.community: the first 8 bytes of the Community ID's SHA-1 (seed 0), big endian, as SQLite's integers have a sign.
# flow.nat_*: with NAT the original direction as the far side sees it, that is the reply tuple turned round.
# flow.began: of records other than NEW, when the kernel says the flow began, if nf_conntrack_timestamp is on; else of a
# whole flow, when its first event came. flow.owner, peer: a process.id, if only the cgroup is known
# that of a row without a pid. flow.boot: the row 'boot:N' of meta. record: what rebuild() takes.
TABLES = (
    "CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "CREATE TABLE process(id INTEGER PRIMARY KEY, entity_id TEXT, pid INTEGER, uid INTEGER, comm TEXT, exe TEXT, "
    "cmdline TEXT, unit TEXT, container TEXT, boot INTEGER, record BLOB)",
    "CREATE TABLE flow(id INTEGER PRIMARY KEY, time INTEGER, began INTEGER, type TEXT, proto TEXT, src BLOB, dst BLOB, "
    "sport INTEGER, dport INTEGER, nat_src BLOB, nat_dst BLOB, nat_sport INTEGER, nat_dport INTEGER, "
    "community INTEGER, community_nat INTEGER, owner INTEGER, peer INTEGER, seen INTEGER, boot INTEGER, record BLOB)",
    "CREATE TABLE loss(id INTEGER PRIMARY KEY, time INTEGER, since INTEGER, events INTEGER, at_least INTEGER, "
    "boot INTEGER, record BLOB)",
    INDEX_AT_ONCE,
)
# Those that a file gets when nothing is added to it any more. Kept up to date row by row they would have most of the
# writing: each row has its place in each of them on another page, and a commit writes whole pages.
INDEXES = (
    *(
        f"CREATE INDEX IF NOT EXISTS flow_{name} ON flow({name}){_WHERE.get(name, '')}"
        for name in ("src", "dst", "sport", "dport", "community", "owner", *_WHERE)
    ),
    "CREATE INDEX IF NOT EXISTS process_entity ON process(entity_id)",
    "CREATE INDEX IF NOT EXISTS process_pid ON process(pid)",
)


class StoreFile(NamedTuple):
    """A file of a store."""

    path: str
    hour: int  # when its hour begins, in hours since the epoch, of UTC
    number: int  # 0, or above that the further files of this hour


def file_name(hour: int, number: int) -> str:
    """Return the name of the file with this number of an hour, in hours since the epoch."""
    text = time.strftime("%Y%m%dT%H", time.gmtime(hour * 3600))
    return f"flows-{text}-{number}.sqlite" if number else f"flows-{text}.sqlite"


def _file_of(directory: str, name: str) -> StoreFile | None:
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    year, month, day, hour = map(int, match.groups()[:4])
    try:
        began = calendar.timegm((year, month, day, hour, 0, 0))
    except ValueError:
        return None
    return StoreFile(os.path.join(directory, name), began // 3600, int(match[5] or 0))


def store_files(directory: str | os.PathLike[str]) -> list[StoreFile]:
    """Return the files of a store, the oldest first. OSError if the directory cannot be read."""
    place = os.fsdecode(directory)
    found = [file for name in os.listdir(place) if (file := _file_of(place, name)) is not None]
    return sorted(found, key=lambda file: (file.hour, file.number))


def files_between(directory: str | os.PathLike[str], since: int, until: int) -> Iterator[StoreFile]:
    """Yield the files, the oldest first, that may have records of a `time` from `since` to `until`, ns since the epoch.

    OSError if the directory cannot be read.
    """
    for file in store_files(directory):
        if since // HOUR_NS <= file.hour <= until // HOUR_NS:
            yield file


def open_file(path: str, immutable: bool = False) -> sqlite3.Connection:
    """Open a file for reading, while it is written or not. It is not changed.

    immutable: Nobody writes to it, so that SQLite needs no files beside it, which a mere reader may not make.

    Whoever can write to the directory may have put anything there: be the user it belongs to, not root.

    Raises:
        StoreError: It cannot be read, or is no file of a store, or one of a later version.
    """
    try:
        how = "mode=ro&immutable=1" if immutable else "mode=ro"
        connection = sqlite3.connect(f"file:{quote(path)}?{how}", uri=True, isolation_level=None, timeout=5)
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}") from None
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        check_version(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise StoreError(f"{path}: {error}") from None
    except StoreError:
        connection.close()
        raise
    return connection


def check_version(connection: sqlite3.Connection, path: str) -> None:
    """Raise StoreError if this is no file of a store, or one of another version; sqlite3.Error if it is damaged."""
    [application] = connection.execute("PRAGMA application_id").fetchone()
    [version] = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise StoreError(f"{path}: not a file of nfct-fast --store")
    if version != VERSION:
        raise StoreError(f"{path}: of format {version}, but this version of nfct-fast knows format {VERSION} only")


def community_key(text: str) -> int:
    """Return flow.community of a Community ID, such as "1:LQU9qZlK+B5F3KDmev6m5PMibrg=". ValueError if it is none."""
    try:
        digest = base64.b64decode(text.removeprefix("1:"), validate=True)
    except ValueError:
        digest = b""
    if not text.startswith("1:") or len(digest) != 20:
        raise ValueError(f"{text!r} is no Community ID of version 1")
    return int.from_bytes(digest[:8], "big", signed=True)
