"""Processes: what /proc and the kernel's fork, exec and exit events say of them, and their cgroups.

It knows neither sockets nor flows.
"""
