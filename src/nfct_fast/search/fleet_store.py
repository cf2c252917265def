"""`ClickHouseStore`, what programs and the command line find flows of many hosts in."""

import os

from nfct_fast.clickhouse.server_url import server_url
from nfct_fast.search.flow_finder import FlowFinder
from nfct_fast.search.table_source import TableSource


class ClickHouseStore(FlowFinder):
    """The flows of many hosts that lie in the table nfct_flows of a ClickHouse, as clickhouse.sql makes it.

    Args:
        url: Of its HTTP interface: http[s]://[USER[:PASSWORD]@]HOST[:PORT][/PATH][?database=NAME&table=NAME]. What it
            does not say is taken from the environment: CLICKHOUSE_USER, CLICKHOUSE_PASSWORD, CLICKHOUSE_DATABASE.
        community_id: The seed of `Flow.community_id`, and whether `to_json()` has it, as of Conntrack.
        hosts: Names of hosts, with "*" and "?" as in a shell, to which all is limited; () for all hosts.

    Nothing is written: the right to read the two tables (GRANT SELECT) is enough. Everything blocks as the server does,
    at most two minutes without a byte. Methods raise ClickHouseError, an OSError, where the server cannot be asked or
    what it answers cannot be. `Flow.host` says where a flow was. Memory does not grow with an answer, but for find()
    without `all_records`, at most ten million rows. One thread uses it; it is a context manager.

    Raises ValueError if the URL cannot be read; no text of an error has the password.
    """

    def __init__(self, url: str, *, community_id: int | None = None, hosts: tuple[str, ...] = ()) -> None:
        super().__init__(TableSource(server_url(url, os.environ), self._complain), community_id, tuple(hosts))
