"""The network namespaces of this host: their addresses, the links between them, and in which one a packet can have
started.

This package can look up a socket in a namespace; it does not know who owns the socket.
"""
