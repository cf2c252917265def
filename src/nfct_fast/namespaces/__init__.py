"""The network namespaces of this host: their addresses, the links between them, and in which a packet can have started.

It knows how to ask a namespace for a socket, not who owns it.
"""
