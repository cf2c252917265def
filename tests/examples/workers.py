"""Look up names of destinations in worker processes, which may take their time: python workers.py [WORKERS]

The workers are started before the Conntrack is opened, and get plain values: a Conntrack does not survive a fork.
"""

import multiprocessing
import queue
import signal
import socket
import sys
from typing import Any

from nfct_fast import Conntrack, Flow

Job = tuple[str, int | None, str]  # address, port, program


def job(flow: Flow) -> Job:
    process = flow.owner.process
    return flow.dst, flow.dport, (process.comm if process is not None else None) or "?"


def work(jobs: "multiprocessing.Queue[Job | None]") -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us, after the last job
    while (task := jobs.get()) is not None:
        address, port, program = task
        try:
            name = socket.getnameinfo((address, port or 0), 0)[0]
        except OSError:
            name = address
        print(f"{program} > {name} {port}", flush=True)


def main(count: int) -> None:
    context: Any = multiprocessing.get_context("fork")
    jobs: multiprocessing.Queue[Job | None] = context.Queue(10_000)
    workers = [context.Process(target=work, args=(jobs,)) for _ in range(count)]
    for worker in workers:
        worker.start()
    dropped = 0
    with Conntrack(protocol="tcp|udp") as conntrack:
        signal.signal(signal.SIGINT, lambda *_: conntrack.stop())
        signal.signal(signal.SIGTERM, lambda *_: conntrack.stop())
        print("ready", flush=True)
        for flow in conntrack:
            try:
                jobs.put_nowait(job(flow))
            except queue.Full:
                dropped += 1  # rather than to wait, until the kernel's buffer is full too
    for _ in workers:
        jobs.put(None)
    for worker in workers:
        worker.join()
    print(f"{dropped} jobs dropped", file=sys.stderr)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4)
