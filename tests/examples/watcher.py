"""Watch for flows to a port in an event loop, as a service of systemd: python watcher.py PORT

For a unit with Type=notify and WatchdogSec=: it says when it is ready, shows its counts in `systemctl status`, and is
restarted if its loop hangs.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys

from nfct_fast import Conntrack, Flow, Lost


def notify(state: str) -> None:
    """Send a state to systemd, if that started us: see sd_notify(3)."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            # "@" stands for an abstract address.
            sock.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


async def report(conntrack: Conntrack[Flow | Lost]) -> None:
    """Keep the watchdog calm and the status current, as long as the loop runs."""
    seconds = int(os.environ.get("WATCHDOG_USEC", "10000000")) / 1e6 / 2
    while True:
        stats = conntrack.stats()
        notify(f"WATCHDOG=1\nSTATUS={stats.events} events, {stats.lost} lost")
        await asyncio.sleep(seconds)


async def watch(conntrack: Conntrack[Flow | Lost], port: int) -> None:
    async for flow in conntrack:
        if isinstance(flow, Lost):
            print(f"{flow.count} events lost", flush=True)
        elif flow.dport == port:
            print(f"{flow.src} > {flow.dst}: {flow.owner.process or flow.owner.reason}", flush=True)


async def main(port: int) -> None:
    loop = asyncio.get_running_loop()
    with Conntrack(protocol="tcp|udp", on_loss="yield") as conntrack:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, conntrack.stop)
        notify("READY=1")
        reporting = asyncio.create_task(report(conntrack))
        await watch(conntrack, port)  # until stop(), and then what had come before
        notify("STOPPING=1")
        reporting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reporting


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
