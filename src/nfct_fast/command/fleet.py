"""`nfct-fast fleet`: print what is installed for those who gather the records of many hosts."""

import argparse
from importlib.resources import files

from nfct_fast.command.documents import write_text
from nfct_fast.command.standard_error import PROGRAM, Parser

_EPILOG = """\
examples:
  nfct-fast fleet                        the files, with a line on each
  nfct-fast fleet README.md              what each is for, and what it guarantees and costs
  nfct-fast fleet clickhouse.sql | clickhouse-client --database nfct --multiquery
"""


def _folder():
    return files("nfct_fast").joinpath("data/fleet")


def names() -> list[str]:
    """Return the names of the files."""
    return sorted(entry.name for entry in _folder().iterdir() if entry.is_file())


def text(name) -> str:
    """Return the text of a file. name: one of names()."""
    return _folder().joinpath(name).read_text(encoding="utf-8")


def about(name) -> str:
    """Return what the first line of a file says, which is a comment."""
    return text(name).partition("\n")[0].strip("-#/*<!;> \t")


def parser() -> Parser:
    """Return the parser of the arguments."""
    parser = Parser(
        prog=f"{PROGRAM} fleet",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        description="Print a file for those who gather the records of many hosts; without a name, list the files.",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", choices=names(), help="the file to print")
    return parser


def run(arguments) -> int:
    """Print the file, or the list of all, and return the exit status: 1 if it cannot be written."""
    if arguments.name is not None:
        return write_text(text(arguments.name))
    width = max(map(len, names()))
    return write_text("".join(f"{name:{width}}  {about(name)}\n" for name in names()))
