"""Find the owner of a tuple by the BPF notes about its socket, or else by querying the kernel's present state.

It decides whether an answer is certain enough, and gives the reason if there is none.
"""
