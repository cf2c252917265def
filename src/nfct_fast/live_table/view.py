"""What a user looks at: the grouping, order, text and row that keys have chosen. It knows no terminal."""

from nfct_fast.live_table.parties import GROUPINGS

SORTS = ("bytes", "in", "out", "flows", "name")
_TEXT_MAX = 200
_MOVES = {"up": -1, "down": 1, "k": -1, "j": 1}


def _number(row, sort):
    if sort == "bytes":
        return row.bytes_in + row.bytes_out
    if sort == "in":
        return row.bytes_in
    if sort == "out":
        return row.bytes_out
    return row.began


def ordered(rows, sort, reverse=False, text="") -> list:
    """The rows that have `text` in them, whatever its case, in a stable order: largest first, or names from a to z."""
    wanted = text.lower()
    if wanted:
        rows = [row for row in rows if wanted in searched(row)]
    rows = sorted(rows, key=lambda row: (row.name, str(row.key)))
    if sort != "name":
        rows.sort(key=lambda row: (row.ended, -_number(row, sort), -row.live))
    return rows[::-1] if reverse else rows


def searched(row) -> str:
    """What the text of a filter is looked for in, in lower case."""
    party = row.party
    return f"{row.name} {party.pid or ''} {party.user} {party.unit} {party.container} {party.command}".lower()


class View:
    """The state of the display. press() changes it; the rest is read by page.py.

    Attributes:
        mode: "table", "help", "details" or "filter", while its text is typed.
        rows: The rows in their order, as of the last show().
        selected: Index into `rows`.
        first: Index of the first line that is shown, of the rows or of the text of the other modes.
    """

    def __init__(self, grouping, sort):
        self.grouping, self.sort, self.reverse = grouping, sort, False
        self.mode, self.text, self.typed, self.paused = "table", "", "", False
        self.rows, self.selected, self.first = [], 0, 0
        self.page = 1  # rows that fit, as page.py last found
        self.details_key = None

    def show(self, rows) -> None:
        """Show these rows from now on. The selected row stays selected wherever it moves to."""
        key = self.selected_key()
        self.rows = ordered(rows, self.sort, self.reverse, self.text)
        if key is not None and self.selected > 0:  # whoever looks at the first row looks at whatever is first
            at = next((i for i, row in enumerate(self.rows) if row.key == key), None)
            self.selected = self.selected if at is None else at
        self._clamp()

    def selected_key(self):
        """The key of the selected row; None if there is none."""
        return self.rows[self.selected].key if self.selected < len(self.rows) else None

    def _clamp(self):
        self.selected = max(0, min(self.selected, len(self.rows) - 1))

    def press(self, key) -> str | None:
        """Handle a key: one character, or "up", "enter" and so on.

        Returns "quit", "regroup" or "resort" if there is more to do, else None.
        """
        if self.mode == "filter":
            return self._type(key)
        if key == "q" or key == "escape":
            if self.mode == "table":
                return "quit" if key == "q" else None
            self.mode, self.first = "table", 0
            return None
        if key in ("h", "?"):
            self.mode, self.first = "help", 0
        elif key in ("p", " "):
            self.paused = not self.paused
            return None if self.paused else "resort"
        elif key in _MOVES or key in ("pageup", "pagedown", "home", "end"):
            self._move(key)
        elif self.mode != "table":
            return None
        elif key == "enter":
            if self.rows:
                self.mode, self.first, self.details_key = "details", 0, self.selected_key()
        elif key == "/":
            self.mode, self.typed = "filter", self.text
        elif key in ("s", ">", "<"):
            step = -1 if key == "<" else 1
            self.sort = SORTS[(SORTS.index(self.sort) + step) % len(SORTS)]
            return "resort"
        elif key == "r":
            self.reverse = not self.reverse
            return "resort"
        elif key in ("g", "tab", "G"):
            step = -1 if key == "G" else 1
            self.grouping = GROUPINGS[(GROUPINGS.index(self.grouping) + step) % len(GROUPINGS)]
            self.rows, self.selected, self.first = [], 0, 0
            return "regroup"
        return None

    def _type(self, key):
        if key == "enter":
            self.mode, self.text, self.selected, self.first = "table", self.typed, 0, 0
            return "resort"
        if key == "escape":
            self.mode = "table"
        elif key == "backspace":
            self.typed = self.typed[:-1]
        elif len(key) == 1 and key.isprintable() and len(self.typed) < _TEXT_MAX:
            self.typed += key
        return None

    def _move(self, key):
        step = _MOVES.get(key, 0) or {"pageup": -self.page, "pagedown": self.page}.get(key, 0)
        if self.mode != "table":  # text is scrolled; page.py knows where it ends
            self.first = 0 if key == "home" else 1 << 30 if key == "end" else max(0, self.first + step)
            return
        self.selected = 0 if key == "home" else len(self.rows) - 1 if key == "end" else self.selected + step
        self._clamp()
