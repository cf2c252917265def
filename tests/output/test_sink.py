"""Whole blocks are written in order, or an error says why not."""

import errno
import os
import threading

import pytest

from nfct_fast.output.sink import Sink
from support.stopwatch import Stopwatch


def test_a_block_larger_than_the_pipe_arrives_whole():
    data = os.urandom(1 << 20)
    read, write = os.pipe()
    got = bytearray()

    def collect():
        while part := os.read(read, 10000):
            got.extend(part)

    thread = threading.Thread(target=collect)
    thread.start()
    Sink(write).write(data)
    os.close(write)
    thread.join()
    os.close(read)
    assert got == data


def test_a_file(tmp_path):
    with open(tmp_path / "f", "wb") as file:
        sink = Sink(file.fileno())
        for part in (b"one\n", b"", b"two\n" * 100000):
            sink.write(part)
    assert (tmp_path / "f").read_bytes() == b"one\n" + b"two\n" * 100000


def test_errors():
    read, write = os.pipe()
    os.close(read)
    with pytest.raises(BrokenPipeError):
        Sink(write).write(b"x")
    os.close(write)
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OSError) as raised:
        Sink(full.fileno()).write(b"x")
    assert raised.value.errno == errno.ENOSPC
    with pytest.raises(OSError):
        Sink(10_000)


def test_once_the_end_is_asked_for_a_stuck_pipe_is_given_half_a_second():
    read, write = os.pipe()
    stop, ask = os.pipe()
    os.write(ask, b"x")
    with Stopwatch() as watch, pytest.raises(OSError) as raised:
        Sink(write, stop).write(bytes(1 << 20))
    assert raised.value.errno == errno.ETIMEDOUT
    assert watch.elapsed > 0.4 and watch.seconds < 0.9
    for fd in (read, write, stop, ask):
        os.close(fd)
