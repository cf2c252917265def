"""The privileges that the program gives up once everything is open: its user, capabilities, and most system calls."""

import os
import socket

from nfct_fast.kernel import privileges, sandbox
from nfct_fast.kernel.child_process import spawn
from nfct_fast.kernel.program_user import NOBODY

_RANDOM = ("/dev/urandom",)  # SQLite reads it
_ZONES = ("/etc/localtime", "/usr/share/zoneinfo")


class Rights:
    """The privileges that each thread gives up, for good, by calling drop(); by default only capabilities.

    Steps that the kernel or the environment does not permit are skipped, and `reasons` has a sentence for each.

    Args:
        user: The user and group id to switch to; None to stay the same user.
        filter_calls: Whether to allow only the system calls that are still needed.
        find_owners: Whether owners are looked for; if not, only time zone files can be read.
        use_helpers: Whether helper processes do what needs privileges over other users' files; see spawn_helper().
        use_terminal: Whether the modes of an open terminal may still be set.
    """

    def __init__(self, *, user=None, filter_calls=False, find_owners=True, use_helpers=False, use_terminal=False):
        self._user, self._filter_calls, self.use_terminal = user, filter_calls, use_terminal
        if find_owners:
            self._keep = ("net_admin", "sys_ptrace") if use_helpers else privileges.KEPT
        else:
            self._keep = ("net_admin",)
        self._enter_namespaces = find_owners and not use_helpers
        # None if owners are looked for: Landlock would forbid inspecting other processes.
        self._files = None if find_owners else _ZONES
        self.spawn_helper = self._spawn_helper if use_helpers else None
        # What is opened later has to be opened by a helper; see spawn_opener().
        self.confine_files = filter_calls or user is not None
        # Whose files may be appended to, beside root's: not nobody's, as others may run as nobody.
        self.trusted_users = () if user is None or user[0] == NOBODY else (user[0],)
        self.reasons = []
        if filter_calls and (use_helpers or not find_owners) and not sandbox.has_landlock():
            self.reasons.append(sandbox.NO_LANDLOCK)

    def drop(self) -> None:
        """Give up the privileges. Call first in each thread. OSError if capabilities cannot be dropped."""
        self._drop(self._keep, self._enter_namespaces, self._files, terminal=self.use_terminal)

    @property
    def user(self) -> tuple[int, int] | None:
        """The user and group id that drop() switches to; None if it stays the same user."""
        return self._user if self._user is not None and self._user[0] != os.geteuid() else None

    def confine(self, directory) -> list[str]:
        """Give up everything, in a process of its own, but reading and writing files in one directory.

        Returns a sentence for each step that the kernel does not permit. OSError if capabilities cannot be dropped.
        """
        self.reasons = []
        if self.user is not None:
            # Not as root if that fails: files would be root's, and then nobody else could go on with them.
            privileges.become(*self.user)
        if self._filter_calls:
            privileges.hide()
        privileges.drop(())
        if self._filter_calls:
            self._try(sandbox.ALL_FILES, lambda: sandbox.restrict_files(_RANDOM, [directory]))
            self._try("can still use every system call", lambda: self._filter(files=True))
        return [f"nfct-store {reason}" for reason in self.reasons]

    def _drop(self, keep, enter_namespaces, files, **filter_options):
        if self._user is not None and self._user[0] != os.geteuid():
            self._try("still runs as the user who started it", lambda: privileges.become(*self._user))
        if self._filter_calls:
            privileges.hide()
        privileges.drop(keep)
        if self._filter_calls and files is not None:
            self._try(sandbox.ALL_FILES, lambda: sandbox.restrict_files(files))
        if self._filter_calls:
            self._try("can still use every system call", lambda: self._filter(setns=enter_namespaces, **filter_options))

    @staticmethod
    def _filter(**options):
        if not sandbox.restrict_calls(thread=True, **options):
            raise OSError(f"the filter does not support {os.uname().machine}")

    def _try(self, otherwise, step):
        try:
            step()
        except OSError as error:
            sentence = f"{otherwise}: {error.strerror or error}"
            if sentence not in self.reasons:
                self.reasons.append(sentence)

    def spawn_opener(self, name, prepare) -> tuple[int, int]:
        """Fork a helper as _spawn_helper() does, which stays the user who started it and keeps CAP_DAC_OVERRIDE.

        So it can open anew what a log's rotation has moved away; it must do nothing else that it is asked for.
        """
        return self._spawn(socket.SOCK_SEQPACKET, name, prepare, self._drop_for_opening, ())

    @staticmethod
    def _drop_for_opening():
        privileges.hide()
        privileges.drop(("dac_override",))

    def _spawn_helper(self, name, prepare, keep, enter_namespaces=False) -> tuple[int, int]:
        """Fork a helper process that runs prepare()(fd); return its pid and a socket connected to fd.

        The helper ignores all signals but SIGKILL, and ends when the socket is closed. Call while there is only one
        thread.

        Args:
            name: Name of the process.
            prepare: Called with all privileges; its result is called with only the capabilities `keep`.
            keep: Names of capabilities.
            enter_namespaces: Whether the helper goes on entering network namespaces, and reads no files except /proc.

        Raises:
            OSError: The process cannot be started.
        """
        files = ["/proc"] if enter_namespaces else None
        return self._spawn(socket.SOCK_SEQPACKET, name, prepare, lambda: self._drop(keep, enter_namespaces, files), ())

    def spawn_server(self, name, prepare, listener) -> tuple[int, int]:
        """Fork a process that talks to strangers: without capabilities and files, and with system calls to accept.

        Args:
            name: Name of the process.
            prepare: Called with all privileges; its result is called without any, with its end of a stream socket and
                the descriptor of the socket that listens.
            listener: The descriptor of that socket here.

        Returns, raises and ends as spawn_helper() does.
        """
        return self._spawn(
            socket.SOCK_STREAM, name, prepare, lambda: self._drop((), False, (), accept=True), (listener,)
        )

    @staticmethod
    def _spawn(kind, name, prepare, drop, passed):
        def work(*fds):
            prepared = prepare()
            drop()
            prepared(*fds)

        return spawn(kind, name, work, passed)
