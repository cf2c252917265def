"""An unprivileged attacker, and the victim that it tries to have named in its place."""

import contextlib
import socket

from support.flows import DGRAM, STREAM, Worker, collect_count
from support.users import as_user

VICTIM, ATTACKER, PORT = 65534, 4321, 5151
IP_PKTINFO, IPV6_PKTINFO, IP_FREEBIND, IPV6_FREEBIND, IP_TRANSPARENT, IPPROTO_MPTCP = 8, 50, 15, 78, 19, 262


def by_user(uid, work):
    """A Worker that runs as this user until the block ends."""

    def run(worker):
        if uid:
            as_user(uid)
        kept = work(worker)
        worker.say("done")
        worker.hear()
        return kept

    return Worker(run)


def serve(family, address, port, *options, kind=DGRAM):
    def work(worker):
        sock = socket.socket(family, kind)
        for level, option in options:
            sock.setsockopt(level, option, 1)
        sock.bind((address, port))
        if kind == STREAM:
            sock.listen()
        return sock

    return work


def send(family, address, port, to, *options):
    def work(worker):
        sock = serve(family, address, port, *options)(worker)
        sock.sendto(b"x", to)
        return sock

    return work


@contextlib.contextmanager
def done(*workers):
    with contextlib.ExitStack() as stack:
        for worker in workers:
            stack.enter_context(worker)
            assert worker.hear() == "done"
        yield


def heard(conntrack, wanted):
    """Return the first flow for which wanted(flow) is true."""
    flows = collect_count(conntrack, wanted, 1)
    assert flows, "no such flow was reported"
    return flows[0]
