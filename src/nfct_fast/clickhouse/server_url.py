"""Where a ClickHouse is, and as whom it is asked: a URL, and what clickhouse-client takes from the environment."""

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

_PORTS = {"http": 8123, "https": 8443}
_NAMES = ("database", "table")
TABLE = "nfct_flows"


class ServerUrl(NamedTuple):
    """What a URL says. `shown` is what may be printed of it: no password."""

    is_tls: bool
    host: str
    port: int
    path: str
    database: str | None
    table: str
    user: str | None
    password: str | None

    @property
    def shown(self) -> str:
        """The URL without user and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_tls else 'http'}://{host}:{self.port}{self.path}"


def server_url(text: str, environment: Mapping[str, str]) -> ServerUrl:
    """Read http[s]://[USER[:PASSWORD]@]HOST[:PORT][/PATH][?database=NAME&table=NAME].

    environment: Of CLICKHOUSE_USER, CLICKHOUSE_PASSWORD and CLICKHOUSE_DATABASE, where the URL does not say it.

    Raises ValueError, which never tells the password.
    """
    try:
        parts = urlsplit(text)
        port, host = parts.port, parts.hostname
        query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True)) if parts.query else {}
        user, password = (
            None if one is None else unquote(one, errors="strict") for one in (parts.username, parts.password)
        )
    except ValueError:  # whose text may have the password
        raise ValueError(f"the URL of ClickHouse cannot be read; {_FORM}") from None
    if parts.scheme not in _PORTS or not host or parts.fragment or set(query) - set(_NAMES):
        raise ValueError(f"this is no URL of ClickHouse's HTTP interface; {_FORM}")
    path = parts.path or "/"
    user = environment.get("CLICKHOUSE_USER") or None if user is None else user
    password = environment.get("CLICKHOUSE_PASSWORD") or None if password is None else password
    for what, value in (("host", host), ("path", path)):
        if not value.isascii() or not value.isprintable() or " " in value:
            raise ValueError(f"the {what} in the URL of ClickHouse has characters that do not belong there")
    for what, value in (("user", user), ("password", password)):
        if value is not None and not value.isprintable():
            raise ValueError(f"the {what} for ClickHouse has characters that cannot be sent")
    return ServerUrl(
        parts.scheme == "https",
        host,
        port or _PORTS[parts.scheme],
        path,
        query.get("database") or environment.get("CLICKHOUSE_DATABASE") or None,
        query.get("table") or TABLE,
        user,
        password,
    )


_FORM = "it is http[s]://[USER[:PASSWORD]@]HOST[:PORT][/PATH][?database=NAME&table=NAME]"
