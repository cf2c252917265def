"""JSON tells all that is known of an owner: what is kept elsewhere as lines is no poorer than a recording."""

import json
import os

from nfct_fast import Conntrack
from nfct_fast.output.template import Template
from support.filters import message
from support.recordings import ABOUT, PROCESS, chunk, flow, owner, process, whole
from support.stored_flows import FLOW

CGROUP = b"/system.slice/a.service"


def played(recording):
    fd = os.memfd_create("recording")
    try:
        os.write(fd, recording)
        with Conntrack(replay=fd) as conntrack:
            return list(conntrack)
    finally:
        os.close(fd)


SENT = message(FLOW)


def test_the_cgroup_of_a_socket_without_a_process():
    fixed = (
        bytes(4) + (32).to_bytes(4, "little") + bytes(72) + bytes(12) + len(CGROUP).to_bytes(4, "little") * 2 + bytes(4)
    )
    part = bytearray(owner(0, reason=4))
    part[36:40] = (1).to_bytes(4, "little")  # its cgroup is in slot 0
    [one] = played(whole(chunk(PROCESS, fixed + CGROUP), flow(SENT, bytes(part), owner())))
    told = one.to_dict()["owner"]
    assert told["pid"] is None and told["reason"] == "orphaned"
    assert (told["cgroup"], told["unit"], told["slice"]) == (CGROUP.decode(), "a.service", "system.slice")
    assert not {"start", "start_ns", "entity_id", "comm"} & set(told)


def test_the_start_of_a_process_that_was_there_before():
    """Of which only the ticks are known."""
    known = bytearray(process(0))
    known[8 + 40 : 8 + 48] = bytes(8)
    [one] = played(whole(bytes(known), flow(SENT, owner(1), owner())))
    told = one.to_dict()["owner"]
    assert told["start_ns"] == one.owner.process.start_ns == 77 * 10_000_000


def test_whose_flow_it_is():
    about = ABOUT | {"host": "box\x1b[2J"}
    [one] = played(whole(process(0), flow(SENT, owner(1), owner()), about=about))
    assert one.host.name == about["host"] and one.host.boot_id == about["boot_id"]
    assert Template("{ev.host} {info.pid}").line(one) == "box\\x1b[2J 4000\n"
    assert json.loads(one.to_json())["host"] == about["host"]
