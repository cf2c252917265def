"""Find the owner of a tuple by the BPF notes about its socket, or else by asking the kernel about its present state.

Decides whether an answer is certain enough, and gives the reason if there is none.
"""
