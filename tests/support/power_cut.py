"""What a power cut leaves of files, of which strace(1) has seen every write: all that was there at the last fsync(2) of
each, and any part of what was written to it since."""

import re
from pathlib import Path

SECTOR = 512
_CALLS = "openat,pwrite64,write,fsync,fdatasync,ftruncate,unlink,unlinkat,rename,renameat,renameat2"
STRACE = ("strace", "-f", "-y", "-qq", "-xx", "-s", "2000000", "-e", f"trace={_CALLS}", "-e", "signal=none")
_LINE = re.compile(r"(?:\d+ +)?(\w+)\((.*)\) += (-?\d+).*")
_FILE = re.compile(r'(\d+)<([^>]*)>, "([^"]*)"(?:\.\.\.)?, (\d+)(?:, (\d+))?')


def _bytes(text):
    return bytes.fromhex(text.replace("\\x", ""))


def _calls(log):
    """Calls as strace has them, of which those that were interrupted by another thread's are put together again."""
    begun = {}
    for line in Path(log).read_text(errors="replace").splitlines():
        pid, _, rest = line.partition(" ")
        if "<unfinished ...>" in rest:
            begun[pid] = rest.split("<unfinished ...>")[0].strip()
            continue
        if "resumed>" in rest:
            rest = begun.pop(pid, "") + rest.split("resumed>")[1]
        if match := _LINE.fullmatch(rest.strip()):
            yield match[1], match[2], int(match[3])


def operations(log, directory):
    """What was done to the files of a directory: (what, path, ...), and ("mark", number) of what was told meanwhile."""
    inside = str(directory) + "/"
    for name, arguments, result in _calls(log):
        if result < 0:
            continue
        if name in ("write", "pwrite64") and (match := _FILE.match(arguments)):
            path = _bytes(match[2]).decode() if match[2].startswith("\\x") else match[2]
            data = _bytes(match[3])[:result]
            if path.startswith(inside) and name == "pwrite64":
                yield "write", path, int(match[5]), data
            elif data.startswith(b"MARK "):
                yield "mark", int(data.split()[1])
        elif name in ("fsync", "fdatasync", "ftruncate") and (
            match := re.match(r"\d+<([^>]*)>(?:, (\d+))?", arguments)
        ):
            path = _bytes(match[1]).decode() if match[1].startswith("\\x") else match[1]
            if path.startswith(inside):
                yield ("sync", path) if name != "ftruncate" else ("truncate", path, int(match[2]))
        elif name in ("unlink", "unlinkat", "rename", "renameat", "renameat2"):
            names = [_bytes(one).decode() for one in re.findall(r'"((?:\\x[0-9a-f]{2})+)"', arguments)]
            if names and names[0].startswith(inside):
                yield (name[:6], *names)


class Disk:
    """Files of which each has what is on the disk for sure, and what was written since."""

    def __init__(self):
        self.sure, self.since = {}, {}

    def do(self, what, path, *rest):
        """Let an operation happen."""
        if what == "write":
            self.since.setdefault(path, []).append(rest)
        elif what == "truncate":
            self._settle(path, lambda size: True)
            self.sure[path] = self.sure.get(path, b"")[: rest[0]].ljust(rest[0], b"\0")
        elif what == "sync":
            self._settle(path, lambda size: True)
        elif what == "rename":
            for table in (self.sure, self.since):
                if path in table:
                    table[rest[0]] = table.pop(path)
        elif what == "unlink":
            self.sure.pop(path, None)
            self.since.pop(path, None)

    def _settle(self, path, keep):
        data = bytearray(self.sure.get(path, b""))
        for offset, written in self.since.pop(path, ()):
            for at in range(0, len(written), SECTOR):
                if keep(SECTOR):
                    part = written[at : at + SECTOR]
                    data.extend(bytes(max(0, offset + at - len(data))))
                    data[offset + at : offset + at + len(part)] = part
        self.sure[path] = bytes(data)

    def cut(self, chance, directory, old):
        """Write to another directory what a cut at this moment may leave."""
        likely = chance.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        left = Disk()
        left.sure = dict(self.sure)
        left.since = {path: list(writes) for path, writes in self.since.items()}
        for path in set(left.sure) | set(left.since):
            left._settle(path, lambda size: chance.random() < likely)
        for path, data in left.sure.items():
            if not path.endswith("-shm"):
                Path(directory, path.removeprefix(str(old) + "/")).write_bytes(data)
