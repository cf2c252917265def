"""The program's side of nfct-store: starts the process, hands it the pipe, hears what it says, and notices its end."""

import fcntl
import json
import os
import signal
import socket
from _thread import allocate_lock, start_new_thread

from nfct_fast.kernel.child_process import spawn
from nfct_fast.store.place import prepare
from nfct_fast.store.retention import DAYS, SIZE
from nfct_fast.store.store_error import StoreError
from nfct_fast.store.store_process import NAME, be_store

_START_S = 10.0  # the longest wait for the process to be ready
_PIPE_BYTES = 1 << 20
_MESSAGE_MAX = 1 << 16


class StoreLink:
    """A running nfct-store. Start it while there is only one thread, as it is forked.

    Args:
        directory: Of the store; made if it is not there.
        days, size: See Retention; None for the usual ones.
        rights: A Rights, whose confine() the process calls.

    Raises:
        StoreError: There can be no store; no process is left.
    """

    def __init__(self, directory, days, size, rights):
        self.stored = self.unstored = 0
        self.failure = None  # a StoreError once the process has ended before it was asked to
        self.path = prepare(directory, rights.user)
        self._done = False
        self._ended = allocate_lock()  # released when nothing is heard any more
        self._ended.acquire()
        self._listening = False
        self._notices = self._on_end = self._socket = None
        read, self.pipe = os.pipe2(os.O_CLOEXEC)
        usual = DAYS if days is None else days, SIZE if size is None else size
        try:
            self.pid, fd = spawn(
                socket.SOCK_SEQPACKET,
                NAME,
                lambda channel, pipe: be_store(channel, pipe, self.path, *usual, rights.confine),
                (read,),
            )
            self._socket = socket.socket(fileno=fd)
            try:
                fcntl.fcntl(self.pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            except OSError:
                pass  # a smaller one does as well
            self._socket.settimeout(_START_S)
            self.reasons = self._first_answer()
            self._socket.settimeout(None)
        except BaseException:
            os.close(self.pipe)
            if self._socket is not None:
                self._socket.close()
            raise
        finally:
            os.close(read)

    def _first_answer(self):
        try:
            facts = json.loads(self._socket.recv(_MESSAGE_MAX) or b"{}")
        except TimeoutError:
            facts = {"error": f"{NAME} does not start"}
        if not facts.get("ready"):
            self._end_process(kill=True)
            raise StoreError(facts.get("error") or f"{NAME} ended at once")
        return facts["reasons"]

    def _end_process(self, kill=False):
        """Reap it, and say how it ended."""
        if kill:
            os.kill(self.pid, signal.SIGKILL)
        try:
            _, status = os.waitpid(self.pid, 0)
        except ChildProcessError:  # somebody else's waitpid() was faster
            return "it ended"
        code = os.waitstatus_to_exitcode(status)
        return f"killed by signal {-code}" if code < 0 else f"exit status {code}"

    def listen(self, notices, on_end, drop_rights) -> None:
        """Start the thread that hears what the process says.

        Args:
            notices: A Notices, for what an operator should know.
            on_end: Called if the process ends without having been asked to; `failure` says why.
            drop_rights: Called first in the thread, to give up its privileges; or None.
        """
        self._notices, self._on_end = notices, on_end
        for reason in self.reasons:
            notices.add(reason)
        self._listening = True
        start_new_thread(self._listen, (drop_rights,))

    def _listen(self, drop_rights):
        error = None
        try:
            if drop_rights is not None:
                drop_rights()
            while data := self._socket.recv(_MESSAGE_MAX):
                facts = json.loads(data)
                self.stored = facts.get("stored", self.stored)
                self.unstored = facts.get("unstored", self.unstored)
                self._done = self._done or facts.get("done", False)
                error = facts.get("error", error)
                if "notice" in facts:
                    self._notices.add(facts["notice"])
            if not self._done:
                how = error or self._end_process()
                self.failure = StoreError(f"{NAME}, which writes the store {self.path}, has ended: {how}")
                self._on_end()
            else:
                self._end_process()
        except OSError as failure:
            self.failure = StoreError(f"{NAME} is not heard any more: {failure.strerror}")
            self._on_end()
        finally:
            self._ended.release()

    def take_pipe(self) -> int:
        """Return the descriptor to write the recording to, which is the caller's from now on."""
        pipe, self.pipe = self.pipe, -1
        return pipe

    def close_pipe(self) -> None:
        """Close it if nobody took it: the process ends then."""
        pipe, self.pipe = self.pipe, -1
        if pipe >= 0:
            os.close(pipe)

    def finish(self, seconds) -> bool:
        """After the pipe was closed: wait until all is stored; False if that takes longer."""
        if not self._listening:  # nothing was ever written
            self._end_process(kill=True)
            return True
        if self._ended.acquire(timeout=max(0.0, seconds)):
            self._ended.release()
            return True
        return False

    def abandon(self) -> None:
        """Close the descriptors in a forked child, which has a copy of them. What took the pipe closes it."""
        self._socket.close()
        self.close_pipe()
