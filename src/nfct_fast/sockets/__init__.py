"""Sockets of one network namespace, and the processes that hold them: sock_diag, /proc/net, /proc/PID/fd, BPF notes.

Does not know from which namespace a flow came, or which of several answers is right.
"""
