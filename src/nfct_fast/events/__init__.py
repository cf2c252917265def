"""Conntrack events of one network namespace: received, decoded, counted, and recovered from the table if lost.

It knows flows and the conntrack table, and nothing of the processes behind them.
"""
