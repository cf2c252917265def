"""What the program gives up once all is open: its user, its capabilities, and nearly all system calls."""
import os
import pwd
import signal
import socket

from nfct_fast.kernel import privileges, sandbox

USER = "nfct-fast"
_NOBODY = 65534
_ALL_FILES = "goes on with all files that its user may read"
_ZONES = ("/etc/localtime", "/usr/share/zoneinfo")


def find_user(name=None) -> tuple[int, int]:
    """Ids of that user and of its group; by default of `nfct-fast`, or where there is none of nobody. LookupError."""
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
    """What each thread gives up for itself in settle(), for good; by default only capabilities.

    user: its ids from then on, None to stay who it is. filtered: only the system calls that are needed go on to be
    allowed. looks: owners are looked for; else no file is read but those of time zones. split: what takes the rights to
    look into others' files is left to processes of its own, see spawn_helper(). What this kernel or who started it does not permit
    is left out, and is in `reasons`, one sentence for each.
    """

    def __init__(self, *, user=None, filtered=False, looks=True, split=False):
        self._user, self._filtered = user, filtered
        self._keep = ("net_admin",) if not looks else ("net_admin", "sys_ptrace") if split else privileges.KEPT
        self._enters = looks and not split
        self._files = None if looks else _ZONES     # to look at other processes, Landlock forbids
        self.spawn_helper = self._spawn_helper if split else None
        self.reasons = []
        if filtered and (split or not looks) and not sandbox.has_landlock():
            self.reasons.append(f"{_ALL_FILES}: this kernel has no Landlock, or it is not enabled")

    def settle(self) -> None:
        """To be called in each thread before it begins to work. OSError if even capabilities cannot be given up."""
        self._settle(self._keep, self._enters, self._files)

    def _settle(self, keep, enters, files):
        if self._user is not None and self._user[0] != os.geteuid():
            self._try("goes on as the user who started it", lambda: privileges.become(*self._user))
        if self._filtered:
            privileges.hide()
        privileges.drop(keep)
        if self._filtered and files is not None:
            self._try(_ALL_FILES, lambda: sandbox.restrict_files(files))
        if self._filtered:
            self._try("goes on with all system calls", lambda: self._filter(enters))

    @staticmethod
    def _filter(enters):
        if not sandbox.restrict_calls(setns=enters, thread=True):
            raise OSError(f"those of {os.uname().machine} are not known to it")

    def _try(self, otherwise, step):
        try:
            step()
        except OSError as error:
            sentence = f"{otherwise}: {error.strerror or error}"
            if sentence not in self.reasons:
                self.reasons.append(sentence)

    def _spawn_helper(self, name, prepare, keep, enters=False) -> tuple[int, int]:
        """Have prepare()(fd) done by a process of that name: its id, and the other end of fd.

        Between the two it gives up all but the capabilities `keep`; enters: it goes on to enter network namespaces, and has
        no use for files but those of /proc. It sees no signal but SIGKILL, and ends when the other end is closed. To be called
        as long as there is one thread. OSError.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            pid = os.fork()
            if pid == 0:
                self._work(name, prepare, keep, enters, theirs.fileno())
            return pid, ours.detach()

    def _work(self, name, prepare, keep, enters, fd):
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            nothing = os.open(os.devnull, os.O_RDWR)
            for standard in range(3):
                os.dup2(nothing, standard)
            fd = os.dup2(fd, 3)
            os.closerange(4, os.sysconf("SC_OPEN_MAX"))
            with open("/proc/self/comm", "w") as comm:
                comm.write(name)
            work = prepare()
            self._settle(keep, enters, ["/proc"] if enters else None)
            work(fd)
        finally:
            os._exit(0)
