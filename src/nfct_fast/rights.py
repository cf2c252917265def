"""The privileges that the program gives up once everything is open: its user, capabilities, and most system calls."""

import fcntl
import os
import pwd
import signal
import socket

from nfct_fast.kernel import privileges, sandbox

USER = "nfct-fast"
_NOBODY = 65534
_ALL_FILES = "can still read every file that its user may read"
_ZONES = ("/etc/localtime", "/usr/share/zoneinfo")


def find_user(name=None) -> tuple[int, int]:
    """Return the user and group id of a user: by default `nfct-fast`, or nobody if there is no such user.

    Raises:
        LookupError: There is no user `name`.
    """
    for one in (USER, "nobody") if name is None else (name,):
        try:
            entry = pwd.getpwnam(one)
            return entry.pw_uid, entry.pw_gid
        except KeyError:
            continue
    if name is not None:
        raise LookupError(f"there is no user {name!r}")
    return _NOBODY, _NOBODY


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
        self.trusted_users = () if user is None or user[0] == _NOBODY else (user[0],)
        self.reasons = []
        if filter_calls and (use_helpers or not find_owners) and not sandbox.has_landlock():
            self.reasons.append(f"{_ALL_FILES}: this kernel has no Landlock, or it is not enabled")

    def drop(self) -> None:
        """Give up the privileges. Call first in each thread. OSError if capabilities cannot be dropped."""
        self._drop(self._keep, self._enter_namespaces, self._files, terminal=self.use_terminal)

    def _drop(self, keep, enter_namespaces, files, **filter_options):
        if self._user is not None and self._user[0] != os.geteuid():
            self._try("still runs as the user who started it", lambda: privileges.become(*self._user))
        if self._filter_calls:
            privileges.hide()
        privileges.drop(keep)
        if self._filter_calls and files is not None:
            self._try(_ALL_FILES, lambda: sandbox.restrict_files(files))
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

    def _spawn(self, kind, name, prepare, drop, passed):
        ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
        with ours, theirs:
            pid = os.fork()
            if pid == 0:
                self._work(name, prepare, drop, (theirs.fileno(), *passed))
            return pid, ours.detach()

    @staticmethod
    def _work(name, prepare, drop, fds):
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            nothing = os.open(os.devnull, os.O_RDWR)
            for standard in range(3):
                os.dup2(nothing, standard)
            # First out of the way, as one may have the number that another is to get.
            fds = [fcntl.fcntl(fd, fcntl.F_DUPFD, 3 + len(fds)) for fd in fds]
            fds = [os.dup2(fd, number) for number, fd in enumerate(fds, 3)]
            os.closerange(3 + len(fds), os.sysconf("SC_OPEN_MAX"))
            with open("/proc/self/comm", "w") as comm:
                comm.write(name)
            work = prepare()
            drop()
            work(*fds)
        finally:
            os._exit(0)
