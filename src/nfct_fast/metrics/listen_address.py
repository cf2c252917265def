"""Where metrics are served: an address and a port."""

import ipaddress
import re
import socket
from typing import NamedTuple

_FORM = re.compile(r"(?:(?P<address>\[[^\]]*\]|[^:\[\]]*):)?(?P<port>[0-9]{1,5})")


class ListenAddress(NamedTuple):
    """An address, and a port; 0 for any that is free."""

    address: str
    port: int

    def __str__(self):
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        return ipaddress.ip_address(self.address).is_loopback

    def listen(self, backlog) -> socket.socket:
        """Return a listening socket. OSError."""
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        return socket.create_server((self.address, self.port), family=family, backlog=backlog)


def parse_listen_address(text) -> ListenAddress:
    """Read ADDRESS:PORT, :PORT or PORT; an IPv6 address is in brackets. Without one it is 127.0.0.1. ValueError."""
    match = _FORM.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise ValueError(f"{text!r} is not a port, or an address and a port such as 127.0.0.1:9464 or [::1]:9464")
    address = match["address"] or "127.0.0.1"
    try:
        if address.startswith("["):
            return ListenAddress(str(ipaddress.IPv6Address(address[1:-1])), int(match["port"]))
        return ListenAddress(
            str(ipaddress.IPv4Address("127.0.0.1" if address == "localhost" else address)), int(match["port"])
        )
    except ValueError:
        raise ValueError(f"{text!r}: {address} is not an address; names are not looked up") from None
