"""What a file is refused with that cannot be played."""


class RecordingError(Exception):
    """This is not a recording, or it is damaged; what was read before that has been played."""
