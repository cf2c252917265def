"""Bytes for output: a growing buffer with escaping, and the names of protocols, states and moments.

It knows how values are written, not where they come from.
"""
