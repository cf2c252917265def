"""What other processes control comes out as plain, reversible text."""
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfct_fast.outbuf import escape

TRICKY = st.lists(st.one_of(st.binary(max_size=8), st.text(max_size=8).map(lambda text: text.encode(errors="surrogatepass")),
                            st.sampled_from([b"\\n", b"\n", b"\x1b[0m", b"\xc2\x9b", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80",
                                             "\u202e\u2066\u2028\u200b\ufeff\U000e0001".encode()]))).map(b"".join)


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
        code = text[at + 2:at + 2 + size]
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
        assert unicodedata.category(character) not in ("Cc", "Zl", "Zp", "Cs")
        assert unicodedata.bidirectional(character) not in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    assert not space or " " not in text
    assert unescape(text) == data


@given(TRICKY)
def test_json_says_the_same(data):
    text = escape(data, json=True).decode()
    assert json.loads(f'"{text}"') == data.decode(errors="surrogateescape")


@pytest.mark.parametrize(("data", "text"), [
    (b"", ""), (b"plain", "plain"), (b"a\\n", r"a\\n"), (b"\n\r\t\x00\x1b\x7f", r"\n\r\t\x00\x1b\x7f"), ("\u009b".encode(), r"\u009b"),
    ("\u202e".encode(), r"\u202e"), ("\U000e0041".encode(), r"\U000e0041"), (b"\xff\xc3", r"\xff\xc3"), ("ü€😀".encode(), "ü€😀"),
])
def test_examples(data, text):
    assert escape(data).decode() == text
