"""An alert as a line of text."""

import socket

from nfct_fast.search.alert import Alert
from nfct_fast.search.story_text import clock, safe
from nfct_fast.text.protocol import protocol_name


def alert_line(alert: Alert) -> str:
    """Return what is known of an alert in one line, without its end; what its writer chose is escaped."""
    ends = [f"{address}{'' if port is None else f'/{port}'}" for address, port in (alert[6:8], alert[8:10])]
    words = [
        f"line {alert.line}:",
        alert.source,
        "" if alert.time_ns is None else clock(alert.time_ns),
        protocol_name(socket.AF_INET6 if ":" in alert.src else socket.AF_INET, alert.proto),
        " > ".join(ends),
        safe(alert.what),
    ]
    return " ".join([word for word in words if word])
