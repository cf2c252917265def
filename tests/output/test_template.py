"""Templates produce what str.format() produces, for text."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfct_fast.output.template import Template
from nfct_fast.text.timestamp import TimeFormat
from support.child import Child
from support.cli import Program, inside

FIELDS = ["ev.proto", "ev.sport", "ev.dst", "ev.dport", "info.pid", "info.comm"]


@pytest.mark.parametrize(
    "template",
    [
        "{",
        "}",
        "{}",
        "{0}",
        "{ev}",
        "{ev.nope}",
        "{ev.src[0]}",
        "{ev.src.x}",
        "{ev.src:d}",
        "{ev.src:=5}",
        "{ev.src!r}",
        "{ev.src:{ev.dst}}",
        "{ev.src:99999}",
        "{info.__class__}",
        "\ud800",
    ],
)
def test_refused(template):
    with pytest.raises(ValueError, match="format"):
        Template(template)


@given(st.text(max_size=40))
def test_any_text_is_taken_or_refused(template):
    try:
        Template(template)
    except ValueError:
        pass


def test_the_same_as_str_format(tracked):
    """Many specifications in one run, each on its own line of one long template."""
    specs = [
        f"{fill if align else ''}{align}{width}{precision}"
        for fill in ("", "x", "0", "€", "<")
        for align in ("", "<", ">", "^")
        for width in ("", "0", "3", "05", "30")
        for precision in ("", ".0", ".3", ".30")
    ]
    template = "".join(f"|{{{FIELDS[i % len(FIELDS)]}:{spec}}}{{{{}}}}" for i, spec in enumerate(specs))
    comm = "a é€ b"
    code = (
        f"import socket, time; open('/proc/self/comm', 'w').write({comm!r}); s = socket.socket(2, 2); "
        "s.connect(('127.0.0.1', 77)); s.send(b'x'); print(s.getsockname()[1], flush=True); time.sleep(5)"
    )
    with Program(tracked, "-p", "udp", "-f", template) as program:
        with Child(inside(tracked, ["python3", "-c", code]), stdout=subprocess.PIPE, text=True) as sender:
            sport = sender.stdout.readline().strip()
            program.await_lines(1)
            sender.kill()
        program.end()
    values = dict(zip(FIELDS, ("ipv4/udp", sport, "127.0.0.1", "77", str(sender.pid), comm.replace(" ", r"\x20"))))
    assert program.lines == ["".join(f"|{values[FIELDS[i % len(FIELDS)]]:{spec}}{{}}" for i, spec in enumerate(specs))]


@pytest.mark.parametrize("format", ["", "%", "%Q", "%n", "%t", "a\nb", "%9999d", "\ud800", "%f" * 9])
def test_time_formats_refused(format):
    with pytest.raises(ValueError, match="time format"):
        TimeFormat(format)


@pytest.mark.parametrize("format", ["%s", "%F %T.%f", "%%%f%f", "%-d %_H", "€ %Y", "%c"])
def test_time_formats_taken(format):
    TimeFormat(format)
