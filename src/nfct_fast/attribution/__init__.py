"""From a tuple to its owner: by what BPF noted of the very socket, else by asking the kernel as it is now.

It decides what is certain enough to be named, and why not where it is not.
"""
