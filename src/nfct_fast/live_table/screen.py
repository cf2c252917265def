"""The terminal, by the curses module of the standard library: the only file of this folder that knows one."""

import locale
import os
import select
import signal
import sys

from nfct_fast.live_table.display_text import plain

_NAMES = {
    "\n": "enter",
    "\r": "enter",
    "\t": "tab",
    "\x1b": "escape",
    "\x7f": "backspace",
    "\b": "backspace",
}


class NoTerminal(ValueError):
    """There is no terminal that can be drawn on; the message says why."""


def find_curses():
    """Return the module curses, for Screen. NoTerminal if it is missing, or there is nothing that it can draw on."""
    if not os.isatty(0) or not os.isatty(1):
        raise NoTerminal("standard input and output are no terminal: use -b")
    name = os.environ.get("TERM", "")
    if name in ("", "dumb", "unknown"):
        raise NoTerminal(f"TERM={name}: this terminal has no cursor to move: use -b")
    try:
        import curses
    except ImportError:
        raise NoTerminal("this Python lacks the standard module curses: install it (or use -b)") from None
    locale.setlocale(locale.LC_CTYPE, "")
    try:
        curses.setupterm()
    except curses.error:
        raise NoTerminal(f"TERM={name}: this terminal is not known here: use -b") from None
    if not all(map(curses.tigetstr, ("cup", "clear"))):
        raise NoTerminal(f"TERM={name}: this terminal has no cursor to move: use -b")
    return curses


class Screen:
    """A terminal in the mode of curses; close() or leaving `with` restores it.

    What is asked for by signals is left to wake(): a terminal of another size, and to stop for the shell (^Z).
    """

    def __init__(self, curses):
        self._curses = curses
        self._size = self._stop = False
        # With handlers of ours curses installs none, which would run in any thread, in the middle of anything.
        signal.signal(signal.SIGWINCH, self._note_size)
        signal.signal(signal.SIGTSTP, self._note_stop)
        self._window = curses.initscr()
        curses.noecho()
        curses.cbreak()
        self._window.keypad(True)
        self._window.nodelay(True)
        self._ascii = locale.nl_langinfo(locale.CODESET).upper().replace("-", "") != "UTF8"
        curses.set_escdelay(25)
        self._styles = self._make_styles()
        self._show_cursor(0)

    def _make_styles(self):
        curses = self._curses
        styles = {
            "plain": curses.A_NORMAL,
            "title": curses.A_BOLD,
            "heading": curses.A_REVERSE,
            "selected": curses.A_STANDOUT | curses.A_BOLD,
            "ended": curses.A_DIM,
            "warning": curses.A_BOLD,
            "keys": curses.A_REVERSE,
        }
        if not os.environ.get("NO_COLOR"):
            curses.start_color()
            if curses.has_colors():
                curses.use_default_colors()
                for number, color in enumerate((curses.COLOR_GREEN, curses.COLOR_RED), 1):
                    curses.init_pair(number, color, -1)
                styles["title"] |= curses.color_pair(1)
                styles["warning"] |= curses.color_pair(2)
        return styles

    def _show_cursor(self, visible):
        try:
            self._curses.curs_set(visible)
        except self._curses.error:
            pass  # the terminal cannot hide it

    def _note_size(self, number, frame):
        self._size = True

    def _note_stop(self, number, frame):
        self._stop = True

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        lines, columns = self._window.getmaxyx()
        return columns, lines

    def draw(self, lines) -> None:
        """Show these lines: [(text, style)], of no more columns than there are. Blocks while the terminal does."""
        columns, room = self.size
        self._window.erase()
        for at, (text, style) in enumerate(lines[:room]):
            if self._ascii:
                text = plain(text)
            try:
                self._window.addnstr(at, 0, text, columns, self._styles[style])
            except self._curses.error:
                pass  # after the last cell of the screen there is no place for the cursor
        self._window.refresh()

    def wake(self) -> bool:
        """Do what signals have asked for. Whether the screen has to be drawn again."""
        if self._stop:
            self._stop = False
            self._curses.endwin()
            os.kill(os.getpid(), signal.SIGSTOP)
            self._window.keypad(True)
            self._size = True
        if not self._size:
            return False
        self._size = False
        size = os.get_terminal_size(1)
        self._curses.resizeterm(max(1, size.lines), max(1, size.columns))
        self._window.clear()
        return True

    def keys(self) -> list[str]:
        """The keys that were pressed: one character each, or a name like "up" or "enter"."""
        names = {
            self._curses.KEY_UP: "up",
            self._curses.KEY_DOWN: "down",
            self._curses.KEY_PPAGE: "pageup",
            self._curses.KEY_NPAGE: "pagedown",
            self._curses.KEY_HOME: "home",
            self._curses.KEY_END: "end",
            self._curses.KEY_ENTER: "enter",
            self._curses.KEY_BACKSPACE: "backspace",
            self._curses.KEY_BTAB: "G",
        }
        pressed = []
        while len(pressed) < 1000:
            try:
                key = self._window.get_wch()
            except self._curses.error:
                break
            name = names.get(key) if isinstance(key, int) else _NAMES.get(key, key)
            if name is not None:
                pressed.append(name)
        return pressed

    def can_draw(self) -> bool:
        """Whether the terminal takes output now: not while it is stopped (^S), or its line is stuck."""
        poll = select.poll()
        poll.register(1, select.POLLOUT)
        return bool(poll.poll(0))

    def is_gone(self) -> bool:
        """Whether the terminal has hung up."""
        poll = select.poll()
        poll.register(0, 0)
        return any(events & (select.POLLERR | select.POLLHUP | select.POLLNVAL) for _, events in poll.poll(0))

    def close(self) -> None:
        """Restore the terminal."""
        self._curses.endwin()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()
        sys.stdout.flush()
