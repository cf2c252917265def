"""The netlink socket: groups, buffers, and an exact count of lost messages."""

import errno

import pytest

from nfct_fast.kernel.netlink import NetlinkSocket


def test_loss_is_counted_exactly(tracked, within, flood):
    with within():
        sock = NetlinkSocket(12, 64)
        sock.set_receive_buffer(65536)
        sock.join(1)
    made = flood(3000, 0)
    got = 0
    overruns = 0
    while True:
        try:
            if not (messages := sock.messages_now()):
                break
            got += sum(b"\x0a\x63\x01" in message for message in messages)
        except OSError as error:
            assert error.errno == errno.ENOBUFS
            overruns += 1
    sock.close()
    assert overruns == sock.overruns == 1 and 0 < got < made
    # Neighbour discovery of the new device may add an event or two of its own, printed or lost.
    assert made <= got + sock.lost <= made + 8


def test_closed_is_closed(within):
    with within():
        sock = NetlinkSocket(12)
    sock.close()
    sock.close()
    for use in (sock.fileno, lambda: sock.join(1), sock.messages_now, lambda: sock.send(b"x")):
        with pytest.raises(ValueError):
            use()


def test_a_bad_filter_is_refused(within):
    with within():
        sock = NetlinkSocket(12)
        with pytest.raises(OSError):
            sock.attach_filter(b"\xff" * 8)
        sock.close()
