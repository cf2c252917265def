"""A process of a test that ends with it."""

import signal
import subprocess
import time


class Child(subprocess.Popen):
    """A Popen that is killed if its block raises: as a failed test, it would be waited for, perhaps for ever."""

    def __exit__(self, kind, *rest):
        if kind is not None:
            self.kill()
        super().__exit__(kind, *rest)

    def stand_still(self, seconds=1.5):
        """Stop it for a while, as a hypervisor may stop the machine."""
        self.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.send_signal(signal.SIGCONT)
