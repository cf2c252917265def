"""Conntrack events of one network namespace: received, decoded, counted, and made up for when some were lost.

It knows flows and the conntrack table, and nothing of who made a flow.
"""
