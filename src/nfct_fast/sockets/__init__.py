"""Sockets of one network namespace and the processes that hold them: sock_diag, /proc/net, /proc/PID/fd, and the BPF
programs that note who used a socket.

It knows nothing of which namespace a flow came from, or which of several answers is right.
"""
