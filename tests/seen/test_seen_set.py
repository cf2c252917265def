"""The set of what was seen is bounded, and whoever has most gives way, with what was not seen for longest."""

import os
import struct

import pytest

from nfct_fast.seen.first_seen import FirstSeen
from nfct_fast.seen.seen_set import SeenSet

ENTRY = struct.Struct("=QIHH")
HOUR, NOW = 3600, 1_800_000_000
SYSTEM, ALICE, BOB = 0, 600, 700  # groups of users


def entries(count, group, last=NOW, first=1):
    """Hashes in a row, as no keyed hash is: the worst case for the set."""
    return b"".join([ENTRY.pack(group * 10**9 + first + i, last, group, 0) for i in range(count)])


def kept(known):
    return {(group, number): last for number, last, group, _ in ENTRY.iter_unpack(known.dump())}


def test_what_was_added_is_there_once_with_its_last_time():
    known = SeenSet(100_000)
    assert known.load(entries(20_000, ALICE)) == 0 and known.load(entries(20_000, ALICE, NOW + HOUR)) == 0
    assert known.count == 20_000 and known.forgotten == 0
    assert set(kept(known).values()) == {NOW + HOUR} and known.shares()[ALICE] == 20_000
    again = SeenSet(100_000)
    again.load(known.dump())
    assert kept(again) == kept(known)


def test_it_never_holds_more_than_its_limit():
    known = SeenSet(5000)
    for i in range(60):
        known.load(entries(1000, ALICE, NOW + i * HOUR, i * 1000))
        assert known.count <= 5000
    assert known.count + known.forgotten == 60_000
    assert min(kept(known).values()) >= NOW + 50 * HOUR


def test_the_longest_unused_go_first():
    known = SeenSet(4096)
    known.load(entries(2000, ALICE, NOW - 400 * 24 * HOUR))
    known.load(entries(2096, ALICE, NOW, 5000))
    known.load(entries(1, ALICE, NOW, 90_000))
    assert known.forgotten == 512
    assert sum(last == NOW for last in kept(known).values()) == 2097


def test_a_flood_displaces_nobody_who_has_less():
    known = SeenSet(8192)
    known.load(entries(1000, SYSTEM, NOW - 90 * 24 * HOUR) + entries(1500, ALICE, NOW - 90 * 24 * HOUR))
    known.load(entries(100_000, BOB))
    shares = known.shares()
    assert shares[SYSTEM] == 1000 and shares[ALICE] == 1500 and known.count <= 8192


def test_users_of_the_system_keep_half_of_the_room_whoever_else_joins_forces():
    known = SeenSet(8192)
    known.load(entries(4000, SYSTEM, NOW - 90 * 24 * HOUR))
    known.load(b"".join([entries(200, group) for group in range(512, 1024)]))
    assert known.shares()[SYSTEM] == 4000 and known.count <= 8192


@pytest.mark.parametrize("damage", [ENTRY.pack(0, NOW, 1, 0), ENTRY.pack(5, NOW, 1024, 0), b"\0" * 15])
def test_what_is_no_entry_is_left_out(damage):
    known = SeenSet(1024)
    assert known.load(entries(3, ALICE) + damage) == 1
    assert known.count == 3
    known.load(os.urandom(16 * 5000))
    assert known.count <= 1024


def test_impossible_arguments_are_refused():
    for limit in (0, 1023, 1 << 27):
        with pytest.raises(ValueError, match="must be from 1024"):
            SeenSet(limit)
    with pytest.raises(ValueError, match="16 bytes"):
        FirstSeen(4096, b"short")
