"""A flow with its owners, as C structs in a ring and as immutable Python objects."""
