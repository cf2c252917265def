"""An interactive shell on a terminal of its own, and what is typed there to be completed."""

import os
import pty

from support.cli import until


class Typed:
    """The shell that `command` starts, after it has run `setup`."""

    def __init__(self, command, setup):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir("/")
            os.execvpe(command[0], command, {"PATH": "/usr/bin:/bin", "TERM": "dumb", "PS1": "$ ", "HOME": "/"})
        os.set_blocking(self.fd, False)
        self.shown = ""
        self.type(f"{setup}; echo re''ady\n")
        self.await_text("ready")

    def type(self, text):
        self.shown = ""
        os.write(self.fd, text.encode())

    def await_text(self, text):
        def is_shown():
            try:
                self.shown += os.read(self.fd, 65536).decode(errors="replace")
            except BlockingIOError:
                pass
            return text in self.shown

        try:
            until(is_shown, what=f"{text!r}")
        except AssertionError as error:
            error.add_note(f"what is shown: {self.shown!r}")
            raise

    def completes(self, typed, to):
        self.type(typed + "\t")
        self.await_text(to)
        self.type("\x15")  # ^U

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        os.close(self.fd)
        os.waitpid(self.pid, 0)


def bash(path, prefix=()):
    """An interactive bash with the completion in a file."""
    return Typed([*prefix, "bash", "--norc", "--noprofile", "-i"], f"bind 'set bell-style none'; . {path}")


def zsh(path, prefix=()):
    """An interactive zsh with the completion in a file."""
    return Typed([*prefix, "zsh", "-f", "-i"], f"unsetopt beep; autoload -U compinit; compinit -u -D; . {path}")


def try_all(shell, namespace):
    """Have a shell complete options, values and words of the filter; `namespace` is the name of one that exists."""
    shell.completes("nfct-fast --comp", "--completion")
    shell.completes("nfct-fast --attribution di", "diag ")
    shell.completes(f"nfct-fast --netns {namespace[:-1]}", f"{namespace} ")
    shell.completes("nfct-fast --replay /etc/passw", "/etc/passwd")
    shell.completes("nfct-fast --user nobod", "nobody ")
    shell.completes("nfct-fast dport 22 and containe", "container ")
    shell.completes("nfct-fast user nobod", "nobody ")
    shell.completes("nfct-fast dir forw", "forward ")
    shell.completes("nfct-fast fin", "find ")
    shell.completes("nfct-fast find --aler", "--alert")


# What fish offers for a command line: some of it.
OF_FISH = {
    "--comp": "--completion",
    "--attribution ": "diag",
    "--replay /etc/passw": "/etc/passwd",
    "--user nobod": "nobody",
    "dport 22 and containe": "container",
    "user nobod": "nobody",
    "fin": "find",
    "find --aler": "--alert",
}


def fish(path, line):
    """The command that prints what fish completes."""
    return ["fish", "--no-config", "-c", f"source {path}; complete -C 'nfct-fast {line}'"]
