"""Measure looking up one socket among many: as root, python tests/bench/bench_sockdiag.py

The sockets are opened in a separate network namespace. "shared" also finds out whether others share the port, by a walk
through the kernel's table of UDP sockets or listeners. Looking up a connected socket does not need that.
"""

import os
import resource
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from nfct_fast.testing.diag_client import SockDiag, benchmark
from support.netns import inside

ROUNDS = 5


def main():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sizes = [size for size in (200, 2_000, 16_000) if hard == resource.RLIM_INFINITY or size + 100 < hard]
    with inside(), SockDiag() as diag:
        server = socket.create_server(("127.0.0.1", 0))
        client = socket.create_connection(server.getsockname())
        connected = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        connected.connect(("127.0.0.1", 9))
        plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        plain.sendto(b"", ("127.0.0.1", 9))
        rows = [
            ("TCP connection", socket.IPPROTO_TCP, client, server.getsockname()[1], False, 2000),
            ("TCP listener", socket.IPPROTO_TCP, server, 9, False, 2000),
            ("TCP listener, shared", socket.IPPROTO_TCP, server, 9, True, 200),
            ("UDP connected", socket.IPPROTO_UDP, connected, 9, False, 2000),
            ("UDP unconnected", socket.IPPROTO_UDP, plain, 9, False, 2000),
            ("UDP unconnected, shared", socket.IPPROTO_UDP, plain, 9, True, 100),
        ]
        others = []
        table = {name: [] for name, *_ in rows}
        for size in sizes:
            # Half of them connected UDP, half listening TCP.
            while len(others) < size:
                sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if len(others) % 2 else socket.SOCK_STREAM)
                sock.bind(("127.0.0.1", 0))
                if len(others) % 2 == 0:
                    sock.listen()
                others.append(sock)
            best = {}
            for _ in range(ROUNDS):
                for name, proto, sock, dport, check, count in rows:
                    ns, inode = benchmark(
                        diag, proto, "127.0.0.1", sock.getsockname()[1], "127.0.0.1", dport, check, count
                    )
                    if inode != os.fstat(sock.fileno()).st_ino:
                        sys.exit(f"{name}: the wrong socket was found")
                    best[name] = min(ns, best.get(name, ns))
            for name, ns in best.items():
                table[name].append(ns / 1000)
    print(f"{'us per look-up, sockets:':28}" + "".join(f"{size:>10,}" for size in sizes))
    for name, row in table.items():
        print(f"{name:28}" + "".join(f"{us:10.1f}" for us in row))


if __name__ == "__main__":
    main()
