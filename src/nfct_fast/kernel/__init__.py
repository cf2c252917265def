"""What the kernel offers every program: /proc, netlink, network namespaces, capabilities, and helper processes.

It knows nothing of flows, sockets or owners. Every other package may use it.
"""
