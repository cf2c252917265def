"""Sockets of one network namespace, and the processes that hold them: sock_diag, /proc/net, /proc/PID/fd, BPF notes.

It does not know which namespace a flow came from, or which of several answers is right.
"""
