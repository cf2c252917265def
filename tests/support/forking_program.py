"""A program with a Conntrack that forks: its child must not affect it. Run by reading/test_fork.py.

Prints as JSON how many of 20 programs were reported with their command lines before and after a child did what argv[1]
says, what the child found, and the CPU time that this process took in an idle second afterwards.
"""

import gc
import json
import multiprocessing
import os
import select
import socket
import subprocess
import sys
import time

from nfct_fast import Conntrack

SENDER = "import socket, sys; s = socket.socket(2, 2); s.connect(('127.0.0.1', int(sys.argv[1]))); s.send(b'x')"
COUNT = 20


def open_all():
    return sorted(
        os.readlink(f"/proc/self/fd/{fd}").split(":")[0]
        for fd in os.listdir("/proc/self/fd")
        if os.path.lexists(f"/proc/self/fd/{fd}")
    )


def known(conntrack, port):
    """Return how many of COUNT programs that live for a few milliseconds are reported with their own command lines."""
    for number in range(COUNT):
        subprocess.run([sys.executable, "-SE", "-c", SENDER, str(port + number)], check=True)
    found, deadline = set(), time.monotonic() + 5
    while len(found) < COUNT and time.monotonic() < deadline:
        for flow in conntrack.read(timeout=0.2):
            if flow.owner.process and flow.owner.process.cmdline and flow.owner.process.cmdline[-1] == str(flow.dport):
                found.add(flow.dport)
    return len(found)


def refusals(conntrack):
    """Return the names of the methods of a Conntrack that do not refuse to work here."""
    uses = {
        "read": lambda: conntrack.read(timeout=0),
        "next_batch": lambda: conntrack._next_batch(0),
        "next": lambda: next(conntrack),
        "batches": lambda: conntrack.batches(),
        "next of batches": lambda: next(batches_of_parent),
        "fileno": conntrack.fileno,
        "stats": conntrack.stats,
        "stop": conntrack.stop,
        "lost": lambda: conntrack.lost,
        "recovered": lambda: conntrack.recovered,
        "degraded": lambda: conntrack.degraded,
        "unreported": lambda: conntrack.unreported,
        "watch": lambda: conntrack._watch(0),
        "enter": conntrack.__enter__,
    }
    worked = []
    for name, use in uses.items():
        try:
            use()
            worked.append(name)
        except RuntimeError as error:
            assert "fork" in str(error), error
    return worked


def use_own():
    """Check that a Conntrack made here works."""
    with Conntrack(protocol="udp", probe=False) as own, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(("127.0.0.1", 7))
        sender.send(b"x")
        return own.read(timeout=5)[0].owner.pid == os.getpid()


def child(conntrack, how, before):
    """Runs in the child; returns what it found."""
    began = time.monotonic()
    worked = refusals(conntrack)
    if how == "with":
        with_block = conntrack.__exit__
        with_block(None, None, None)
    elif how in ("close", "pool"):
        conntrack.close()
        conntrack.close()
    left = [name for name in open_all() if name in ("socket", "anon_inode")]
    return {"worked": worked, "left": len(left) - before, "own": use_own(), "seconds": time.monotonic() - began}


def forked(conntrack, how, before):
    read, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write)
        with open(read) as answer:
            found = json.loads(answer.read() or "null")
        return {**found, "status": os.waitpid(pid, 0)[1]}
    os.write(write, json.dumps(child(conntrack, how, before)).encode())
    if how == "forget":
        globals().clear()
        del conntrack
        import gc

        gc.collect()
    elif how == "die":
        import signal

        signal.raise_signal(signal.SIGKILL)
    import sys

    sys.exit(0)  # and all that an interpreter does at its end


conntrack_of_pool = batches_of_parent = None


def in_pool(how, before):
    return child(conntrack_of_pool, how, before)


def main(how):
    global conntrack_of_pool, batches_of_parent
    before = sum(name in ("socket", "anon_inode") for name in open_all())
    conntrack = Conntrack(protocol="udp", probe=False)
    batches_of_parent = conntrack.batches()
    result = {"before": known(conntrack, 20000)}
    if how == "pool":
        conntrack_of_pool = conntrack
        with multiprocessing.get_context("fork").Pool(1) as pool:
            # The pool's own pipes are no descriptors of ours.
            result["child"] = {**pool.apply(in_pool, (how, before)), "left": 0, "status": 0}
    else:
        result["child"] = forked(conntrack, how, before)
    result["after"] = known(conntrack, 30000)
    used = time.process_time()
    assert not select.select([conntrack], [], [], 1)[0]
    result["cpu"] = time.process_time() - used
    conntrack.close()
    del conntrack
    conntrack_of_pool = batches_of_parent = None
    gc.collect()
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
