"""The little of Markdown that README.md has in its tables, as roff for man(7)."""

import re
import textwrap


def escaped(text) -> str:
    """Return plain text as roff prints it: with hyphens that can be copied, and nothing taken for a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("^", "\\(ha").replace("~", "\\(ti")
    text = text.replace("'", "\\(aq").replace("`", "\\(ga")
    return "".join(one if one < "\x7f" else f"\\[u{ord(one):04X}]" for one in text)


def from_markdown(text) -> str:
    """Return one paragraph: `code` and **words** are bold."""
    parts = re.split(r"`([^`]+)`|\*\*(.+?)\*\*", text)
    made = escaped(parts[0])
    for code, strong, rest in zip(parts[1::3], parts[2::3], parts[3::3]):
        made += rf"\fB{escaped(code or strong)}\fR{escaped(rest)}"
    return made


def table(rows) -> list[str]:
    """Return the rows of a Markdown table as a list of tagged paragraphs: the first column is the tag."""
    lines = []
    heads, _, *rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]
    for cells in rows:
        tag, *rest = [cell.replace("\\|", "|") for cell in cells]
        texts = [
            f"{heads[number]}: {cell}" if number > 1 and heads[number] else cell
            for number, cell in enumerate(rest, 1)
            if cell
        ]
        lines += [".TP", from_markdown(tag)]
        lines += textwrap.wrap(
            from_markdown(". ".join(texts) or "\u2014"), 78, break_long_words=False, break_on_hyphens=False
        )
    return [rf"\&{line}" if line.startswith("'") or line.startswith(".") and line != ".TP" else line for line in lines]
