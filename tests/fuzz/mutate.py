"""Bytes that are nearly what was there: what netlink's lengths, /proc's numbers and UTF-8 break at."""

import struct

INTERESTING = [
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    15,
    16,
    20,
    31,
    32,
    63,
    64,
    127,
    128,
    255,
    256,
    4095,
    4096,
    32767,
    32768,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**32 - 1,
]
WORDS = [
    b"\0",
    b"\n",
    b" ",
    b":",
    b"/",
    b"(",
    b")",
    b"-1",
    b"99999999999999999999",
    b"18446744073709551616",
    b"\xff",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b".scope",
    b".slice",
    b".service",
    b"docker-",
    b"a" * 64,
    b"..",
    b"0::/",
    b" (deleted)",
]


def _flip(random, data):
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _byte(random, data):
    data[random.randrange(len(data))] = random.randrange(256)


def _number(random, data):
    form = random.choice("<B >H <H <I >I <Q".split())
    size = struct.calcsize(form)
    if len(data) >= size:
        at = random.randrange(len(data) - size + 1) & ~1
        struct.pack_into(form, data, min(at, len(data) - size), random.choice(INTERESTING) % (1 << 8 * size))


def _length(random, data):
    """Where netlink has them: at multiples of four, near what is left."""
    if len(data) >= 4:
        at = random.randrange(len(data) // 4) * 4
        struct.pack_into("<H", data, min(at, len(data) - 2), max(0, len(data) - at + random.randint(-5, 5)) & 0xFFFF)


def _cut(random, data):
    at = random.randrange(len(data))
    del data[at : at + random.choice([1, 2, 4, 8, random.randrange(1, len(data) + 1)])]


def _insert(random, data):
    at = random.randrange(len(data) + 1)
    data[at:at] = random.choice(WORDS) if random.random() < 0.6 else random.randbytes(random.randrange(1, 9))


def _again(random, data):
    at = random.randrange(len(data))
    piece = data[at : at + random.randrange(1, 65)]
    data[at:at] = piece * random.randrange(1, 4)


CHANGES = [_flip, _byte, _number, _length, _cut, _insert, _again]


def mutate(random, corpus, most=4096):
    """One of the corpus, or two joined, with one to eight changes."""
    data = bytearray(random.choice(corpus))
    if random.random() < 0.2:
        other = random.choice(corpus)
        data = data[: random.randrange(len(data) + 1)] + other[random.randrange(len(other) + 1) :]
    for _ in range(1 << random.randrange(4)):
        if data:
            random.choice(CHANGES)(random, data)
        else:
            _insert(random, data)
    return bytes(data[:most])
