"""The error of a server that cannot be asked, or whose answer is none."""


class ClickHouseError(OSError):
    """ClickHouse cannot be reached, refuses, or answers something else than was asked for; the text says what to do."""
