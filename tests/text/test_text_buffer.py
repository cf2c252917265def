"""Text that other processes control is written as plain, reversible text."""

import base64
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfct_fast.text.text_buffer import escape

TRICKY = st.lists(
    st.one_of(
        st.binary(max_size=8),
        st.text(max_size=8).map(lambda text: text.encode(errors="surrogatepass")),
        st.sampled_from(
            [
                b"\\n",
                b"\n",
                b"\x1b[0m",
                b"\xc2\x9b",
                b"\xed\xa0\x80",
                b"\xf4\x90\x80\x80",
                b"\xc0\x80",
                "\u202e\u2066\u2028\u200b\ufeff\U000e0001".encode(),
                b"\x00",
                "\ufdd0\uffff\U0010fffe".encode(),
                "\ufffd\u00a0\u1680\u2003\u202f\u205f\u2800\u3000".encode(),
            ]
        ),
    )
).map(b"".join)


def unescape(text):
    """Python's own reading of the escapes."""
    out, at = b"", 0
    while at < len(text):
        if text[at] != "\\":
            out += text[at].encode()
            at += 1
            continue
        kind = text[at + 1]
        size = {"x": 2, "u": 4, "U": 8}.get(kind, 0)
        code = text[at + 2 : at + 2 + size]
        if kind == "x":
            out += bytes([int(code, 16)])
        elif size:
            out += chr(int(code, 16)).encode()
        else:
            out += {"n": b"\n", "r": b"\r", "t": b"\t", "\\": b"\\"}[kind]
        at += 2 + size
    return out


@given(TRICKY, st.booleans())
def test_escaped_is_printable_and_reversible(data, space):
    text = escape(data, space=space).decode()
    for character in text:
        assert unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp", "Zs") or character == " "
        assert unicodedata.bidirectional(character) not in (
            "LRE",
            "RLE",
            "LRO",
            "RLO",
            "PDF",
            "LRI",
            "RLI",
            "FSI",
            "PDI",
        )
    assert not space or len(text.split()) == bool(text)
    assert len(text.splitlines()) <= 1 and len(text.split()) == len([word for word in text.split(" ") if word])
    assert unescape(text) == data


@given(TRICKY)
def test_json_says_the_same_or_has_the_bytes_beside_it(data):
    text = json.loads(b'"%s"' % escape(data, json=True))
    beside = escape(data, json=True, base64=True)
    assert "\0" not in text
    if beside:
        assert base64.b64decode(beside, validate=True) == data and "\ufffd" in text
    else:
        assert text.encode() == data


@given(TRICKY)
def test_json_is_what_strict_readers_take(data):
    """RFC 7493: neither surrogates nor noncharacters. orjson is serde's cousin in Rust, and refuses lone surrogates."""
    line = b'{"a":"%s"}' % escape(data, json=True)
    text = json.loads(line)["a"]
    assert not any(
        0xD800 <= ord(one) < 0xE000 or 0xFDD0 <= ord(one) <= 0xFDEF or ord(one) & 0xFFFE == 0xFFFE for one in text
    )
    assert pytest.importorskip("orjson").loads(line) == {"a": text}


def test_every_blank_and_separator_of_unicode_is_escaped():
    for point in [*range(0xD800), *range(0xE000, 0x110000)]:
        character = chr(point)
        if character != " " and (character.isspace() or unicodedata.category(character).startswith("Z")):
            assert escape(character.encode()).isascii(), hex(point)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        (b"plain", "plain"),
        (b"a\\n", r"a\\n"),
        (b"\n\r\t\x00\x1b\x7f", r"\n\r\t\x00\x1b\x7f"),
        ("\u009b".encode(), r"\u009b"),
        ("\u202e".encode(), r"\u202e"),
        ("\U000e0041".encode(), r"\U000e0041"),
        (b"\xff\xc3", r"\xff\xc3"),
        ("ü€😀".encode(), "ü€😀"),
        ("a\u00a0b\u2009c\u3000d\u2800".encode(), r"a\u00a0b\u2009c\u3000d\u2800"),
    ],
)
def test_examples(data, text):
    assert escape(data).decode() == text


@pytest.mark.parametrize("data", [b"", b"f", b"fo", b"foo", b"foob", bytes(range(256))])
def test_base64(data):
    assert escape(data + b"\xff", json=True, base64=True) == base64.b64encode(data + b"\xff")
