"""Containers as docker, podman and unprivileged users make them: namespaces wired to a host, with programs in them."""

import contextlib
import fcntl
import socket
import struct
import subprocess

from nfct_fast.kernel.netns import Netns, resolve
from support.cli import inside as command_inside
from support.flows import COUNT, DGRAM, INET, STREAM, Worker, inode, made
from support.netns import inside, ip
from support.netns import made as made_netns
from support.users import unshared


def wire(host, other, number):
    """A veth pair: 10.88.N.1 and fd88:N::1 on the host, .2 and ::2 in the other namespace, with a default route."""
    for netns in (host, other):
        # Or nobody is asked for neighbours until the link-local address has been found to be unique, in 1 to 2 s.
        subprocess.run(command_inside(netns, ["sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0"]), check=True)
    ip("link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", other, netns=host)
    for name, netns, end in ((f"v{number}", host, 1), ("eth0", other, 2)):
        ip("addr", "add", f"10.88.{number}.{end}/24", "dev", name, netns=netns)
        ip("addr", "add", f"fd88:{number}::{end}/64", "dev", name, "nodad", netns=netns)
        ip("link", "set", name, "up", netns=netns)
    ip("route", "add", "default", "via", f"10.88.{number}.1", netns=other)
    ip("route", "add", "default", "via", f"fd88:{number}::1", netns=other)


def wire_through(host, guest):
    """Give the guest the address 10.90.0.2 and a route through the host to 10.91.0.2, which nobody has."""
    ip("link", "add", "outer", "netns", guest, "type", "veth", "peer", "name", "inner", "netns", host)
    for netns, device, address in ((host, "inner", "10.90.0.1/24"), (guest, "outer", "10.90.0.2/24")):
        ip("addr", "add", address, "dev", device, netns=netns)
        ip("link", "set", device, "up", netns=netns)
    ip("route", "add", "default", "via", "10.90.0.1", netns=guest)
    ip("link", "add", "out", "type", "veth", "peer", "name", "far", netns=host)
    ip("addr", "add", "10.91.0.1/24", "dev", "out", netns=host)
    for device in ("out", "far"):
        ip("link", "set", device, "up", netns=host)
    ip("neigh", "add", "10.91.0.2", "lladdr", "02:00:00:00:00:01", "dev", "out", netns=host)
    subprocess.run(command_inside(host, ["sysctl", "-qw", "net.ipv4.ip_forward=1"]), check=True)


@contextlib.contextmanager
def hosts(count):
    """Enter a host that forwards between `count` other namespaces; yields their names."""
    with inside() as host:
        others = []
        managers = [made_netns() for _ in range(count)]
        try:
            for number, manager in enumerate(managers):
                others.append(manager.__enter__())
                wire(host, others[-1], number + 1)
            for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
                with open(f"/proc/sys/net/{path}", "w") as forward:
                    forward.write("1")
            yield host, *others
        finally:
            for manager in managers[: len(others)]:
                manager.__exit__(None, None, None)


def within(netns, work):
    """Return the work wrapped so that it is done in that namespace."""

    def moved(worker):
        [space] = resolve(netns)
        with space, space.entered():
            return work(worker)

    return moved


def serving(netns, family, kind, address, port):
    def work(worker):
        sock = socket.socket(family, kind)
        sock.bind((address, port))
        if kind == STREAM:
            sock.listen(64)
        worker.say((port, inode(sock)))
        kept = []
        while True:
            kept.append(sock.accept() if kind == STREAM else sock.recv(100))

    return Worker(within(netns, work) if netns else work)


def clients(family, kind, address, port, src):
    def work(worker):
        socks = [socket.socket(family, kind) for _ in range(COUNT)]
        for sock in socks:
            if kind == STREAM:
                sock.connect((address, port))
            else:
                sock.sendto(b"x", (address, port))
        worker.hold()
        return [made(sock)._replace(src=src) for sock in socks]

    return work


OUTSIDE = """
table ip nat {
    chain post {
        type nat hook postrouting priority srcnat
        snat to 10.88.1.77
    }
}
"""


def mac(netns):
    with resolve(netns)[0] as space, space.entered():
        return interface_mac("eth0")


def interface_mac(name):
    with socket.socket(INET, DGRAM) as sock:
        answer = fcntl.ioctl(sock.fileno(), 0x8927, struct.pack("256s", name.encode()))  # SIOCGIFHWADDR
    return ":".join(f"{byte:02x}" for byte in answer[18:24])


def sit(worker):
    """The first process of a container: runs the commands it receives, until it is killed."""
    while True:
        words = worker.hear()
        if callable(words):
            worker.say(words())
        else:
            worker.say(subprocess.run(words, capture_output=True, text=True).stderr)


class Container:
    """A namespace made by root of an unprivileged user's namespace, to be wired to the host: 10.88.9.N, fd88:9::N."""

    def __init__(self, worker, inode):
        self.worker, self.inode, self.pid = worker, inode, worker.pid

    def run(self, *words):
        self.worker.say(words)
        assert (error := self.worker.hear()) == "", error

    def wire(self, host, end, master=None, router="10.88.9.1"):
        peer = f"u{end}"
        ip("link", "add", peer, "type", "veth", "peer", "name", "eth0", "netns", str(self.pid), netns=host)
        if master is not None:
            ip("link", "set", peer, "master", master, netns=host)
        else:
            ip("addr", "add", "10.88.9.1/24", "dev", peer, netns=host)
            ip("addr", "add", "fd88:9::1/64", "dev", peer, "nodad", netns=host)
        ip("link", "set", peer, "up", netns=host)
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "link", "set", "eth0", "up")
        self.run("ip", "addr", "add", f"10.88.9.{end}/24", "dev", "eth0")
        self.run("ip", "addr", "add", f"fd88:9::{end}/64", "dev", "eth0", "nodad")
        self.run("ip", "route", "add", "default", "via", router)
        self.run("ip", "route", "add", "default", "via", "fd88:9::1")


@contextlib.contextmanager
def container(uid=65534):
    with unshared(sit, uid) as (worker, inode):
        yield Container(worker, inode)


def bridge(host, name="br9"):
    ip("link", "add", name, "type", "bridge", netns=host)
    ip("addr", "add", "10.88.9.1/24", "dev", name, netns=host)
    ip("addr", "add", "fd88:9::1/64", "dev", name, "nodad", netns=host)
    ip("link", "set", name, "up", netns=host)
    return name


def in_user_namespace(pid, work):
    """Return the work wrapped so that the host's root does it in the namespaces of that process."""

    def run(worker):
        with Netns(f"/proc/{pid}/ns/net") as space, space.entered():
            return work(worker)

    return run
