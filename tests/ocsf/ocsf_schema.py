"""The schemas of OCSF that come with Tenzir: what an event of a class must have, may have, and of which types.

The engine itself drops what a class does not have and says so, but asks for nothing that is required.
"""

import ipaddress
import re
from pathlib import Path

TYPE = re.compile(r"^type _ocsf\.(v\w+)\.([\w.]+) = record\{\n(.*?)^\}(.*?)$", re.M | re.S)
FIELD = re.compile(r"^  (\w+): (\S+?)((?: #\S+)*),$", re.M)
CHECKS = {
    "string": lambda value: type(value) is str,
    "int64": lambda value: type(value) is int and abs(value) < 1 << 63,
    "bool": lambda value: type(value) is bool,
    "time": lambda value: type(value) is int and 1.7e12 < value < 4e12,  # as milliseconds
    "ip": lambda value: ipaddress.ip_address(value),
    "null": lambda value: True,  # anything, as in unmapped
}


def attributes(text):
    """{name: value, or True} of what is behind a field or a type."""
    pairs = (word.partition("=") for word in text.replace("#", " ").split())
    return {name: value or True for name, _, value in pairs}


class Schema:
    """All types of one version."""

    def __init__(self, path: Path):
        self.types = {}
        for _, name, body, behind in TYPE.findall(path.read_text()):
            fields = {field: (kind, attributes(more)) for field, kind, more in FIELD.findall(body)}
            assert len(fields) == body.count("\n"), name
            self.types[name] = fields, attributes(behind)

    def faults(self, event, name, profiles):
        """What is wrong with an event of a class, as lines."""
        return list(self._faults(event, name, profiles, ""))

    def _faults(self, value, name, profiles, path):
        fields, own = self.types[name]
        present = {field for field, inner in value.items() if inner is not None}
        for field in sorted(present - fields.keys()):
            yield f"{path}{field} is not in {name}"
        for field, (kind, more) in fields.items():
            wanted = str(more.get("profile") or more.get("profiles") or "")
            enabled = not wanted or bool(set(wanted.split("|")) & set(profiles))
            if field not in present:
                if enabled and "required" in more:
                    yield f"{path}{field} is required in {name}"
                continue
            if not enabled:
                yield f"{path}{field} is of the profile {wanted}"
            sibling = more.get("sibling")
            if "enum" in more and value.get(sibling) is None:
                yield f"{path}{field} has no meaning: {value[field]}"
            yield from self._value(value[field], kind, profiles, f"{path}{field}")
        choice = str(own.get("at_least_one") or "").split("|")
        if choice != [""] and not present & set(choice):
            yield f"{path or name} has none of {', '.join(choice)}"

    def _value(self, value, kind, profiles, path):
        if kind.startswith("list<"):
            if type(value) is not list:
                yield f"{path} is no list: {value!r}"
                return
            for number, one in enumerate(value):
                yield from self._value(one, kind[5:-1], profiles, f"{path}[{number}]")
        elif kind in CHECKS:
            if not CHECKS[kind](value):
                yield f"{path} is no {kind}: {value!r}"
        elif type(value) is not dict:
            yield f"{path} is no object: {value!r}"
        else:
            yield from self._faults(value, re.sub(r"^_ocsf\.v\w+\.", "", kind), profiles, f"{path}.")
