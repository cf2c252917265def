"""What is said of a store that cannot be used."""


class StoreError(Exception):
    """A directory or file of a store cannot be used; the text says why, and what to do about it."""
