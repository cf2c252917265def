"""ClickHouse's own engine in this process (chdb), with the tables of `nfct-fast fleet clickhouse.sql`."""

import json

from chdb import session

from nfct_fast.command import fleet

RETENTION = "INTERVAL 90 DAY"  # as the file has it; flows of tests may be older
LONG = "INTERVAL 40 YEAR"


def statements(text):
    """The statements of a file: each ends with a semicolon at the end of a line, and comments have none there."""
    for one in text.split(";\n"):
        if any(line and not line.startswith("--") for line in one.splitlines()):
            yield one


class Engine:
    """The engine, of which a process has one at a time, with its files in a directory. Close it."""

    def __init__(self, directory):
        self._session = session.Session(str(directory))
        self._databases = int(self.do("SELECT count() FROM system.databases WHERE name LIKE 'fleet%'", "TSV"))

    def close(self):
        self._session.close()

    def do(self, statement, form="JSONEachRow", **parameters):
        """Run a statement; return what it answers, as text."""
        return str(self._session.query(statement, form, params=parameters))

    def tables(self, retention=LONG):
        """The tables of clickhouse.sql in a new database. retention: how long flows are kept."""
        self._databases += 1
        tables = Tables(self, f"fleet{self._databases}")
        self.do(f"CREATE DATABASE {tables.name}")
        text = fleet.text("clickhouse.sql")
        assert text.count(RETENTION) == 2
        for statement in statements(text.replace(RETENTION, retention)):
            tables.do(statement)
        return tables


class Tables:
    """A database of an Engine."""

    def __init__(self, engine, name):
        self.engine, self.name = engine, name

    def do(self, statement, **parameters):
        self.engine.do(f"USE {self.name}")
        return self.engine.do(statement, **parameters)

    def rows(self, query, **parameters):
        """The rows of an answer, as dicts."""
        return [json.loads(line) for line in self.do(query, **parameters).splitlines()]

    def value(self, query, **parameters):
        """The only value of an answer."""
        [row] = self.rows(query, **parameters)
        [value] = row.values()
        return value

    def add_lines(self, lines):
        """Insert lines of --json, as they are."""
        self.do("INSERT INTO nfct_lines FORMAT JSONEachRow\n" + "\n".join(lines))

    def add_line_file(self, path):
        """Insert a file of lines."""
        self.do(f"INSERT INTO nfct_lines FROM INFILE '{path}' FORMAT JSONEachRow")

    def add_arrow(self, path):
        """Insert a file with an Arrow stream of batches."""
        self.do(f"INSERT INTO nfct_batches FROM INFILE '{path}' FORMAT ArrowStream")

    def ask(self, number, final=True, **parameters):
        """The answer to a question of `nfct-fast fleet`. final: as it is, with each record once."""
        [name] = [name for name in fleet.names() if name.startswith(f"question-{number:02}-")]
        [query] = statements(fleet.text(name))
        return self.rows(query if final else query.replace(" FINAL", ""), **parameters)
