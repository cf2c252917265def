"""gcc for tests/line_coverage: each line of generated C is attributed to the line of Cython that it was made from.

Cython names that line in a comment before each statement. A compiler that is told so by #line counts the lines of .pyx
files, in functions without the GIL as in others; and as nothing is traced, what has threads runs as it always does.
"""

import os
import re
import sys
from pathlib import Path

MARK = re.compile(r'\s*/\* "(nfct_fast/[\w/]+\.(?:pyx|pxd))":(\d+)$')
END = ("}", "};", "  /* function exit code */")


def attributed(text, name):
    """The text of a C file with #line before each line that was made of Cython."""
    source, comment, out = None, False, []
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if match := MARK.match(line):
            source, comment = match.groups(), True
        before, ended = lines[number - 2], source and line in END
        if not comment and not before.endswith("\\"):
            if source and not ended:
                out.append(f'#line {source[1]} "src/{source[0]}"')
            # Also where a condition ends: what was said within it may not have been compiled.
            elif ended or before.startswith("#e"):
                out.append(f'#line {number} "{name}"')
        source = None if ended else source
        out.append(line)
        comment = comment and "*/" not in line
    return "\n".join(out)


def main():
    command = sys.argv[1:]
    for at, word in enumerate(command):
        if word.startswith("build/cython/") and word.endswith(".c"):
            made = Path("build/coverage/c") / Path(word).relative_to("build/cython")
            made.parent.mkdir(parents=True, exist_ok=True)
            made.write_text(attributed(Path(word).read_text(), word))
            command[at] = str(made)
    os.execvp("gcc", ["gcc", *command])


if __name__ == "__main__":
    main()
