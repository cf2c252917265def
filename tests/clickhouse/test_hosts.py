"""Many hosts in one table: whose a flow is, and what is delivered twice."""

import json
import tempfile

import pytest

from nfct_fast import ClickHouseError, ClickHouseStore, Store
from support.clickhouse_server import PASSWORD, USER, clickhouse
from support.stored_flows import BASE, FLOW
from support.stores import make_store

NS = 10**9


@pytest.fixture(scope="module")
def server():
    with clickhouse() as server:
        yield server


def line_of(**changes):
    """The line of a flow."""
    with tempfile.TemporaryDirectory() as directory:
        make_store(directory, [FLOW | {"type": "NEW"}])
        with Store(directory) as store:
            [flow] = store.find()
    line = flow.to_dict()
    for name, value in changes.items():
        *within, name = name.split("__")
        place = line
        for key in within:
            place = place[key]
        place[name] = value
    return json.dumps(line)


LINES = {
    "web1": {"host": "web1", "boot_id": "1" * 32, "owner__user": "alice"},
    "web2": {"host": "web2", "boot_id": "2" * 32, "owner__user": "bob"},
    "web%2": {"host": "web%2", "boot_id": "3" * 32, "machine_id": ""},
    "db_1\\'": {"host": "db_1\\'", "boot_id": "4" * 32},
    "db\n": {"host": "db\n", "boot_id": "5" * 32},
}


@pytest.fixture
def hosts(server):
    server.ask("TRUNCATE TABLE nfct_flows")
    lines = [line_of(**changes) for changes in LINES.values()]
    server.insert(lines)
    server.insert(lines)  # a batch that was delivered twice
    return server


def found(server, *names):
    with ClickHouseStore(server.url, hosts=names) as store:
        return [flow.host.name for flow in store.find()]


def test_each_is_found_once(hosts):
    assert sorted(found(hosts)) == sorted(LINES)
    with ClickHouseStore(hosts.url) as store:
        assert len(list(store.find(all_records=True))) == len(LINES)
        assert len(list(store.find(all_records=True, newest_first=True))) == len(LINES)


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["web1"], ["web1"]),
        (["web?"], ["web1", "web2"]),
        (["web*"], ["web%2", "web1", "web2"]),
        (["web%*"], ["web%2"]),
        (["*_1*"], ["db_1\\'"]),
        (["db_1\\'"], ["db_1\\'"]),
        (["db\n", "web2"], ["db\n", "web2"]),
        (["*\\*"], ["db_1\\'"]),
        (["' OR 1 --"], []),
        (["web"], []),
        (["{p0:String}"], []),
    ],
)
def test_by_name(hosts, names, wanted):
    assert sorted(found(hosts, *names)) == wanted


def test_a_user_is_the_hosts(hosts):
    with ClickHouseStore(hosts.url) as store:
        users = {flow.host.name: flow.owner.user for flow in store.find()}
    assert (users["web1"], users["web2"]) == ("alice", "bob")


def test_an_end_on_one_host_does_not_end_the_flow_of_another(server):
    server.ask("TRUNCATE TABLE nfct_flows")
    server.insert(
        [
            line_of(host="a", boot_id="1" * 32),
            line_of(host="b", boot_id="2" * 32),
            line_of(host="b", boot_id="2" * 32, type="DESTROY", time_ns=BASE + 5 * NS),
        ]
    )
    with ClickHouseStore(server.url) as store:
        assert [(flow.host.name, flow.type) for flow in store.find()] == [("a", "NEW"), ("b", "DESTROY")]


def test_a_name_that_was_given_to_another_user_since(server):
    server.ask("TRUNCATE TABLE nfct_flows")
    users = ["alice", "bob", "alice", "no:name", None]
    server.insert([line_of(owner__user=user, time_ns=BASE + n * NS, id=n) for n, user in enumerate(users)])
    with ClickHouseStore(server.url) as store:
        assert [flow.owner.user for flow in store.find()] == ["alice", "bob", "alice", None, None]


def test_losses(server):
    server.ask("TRUNCATE TABLE nfct_losses")
    lost = {"type": "LOST", "time_ns": BASE, "host": "a", "machine_id": "", "boot_id": "1" * 32, "lost": 5}
    server.insert([json.dumps(lost), json.dumps(lost), json.dumps(lost | {"host": "b", "time_ns": BASE + NS})])
    with ClickHouseStore(server.url) as store, ClickHouseStore(server.url, hosts=("a",)) as one:
        assert (store.lost(), store.lost(BASE + 1), one.lost(), one.lost(BASE + 1)) == (10, 5, 5, 0)


def test_a_row_of_a_batch(server):
    """Which has no time of day of the boot: so none is told, rather than a wrong one."""
    server.ask("TRUNCATE TABLE nfct_flows")
    server.insert([line_of(owner__start=None, owner__comm="x")])
    with ClickHouseStore(server.url) as store:
        [flow] = store.find()
    told = flow.to_dict()["owner"]
    assert "start" not in told and told["entity_id"] == json.loads(line_of())["owner"]["entity_id"]


def test_lines_of_several_flows_are_left_out_and_told_of(server):
    """They have no source port, and only SQL can sum them up."""
    server.ask("TRUNCATE TABLE nfct_flows")
    server.insert([line_of(), line_of(count=5, id=9), line_of(count=2, id=8, host="other")])
    with ClickHouseStore(server.url) as store:
        assert len(list(store.find())) == len(list(store.find("dport 443"))) == 1
        assert list(store.find("dport 444")) == []
        [told] = store.complaints
    assert told.startswith("2 rows")


def test_who_asks(monkeypatch):
    with clickhouse("--password") as server:
        monkeypatch.setenv("CLICKHOUSE_USER", USER)
        for password in ("wrong", PASSWORD):
            monkeypatch.setenv("CLICKHOUSE_PASSWORD", password)
            with ClickHouseStore(server.url) as store:
                if password == PASSWORD:
                    assert list(store.find()) == [] and store.is_empty
                else:
                    with pytest.raises(ClickHouseError, match="CLICKHOUSE_PASSWORD"):
                        list(store.find())
