"""ClickHouse's engine as a process of its own: `engine.py DIRECTORY CONFIG FILE...`, with the Python that has chdb.

It runs the statements of the files, as clickhouse-client does, and then answers queries: a line of JSON with the query
on standard input, a line of JSON with the rows or the error on standard output. Meanwhile ClickHouse's own threads read
from Kafka.
"""

import json
import sys
from pathlib import Path

from chdb.session import Session


def statements(text):
    """The statements of a file in which no text has a semicolon or two hyphens."""
    lines = (line.partition("--")[0] for line in text.splitlines())
    return [statement for statement in "\n".join(lines).split(";") if statement.strip()]


def main(directory, config, *files):
    session = Session(f"{directory}?config-file={config}")
    for file in files:
        for statement in statements(Path(file).read_text()):
            session.query(statement)
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        try:
            rows = [
                json.loads(row) for row in session.query(json.loads(line), "JSONCompactEachRow").data().splitlines()
            ]
        except Exception as error:
            rows = str(error)
        print(json.dumps(rows), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
