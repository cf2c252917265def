"""What the live table shows and how it answers keys, without a terminal and without flows."""

import itertools

import pytest

from nfct_fast.live_table.collector import Interval
from nfct_fast.live_table.details import details_lines
from nfct_fast.live_table.display_text import amount, fitted, plain, shown, width
from nfct_fast.live_table.page import HELP, printed, screen
from nfct_fast.live_table.parties import GROUPINGS, Party
from nfct_fast.live_table.row import Row, Totals
from nfct_fast.live_table.view import SORTS, View, ordered

HOSTILE = "\x1b[2J\x1b]0;x\x07\r\n\t\u202e\u200b\ufeff\U000e0041\udcff\x85\u2028 名前 e\u0301\\ " + "字" * 3000
TOTALS = Totals(12, 3, 5.0, 1e6, 2e9, 10**9, 10**12, 12, 0, 0)
INTERVAL = Interval(1, 1.7e9, 1.0, 1.0, False, 0.01, TOTALS, 0, False, 0)


def row(name, key=None, **numbers):
    zeros = dict(live=1, began=0.0, bytes_in=0.0, bytes_out=0.0, total_in=0, total_out=0, ended=False)
    return Row(key=key or name, name=name, party=Party(None), **(zeros | numbers))


def view(*rows, **options):
    result = View(**{"grouping": "process", "sort": "bytes", **options})
    result.show(list(rows))
    return result


@pytest.mark.parametrize(
    "text, is_shown",
    [
        ("plain text", "plain text"),
        ("a\x1b[31mb\n", "a\\x1b[31mb\\n"),
        ("back\\slash", "back\\\\slash"),
        ("\udcff\udc80", "\\xff\\x80"),
        ("\u202eevil\u200b", "\\u202eevil\\u200b"),
        ("no\u00a0break\u3000", "no\\xa0break\\u3000"),
        ("名前 é", "名前 é"),
        ("e\u0301", "e\\u0301"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_text_is_shown_without_what_moves_the_cursor(text, is_shown):
    assert shown(text) == is_shown


@pytest.mark.parametrize("columns", range(12))
@pytest.mark.parametrize("text", ["", "abc", "abcdefghijkl", "名前名前名前", "a名b前c", shown(HOSTILE)])
def test_text_is_fitted_into_columns(text, columns):
    for right in (False, True):
        assert width(fitted(text, columns, right)) == columns


def test_text_for_a_terminal_with_ascii_only():
    assert plain("名 a") == "\\u540d a"


def test_amounts_take_six_columns():
    numbers = [0, 0.04, 1, 9.94, 9.96, 10, 999, 999.7, 1000, 999_949, 999_960, 10**9, 123456789012, 2**64]
    assert [amount(number) for number in numbers] == [
        *("0", "0.0", "1", "9.9", "10", "10", "999", "1000", "1.0K", "999.9K", "1.0M", "1.0G", "123.5G", "18.4E"),
    ]
    assert all(len(amount(10**i * 9.99)) <= 6 for i in range(20))


def test_the_order_is_stable_and_what_ended_comes_last():
    rows = [row("b", bytes_in=5.0), row("a", bytes_in=5.0), row("c", bytes_out=9.0), row("d", bytes_in=99, ended=True)]
    names = [one.name for one in ordered(rows, "bytes")]
    assert names == ["c", "a", "b", "d"]
    for shuffled in itertools.permutations(rows):
        assert [one.name for one in ordered(shuffled, "bytes")] == names
    assert [one.name for one in ordered(rows, "name")] == ["a", "b", "c", "d"]
    assert [one.name for one in ordered(rows, "name", reverse=True)] == ["d", "c", "b", "a"]
    assert [one.name for one in ordered(rows, "bytes", text="B")] == ["b"]


def test_keys():
    one = view(row("a", bytes_in=3.0), row("b", bytes_in=2.0), row("c", bytes_in=1.0))
    assert one.press("down") is None and one.selected_key() == "b"
    one.show([row("a"), row("b", bytes_in=9.0), row("c")])
    assert one.selected_key() == "b" and one.selected == 0
    for key, at in (("end", 2), ("down", 2), ("home", 0), ("up", 0), ("pagedown", 1), ("x", 1)):
        one.press(key)
        assert one.selected == at, key
    assert [one.press(">") and one.sort for _ in SORTS] == [*SORTS[1:], SORTS[0]]
    assert one.press("<") == "resort" and one.sort == SORTS[-1]
    assert [one.press("g") and one.grouping for _ in GROUPINGS] == [*GROUPINGS[1:], GROUPINGS[0]]
    assert one.press("G") == "regroup" and one.grouping == GROUPINGS[-1]
    assert one.press("r") == "resort" and one.reverse
    assert one.press("p") is None and one.paused
    assert one.press(" ") == "resort" and not one.paused
    assert one.press("h") is None and one.mode == "help"
    assert one.press("q") is None and one.mode == "table"
    for key in "/xq\x1b":
        one.press(key)
    assert one.press("backspace") is None and (one.mode, one.typed) == ("filter", "x")
    assert one.press("enter") == "resort" and (one.mode, one.text) == ("table", "x")
    assert one.press("k") is None  # kills nothing
    assert one.press("q") == "quit"


def test_details_need_a_row():
    one = view()
    assert one.press("enter") is None and one.mode == "table"
    one = view(row("a"))
    one.press("enter")
    assert (one.mode, one.details_key) == ("details", "a")
    one.show([])
    assert "gone" in screen(one, INTERVAL, 80, 24, lambda key: [])[0][0]


@pytest.mark.parametrize("grouping", GROUPINGS)
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (9, 3), (40, 5), (80, 24), (200, 60)])
def test_every_screen_has_the_size_of_the_terminal(grouping, size):
    columns, lines = size
    rows = [row(shown(HOSTILE), key=(i, 1), live=10**9, bytes_in=1e18) for i in range(100)]
    for mode in ("table", "filter", "help", "details"):
        one = view(*rows, grouping=grouping)
        one.mode, one.details_key, one.selected = mode, (1, 1), 99
        for interval in (None, INTERVAL, INTERVAL._replace(lost=5, slowed=True)):
            page = screen(one, interval, columns, lines, lambda key: rows[:5], ["a notice"] * 5, 262144)
            assert [width(text) for text, _ in page] == [columns] * lines


def test_the_selected_row_is_on_the_screen():
    one = view(*[row(f"row-{i:03}") for i in range(100)])
    for key in ["down"] * 60 + ["up"] * 30 + ["end", "home", "pagedown", "pageup"]:
        one.press(key)
        page = screen(one, INTERVAL, 80, 10, None)
        [text] = [text for text, style in page if style == "selected"]
        assert one.selected_key() in text


def test_a_printed_page_has_all_rows_and_no_line_more():
    one = view(*[row(shown(HOSTILE), key=i) for i in range(50)])
    text = printed(one, INTERVAL, 120, ["a notice"], 1000)
    assert all(character.isprintable() or character == "\n" for character in text)
    assert text.count("\n") == 3 + 1 + 1 + 1 + 50


def test_help_fits_a_usual_terminal():
    assert max(map(len, HELP)) < 80 and len(HELP) <= 23


def test_details_of_a_row_without_a_process():
    text = "\n".join(details_lines(row("? closed"), [row("udp 1.2.3.4/5 > 6.7.8.9/10", key=(1, 0))], 80))
    assert "process:   unknown" in text and "6.7.8.9/10" in text
