"""The language: what means the same, and errors that point at the word."""

import os
import random
import re

import pytest

from nfct_fast import Conntrack, FilterError
from nfct_fast.filters.filter_grammar import parse
from nfct_fast.filters.filter_words import LENGTH_LIMIT


@pytest.mark.parametrize(
    "texts",
    [
        ["dst 10.0.0.1 and dport 443", "dst 10.0.0.1 dport 443", "DST host 10.0.0.1 && dst port = :443"],
        ["dst 10.0.0.1 and dport 443", "(dst net 10.0.0.1/32)and(dport{443})", "dst==10.0.0.1 AND dport 0x1bb"],
        ["dport 80,443", "dport {80, 443}", "dport 443 , 80 , 80", "dport https,http", "dport 80 or dport 443"],
        ["comm a,b*", "comm a or comm b* or comm a"],
        ["dport 80-443", "dst portrange 80-443", "dport 80-100,101-443,90-443"],
        ["not (tcp or udp)", "!tcp and !udp", "not tcp not udp", "proto != 6,17"],
        ["A or B and C", "A or (B and C)", "(A) || ((B) && C)", "A or B C"],
        ["not A B", "(not A) and B", "not not not A and B", "!(A or not B)"],
        ["tcp", "proto 6", "proto TCP", "ipv4/tcp or ipv6/tcp", "proto ipv4/6,ipv6/tcp"],
        ["dst 10.1.2.3/8", "dst 10.0.0.0/8", "dst 10.0.0.0/255.0.0.0", "dst 10.0.0.0-10.255.255.255"],
        ["src ::ffff:192.0.2.1", "src 192.0.2.1"],
        ["src [2001:db8::1]", "src 2001:DB8:0:0::1"],
        ["port < 1024", "port 0-1023", "sport lt 1024 or dport le 1023"],
        ["ip6", "ipv6", "family ipv6", "family inet6"],
        ["user root", "uid 0", "user 0"],
        ["unit sshd", "unit sshd.service", "unit 'sshd.service'", 'unit = "sshd"'],
        ["comm 'a b'", 'comm "a b"', "comm = 'a b'"],
        ["exe curl", "exe */curl"],
        ["reason closed,orphaned", "reason {orphaned,closed}"],
        ["netns 4026531840", "netns 0xf0000000"],
    ],
)
def test_these_mean_the_same(texts):
    conditions = {"A": "dst 10.0.0.1", "B": "dport 1", "C": "uid 5"}
    meanings = [parse(re.sub(r"\b[ABC]\b", lambda letter: conditions[letter[0]], text)) for text in texts]
    assert all(meaning == meanings[0] for meaning in meanings[1:]), meanings


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("dprt 80", 1, "unknown word 'dprt' at column 1 (did you mean dport?)"),
        ("dst 10.0.0.1 and dprt 80", 18, "unknown word 'dprt' at column 18 (did you mean dport?)"),
        (
            "dport 80 443",
            10,
            "unknown word '443' at column 10 (a list of values needs commas, a value with blanks quotes)",
        ),
        ("comm Web Content", 10, "a value with blanks quotes"),
        ("dport", 6, "a value of dport is missing before the end at column 6"),
        ("dport and tcp", 7, "a value of dport is missing before 'and' at column 7"),
        ("dport 80,", 10, "a value of dport is missing before the end"),
        ("dport ''", 7, "is empty"),
        ("dport 65536", 7, "port '65536' at column 7 is more than 65535"),
        ("dport 90-80", 7, "write 80-90"),
        ("dport htps", 7, "unknown port 'htps'"),
        ("dport -1", 7, "unknown port '-1'"),
        ("uid 99999999999", 5, "is more than 4294967295"),
        ("uid alice", 5, "'alice' at column 5 is no uid"),
        ("user no-such-user-here", 6, "no user 'no-such-user-here' on this host"),
        ("dst 10.0.0.256", 5, "no address or network, such as"),
        ("dst 10.0.0.1:443", 5, "addresses and ports are separate, as in dst 10.0.0.1 and dport 443"),
        ("dst example.com", 5, "names are not looked up"),
        ("dst fe80::1%eth0", 5, "leave out the interface"),
        ("dst 10.0.0.9-10.0.0.1", 5, "write 10.0.0.1-10.0.0.9"),
        ("dst 10.0.0.1-::1", 5, "no address or network"),
        ("dst < 10.0.0.1", 5, "dst has no order"),
        ("proto tpc", 7, "unknown protocol 'tpc' at column 7 (did you mean tcp?)"),
        ("proto ipv5/tcp", 7, "unknown family in 'ipv5/tcp'"),
        ("proto 256", 7, "more than 255"),
        ("family 5", 8, "ipv4 or ipv6"),
        ("dir sideways", 5, "one of out, in, local, forward"),
        ("reason because", 8, "one of off, forwarded"),
        ("mark 5/1", 6, "VALUE/MASK"),
        ("mark x", 6, "'x' at column 6 is no mark"),
        ("zone 65536", 6, "more than 65535"),
        ("netns no-such-namespace", 7, "no network namespace 'no-such-namespace'"),
        ("netns all", 7, "leave it out"),
        ("comm sixteen-letters-", 6, "longer than the 15 bytes"),
        ("cmdline " + "x" * 256, 9, "at most 255 are possible"),
        ("comm 'a\0b'", 6, "NUL"),
        ("comm \ud800", 6, "no name can have"),
        ("comm 'abc", 6, "the quote at column 6 is never closed"),
        ("tcp & udp", 5, "unexpected '&' at column 5"),
        ("(tcp", 5, "')' is missing at column 5, for the '(' at column 1"),
        ("tcp)", 4, "unexpected ')' at column 4"),
        ("tcp and", 8, "a condition is missing before the end at column 8"),
        ("()", 2, "a condition is missing before ')' at column 2"),
        ("or tcp", 1, "a condition is missing before 'or'"),
        ("not", 4, "a condition is missing before the end"),
        ("dport {80", 10, "for the '{' at column 7"),
        ("owner dport 80", 7, "owner and peer go before words such as uid"),
        ("peer", 5, "owner and peer go before"),
        ("reply tcp", 7, "after reply, a word such as src or dport is missing"),
        ("'dport' 80", 1, "a condition is missing before 'dport'"),
        ("(" * 51 + "tcp" + ")" * 51, 51, "more than 50 parentheses"),
        ("tcp or " * 20000 + "tcp", LENGTH_LIMIT + 1, "it has 140003 characters"),
    ],
)
def test_errors_point_at_the_word(text, column, message):
    with pytest.raises(FilterError, match=re.escape(message)) as failed:
        parse(text)
    assert failed.value.column == column
    line = str(failed.value)
    assert line.startswith("filter: ") and line.isprintable() and len(line) < 200
    [note] = failed.value.__notes__
    shown, caret = note.split("\n")
    place = caret.index("^")
    assert caret.strip() == "^" and len(shown) < 100
    assert shown[place:][:3] == text[column - 1 :][:3].replace("\0", "?").replace("\ud800", "?")


