"""Route messages, as bytes: which of them make an address local."""

import errno
import socket
import struct

from hypothesis import given
from hypothesis import strategies as st

from nfct_fast.namespaces.local_routes import parse_route


def route(address, bits, family=socket.AF_INET, table=255, protocol=2, type=2, tail=b""):
    packed = socket.inet_pton(family, address)
    return (
        struct.pack("=BBBBBBBBI", family, bits, 0, 0, table, protocol, 254, type, 0)
        + struct.pack("=HH", 4 + len(packed), 1)
        + packed
        + tail
    )


def test_route_message():
    assert parse_route(route("10.0.0.1", 32), "10.0.0.1") is True
    assert parse_route(route("10.0.0.1", 32), "10.0.0.2") is False
    assert parse_route(route("10.0.0.0", 8, tail=struct.pack("=HHI", 8, 99, 0)), "10.9.9.9") is True
    assert parse_route(route("2001:db8::", 33, socket.AF_INET6), "2001:db8:7fff::1") is True
    assert parse_route(route("2001:db8::", 33, socket.AF_INET6), "2001:db8:8000::1") is False
    # VRFs keep local routes in their own table; only the kernel's own count there.
    assert parse_route(route("10.0.0.1", 32, table=10), "10.0.0.1") is True
    assert parse_route(route("10.0.0.1", 32, table=10, protocol=4), "10.0.0.1") is False
    assert parse_route(route("10.0.0.1", 32, type=1), "10.0.0.1") is False
    assert parse_route(route("10.0.0.1", 33), "10.0.0.1") == -errno.EBADMSG


@given(st.integers(0, 100), st.binary(max_size=40), st.integers(0, 40), st.integers(0, 255))
def test_damaged_route_message(cut, tail, at, value):
    data = bytearray(route("2001:db8::", 64, socket.AF_INET6, tail=tail))
    data[at % len(data)] = value
    assert parse_route(bytes(data[: len(data) - cut % len(data)]), "192.0.2.1") in (True, False, -errno.EBADMSG)
