"""What is wrong and how to mend it, for operators: as a sentence, and in parts for whoever arranges them otherwise."""


class Problem(str):
    """A sentence that says what is wrong and what to do about it.

    Attributes:
        what: What is wrong, a str.
        remedy: The shell command that mends it, a str; None if there is no single one.
    """

    __slots__ = ("remedy", "what")

    def __new__(cls, what, advice=None, remedy=None):
        """advice: What the command does, in words that it follows; without a command, what to do, as a sentence."""
        self = super().__new__(cls, what + (f". {advice}" if advice else "") + (f" `{remedy}`" if remedy else ""))
        self.what, self.remedy = what, remedy
        return self
