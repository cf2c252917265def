"""Processes: their facts from /proc and from the kernel's fork, exec and exit events, and their cgroups.

It knows nothing of sockets or flows.
"""
