"""Who recorded rows: a host, as of one boot, with the names of the users and groups that its rows have."""

import json
import struct

_CHUNK = struct.Struct("=II")
_HOST = 1
_NAMES_MOST = 500  # of users and of groups that one chunk tells of
_NAME_MOST = 250  # bytes
_UNKNOWN = object()


def _can_be_told(name):
    return (
        name is not None
        and len(name.encode("utf-8", "surrogateescape")) <= _NAME_MOST
        and not any(one in name for one in ":\n")
        and name[:1] not in ("", "#", "+", "-")
    )


class RowHost:
    """One host, one boot.

    host, machine_id, boot_id: As a row has them; '' for what is not known.
    """

    def __init__(self, host: str, machine_id: str, boot_id: str) -> None:
        self._about = {
            "host": host,
            "machine_id": machine_id or None,
            "boot_id": boot_id or None,
            "boot_time": 0,
        }
        self._names: tuple[dict[int, str | None], ...] = ({}, {})  # of users, of groups
        self.chunk = b""
        self._make()

    def _make(self):
        about = dict(self._about)
        for key, names in zip(("users", "groups"), self._names):
            about[key] = "".join([f"{name}:x:{id}:\n" for id, name in names.items() if _can_be_told(name)])
        text = json.dumps(about).encode("ascii")
        self.chunk = _CHUNK.pack(len(text), _HOST) + text + bytes(-len(text) % 8)

    def learn(self, boot_time: int | None, uids: tuple, gids: tuple) -> None:
        """Take what a row says; `chunk` is another one afterwards if it did not say that yet.

        boot_time: In ns since the epoch, as a process of the row has it; None: no process says it.
        uids, gids: (id, name) of its owners; the name of an id is None if it has none.
        """
        changed = False
        if boot_time is not None and boot_time != self._about["boot_time"]:
            self._about["boot_time"], changed = boot_time, True
        for place, pairs in enumerate((uids, gids)):
            for id, name in pairs:
                known = self._names[place].get(id, _UNKNOWN)
                if id is None or known == name:
                    continue
                if known is not _UNKNOWN or len(self._names[place]) >= _NAMES_MOST:  # it has another name since
                    self._names[place].clear()
                self._names[place][id] = name
                changed = True
        if changed:
            self._make()
