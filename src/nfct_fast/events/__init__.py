"""Conntrack events of one network namespace: received, decoded, counted, and recovered from the table if lost.

It knows flows and the conntrack table, but not the processes behind them.
"""
