"""TCP connections to a syslog server, made without waiting for it."""

import errno
import itertools
import os
import socket

_SYN_RETRIES = 3  # it is given up after about 15 seconds, not after two minutes


def resolve(host, port, kind) -> list:
    """Return (family, address) of a host, by its name or address. Asks the resolver, which may block. OSError."""
    try:
        found = socket.getaddrinfo(host, port, type=kind)
    except (OSError, UnicodeError) as error:
        raise OSError(f"{host}: {getattr(error, 'strerror', None) or error}") from None
    return [(family, address) for family, _, _, _, address in found]


def connector(addresses):
    """Return a function that begins a connection to the next of these addresses in turn, and returns its descriptor."""
    turns = itertools.cycle(addresses)

    def connect():
        family, address = next(turns)
        with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, _SYN_RETRIES)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            number = sock.connect_ex(address)
            if number not in (0, errno.EINPROGRESS):
                raise OSError(number, os.strerror(number))
            return sock.detach()

    return connect
