"""ocsf.tql reads fields that there are, of the Elastic Common Schema and ours. `make ocsf` has an engine run it."""

import re

from nfct_fast.command.fleet import text
from nfct_fast.output.field_names import JSON_KEYS
from support.paths import TESTS

FIELDS = {line.split()[0] for line in (TESTS / "output/ecs_fields.txt").read_text().splitlines()[1:]}
PIPELINE = "\n".join(line for line in text("ocsf.tql").splitlines() if not line.lstrip().startswith("//"))


def test_it_reads_what_is_written():
    read = {path.replace("?", "") for path in re.findall(r"\becs\.([a-z_][\w.?]*)", PIPELINE)}
    read = {path.removesuffix(".file_name") for path in read}
    ours = {path.removeprefix("nfct.") for path in read if path.startswith("nfct.")}
    known = FIELDS | {field.rpartition(".")[0] for field in FIELDS} | {"host", "ecs"}
    assert {path for path in read - known if not path.startswith("nfct.")} == set()
    peer = {path for path in ours if path.startswith("peer.")}
    assert {path.removeprefix("peer.") for path in peer} - known == set()
    assert ours - peer - set(JSON_KEYS) == {"lost"}
    assert len(read) > 50


def test_it_says_one_version():
    assert set(re.findall(r'version: "(.*?)"', PIPELINE)) == {"1.9.0"}
