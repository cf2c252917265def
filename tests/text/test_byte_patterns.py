"""What pattern.h finds is what Python's re finds, on any text, in linear time."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfct_fast.processes.redactor import Redactor
from nfct_fast.text.byte_patterns import compile_pattern

MARKER = b"[redacted]"


def by_re(pattern, text):
    """What must be seen of a text, by Python's re; an empty match hides nothing."""
    marks = bytearray(len(text))
    for match in re.finditer(pattern.encode(), text, re.DOTALL):
        begin, end = match.span("secret" if "secret" in match.re.groupindex else 0)
        if begin < 0:
            begin, end = match.span()
        marks[begin:end] = b"\1" * (end - begin)
    shown, at = b"", 0
    while at < len(text):
        if not marks[at]:
            shown += text[at : at + 1]
        elif at == 0 or not marks[at - 1]:
            shown += MARKER
        at += 1
    return shown


def grow(inner):
    pair = st.tuples(inner, inner)
    return (
        pair.map("".join)
        | pair.map(lambda both: f"(?:{both[0]}|{both[1]})")
        | st.tuples(inner, st.sampled_from(["*", "+", "?", "*?", "+?", "??", "{2}", "{1,3}", "{2,}?"])).map(
            lambda both: f"(?:{both[0]}){both[1]}"
        )
    )


ATOM = st.sampled_from(["a", "b", "-", "=", " ", "[ab]", "[^a]", r"\w", r"\S", r"\s", ".", r"\b", r"\B", "^", "(?i:A)"])
PATTERN = st.recursive(ATOM, grow, max_leaves=8)
TEXT = st.text("ab-= A", max_size=30).map(str.encode)


def has_repeated_nothing(pattern):
    """Repetitions of what may be empty: there the two differ in which of several equal ways they take."""
    return any(re.fullmatch(part, "") for part in re.findall(r"\(\?:((?:[^()]|\([^()]*\))*)\)[*+{]", pattern))


@settings(max_examples=400, deadline=None)
@given(PATTERN, TEXT)
def test_like_re(pattern, text):
    if not has_repeated_nothing(pattern):
        assert Redactor([pattern]).redacted(text)[0] == by_re(pattern, text)


@settings(max_examples=200, deadline=None)
@given(PATTERN, PATTERN, PATTERN, TEXT)
def test_like_re_with_a_secret(before, secret, after, text):
    pattern = f"{before}(?P<secret>{secret}){after}"
    if not any(map(has_repeated_nothing, (before, secret, after))):
        assert Redactor([pattern]).redacted(text)[0] == by_re(pattern, text)


@pytest.mark.parametrize(
    ("pattern", "text", "shown"),
    [
        ("--pin [0-9]+", b"x\0--pin\x001234\0y", b"x\0[redacted]\0y"),  # a space is also what is between arguments
        (r"(?P<secret>\d+)", b"a1b22", b"a[redacted]b[redacted]"),
        ("k=[^\\0]+", b"k=two words\0v", b"[redacted]\0v"),
        ("(?i)ToKeN", b"token TOKEN", b"[redacted] [redacted]"),
        ("a|ab", b"abab", b"[redacted]b[redacted]b"),  # the first way, as re, not the longest
        ("x$", b"xx", b"x[redacted]"),
        ("", b"ab", b"ab"),
    ],
)
def test_examples(pattern, text, shown):
    assert Redactor([pattern]).redacted(text)[0] == shown


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(", "not a valid regular expression"),
        (r"(a)\1", "groupref is not supported"),
        ("(?=a)", "assert is not supported"),
        ("(?<!a)b", "assert_not is not supported"),
        ("(?>a)", "atomic_group is not supported"),
        ("a++", "possessive_repeat is not supported"),
        ("(?m)^a", "(?m)"),
        ("é", "only ASCII"),
        ("a{5000}", "too large"),
        ("((((a{10}){10}){10}){10}){10}", "too large"),
    ],
)
def test_what_cannot_be_searched_for(pattern, why):
    with pytest.raises(ValueError, match=re.escape(why)):
        compile_pattern(pattern)


@pytest.mark.parametrize("pattern", ["(a*)*b", "(a|aa)+$", "(a?){60}a{60}", "(.*)(.*)(.*)(.*)(.*)c", "a.*b|a"])
def test_no_text_takes_for_ever(pattern):
    """re would take longer than the universe is old for some of these. All but the last end in the budget or before."""
    text = b"a" * 4096
    assert Redactor([pattern]).redacted(text)[0] in (text, MARKER)


@pytest.mark.parametrize("size", range(12, 40))
def test_what_a_cut_left_of_a_secret_is_hidden(size):
    text = b"tool\0--password\0hunter2-AKIAABCDEFGHIJKLMNOP"
    redactor = Redactor([r"--password (?P<secret>\S{8,})", "AKIA[A-Z]{16}"])
    shown, told = redactor.redacted(text[:size], cut=len(text) - size)
    assert b"hunter" not in shown and b"AKIA" not in shown and b"h" not in shown[16:]
    assert told > len(shown)
