"""FILTER words on the command line: what is printed, and what is refused."""

import os
import socket

import pytest

from support.cli import Program, run


def send(port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", ("127.0.0.1", port))


@pytest.mark.parametrize(
    ("words", "ports"),
    [
        (["dport", "7001"], [7001]),
        (["dst", "127.0.0.0/8", "and", "not", "dport", "7001,7003"], [7002]),
        (["dport 7001-7003 and !(dport = 7002)"], [7001, 7003]),
        (["dport", "7001", "--debug", "or", "dport", "7003"], [7001, 7003]),
        (["uid", str(os.getuid()), "pid", str(os.getpid()), "dport", ">=", "7002"], [7002, 7003]),
        ([""], [7001, 7002, 7003]),
    ],
)
def test_words_are_one_filter(tracked, within, words, ports):
    with Program(tracked, *words) as program:
        with within():
            for port in (7001, 7002, 7003):
                send(port)
            program.await_lines(len(ports))
        status, _ = program.end()
    assert status == 0
    assert sorted(dport for _, _, dport in program.flows()) == ports


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["dprt", "80"], "filter: unknown word 'dprt' at column 1 (did you mean dport?) (try -h)"),
        (["dport", "80", "443"], "filter: unknown word '443' at column 10 (a list of values needs commas"),
        (["comm", "\x1b[2J\udcff"], None),
        (["-p", "udp", "tcp"], "filter: no flow can match it"),
        (["x" * 100_000], "filter: it has 100000 characters"),
        (["(" * 10_000], "filter: more than 50 parentheses within each other at column 51"),
    ],
)
def test_a_bad_filter_is_refused_in_one_line(netns, words, line):
    if line is None:
        words, line = ["uid", words[1]], "filter: '\\x1b[2J\\udcff' at column 5 is no uid"
    result = run(netns, *words)
    assert result.returncode == 2 and result.stdout == b""
    [complaint] = result.stderr.decode("ascii").splitlines()
    assert complaint.startswith(f"nfct-fast: {line}") and complaint.isprintable()


def test_help_has_the_words(netns):
    text = run(netns, "-h", text=True).stdout
    assert "[FILTER ...]" in text and "dport 443 and not user alice" in " ".join(text.split())
