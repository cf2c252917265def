"""The network namespaces of this host: their addresses, the links between them, and where a packet may come from.

It can look up a socket in a namespace; it does not know who owns the socket.
"""
