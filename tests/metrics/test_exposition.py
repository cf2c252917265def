"""The text of metrics, as the official parsers read it."""

import shutil
import subprocess

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from nfct_fast.metrics.exposition import Exposition, label_text

HOSTILE = [
    b"a.service",
    b'quo"te.service',
    b"back\\slash.service",
    b"new\nline.service",
    b'"} 1\nnfct_forged_total{a="',
    b"\xff\xfe.service",
    b"\x1b[31mred",
    "gr\u00fcn \u202e\u2028.service".encode(),
    b"# HELP",
    b"",
    b"\r\n",
    b"{}",
]


def exposed(openmetrics):
    made = Exposition(openmetrics)
    made.gauge("x_build_info", 'What "it" is\nmade\\of.', [({"version": "1"}, 1)])
    made.counter("x_named", "By name.", [({"unit": label_text(name)}, 1) for name in HOSTILE])
    made.counter("x_none", "Nobody.", [])
    made.counter("x_plain", "One.", 1 << 63)
    made.histogram(
        "x_seconds", "Times.", (0.001, 1.0), [({"since": "a"}, [1, 2, 3], 4.5), ({"since": "b"}, [0] * 3, 0.0)]
    )
    return made.text()


@pytest.mark.parametrize(("openmetrics", "parse"), [(False, parse_text), (True, parse_openmetrics)])
def test_the_official_parser_reads_it(openmetrics, parse):
    families = {family.name: family for family in parse(exposed(openmetrics))}
    named = {sample.labels["unit"]: sample.value for sample in families["x_named"].samples}
    assert named == {label_text(name): 1 for name in HOSTILE} and len(named) == len(HOSTILE)
    assert [sample.name for sample in families["x_plain"].samples] == ["x_plain_total"]
    assert families["x_plain"].type == "counter" and families["x_plain"].samples[0].value == 1 << 63
    assert families["x_build_info"].documentation == 'What "it" is\nmade\\of.'
    buckets = [(s.name, s.labels.get("le"), s.value) for s in families["x_seconds"].samples if s.labels["since"] == "a"]
    assert buckets == [
        ("x_seconds_bucket", "0.001", 1),
        ("x_seconds_bucket", "1.0", 3),
        ("x_seconds_bucket", "+Inf", 6),
        ("x_seconds_sum", None, 4.5),
        ("x_seconds_count", None, 6),
    ]
    assert "x_forged" not in families


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_one_line_of_printable_text(name):
    assert label_text(name).isprintable()


def test_two_names_that_are_one_as_text_are_one_series():
    made = Exposition()
    made.counter("x", "By name.", [({"unit": label_text(name)}, 2) for name in (b"\xff", rb"\xff")])
    [family] = parse_text(made.text())
    assert [(sample.labels, sample.value) for sample in family.samples] == [({"unit": r"\xff"}, 4)]


def test_promtool_has_nothing_to_say():
    if not shutil.which("promtool"):
        pytest.skip("promtool is not installed (package prometheus); `make prometheus` has it")
    done = subprocess.run(["promtool", "check", "metrics"], input=exposed(False), capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
