"""A process of a test that ends with it."""

import subprocess


class Child(subprocess.Popen):
    """A Popen that is killed if its block raises: as a failed test, it would be waited for, perhaps for ever."""

    def __exit__(self, kind, *rest):
        if kind is not None:
            self.kill()
        super().__exit__(kind, *rest)
