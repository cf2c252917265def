"""Text for output: a growing buffer with escaping, the names of protocols and states, and time stamps.

It knows how values are written, not where they come from.
"""