@pytest.mark.parametrize("text", ["", " ", "\n\t"])
def test_blanks_are_no_filter(text):
    assert parse(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "(" * 10_000 + "tcp" + ")" * 10_000,
        "not " * 250_000 + "tcp",
        "x" * 1_000_000,
        "dport " + "1," * 500_000,
        "(" * 60_000,
        "!" * 65_530 + "tcp",
        "comm " + "*a" * 30_000,
        "'" * 65_001,
        "reason " + "*a" * 30_000 + "b",
        "0-" * 30_000,
    ],
    ids=lambda text: text[:9],
)
def test_what_is_too_long_or_too_deep_is_refused_at_once(text):
    try:
        parse(text)
    except FilterError as error:
        assert len(str(error)) < 300
    else:
        assert text.startswith("!")


def test_any_text_is_a_filter_or_an_error():
    chosen = random.Random(7)
    words = "tcp dport 80 443-500 ( ) , { } ! not and or && || = != < src 10.0.0.0/8 ::1 comm a* 'b c' \" owner reply"
    words = [*words.split(), "uid"]
    for _ in range(5000):
        text = " ".join(chosen.choices(words, k=chosen.randrange(1, 9)))
        try:
            parse(text)
        except FilterError as error:
            assert 1 <= error.column <= len(text) + 1, text


def test_the_class_refuses_what_is_no_filter():
    with pytest.raises(FilterError, match="did you mean dport"):
        Conntrack(filter="dprt 80")
    with pytest.raises(ValueError, match="no flow can match"):
        Conntrack(filter="tcp and udp")
    with pytest.raises(ValueError, match="no flow can match"):
        Conntrack(filter="tcp", protocol="udp")
    with pytest.raises(TypeError, match="must be a str"):
        Conntrack(filter=["tcp"])


def test_a_namespace_is_known_by_its_name_or_path(netns):
    inode = os.stat(f"/run/netns/{netns}").st_ino
    assert parse(f"netns {netns}") == parse(f"netns /run/netns/{netns}") == parse(f"netns {inode}")
