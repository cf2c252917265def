"""What the kernel offers every program: /proc, netlink, network namespaces, capabilities, and helper processes.

It knows nothing of flows, sockets or owners. Everything above may use it.
"""
