"""The text in which Prometheus and OpenMetrics collectors read metrics: formats 0.0.4 and 1.0.0."""

from nfct_fast.text.printable import printable

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def label_text(name: bytes) -> str:
    """Return a name of others' choice as text that is safe in a label, on a terminal and in a strict parser.

    Bytes that are not UTF-8 and characters that cannot be printed are written as in a Python literal.
    """
    return printable(name.decode("utf-8", "backslashreplace"))


def _escaped(text):
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _labels(labels):
    pairs = ['{}="{}"'.format(key, _escaped(value).replace('"', '\\"')) for key, value in labels.items()]
    return "{" + ",".join(pairs) + "}" if pairs else ""


class Exposition:
    """Metrics as text. Names are given without the suffix `_total`, which counters get."""

    def __init__(self, openmetrics=False):
        self._openmetrics = openmetrics
        self._parts = []

    def _begin(self, name, kind, explained):
        self._parts.append(f"# HELP {name} {_escaped(explained)}\n# TYPE {name} {kind}\n")

    def _add(self, name, samples):
        if not isinstance(samples, list):
            samples = [({}, samples)]
        merged = {}  # two names may be one as text
        for labels, value in samples:
            key = _labels(labels)
            merged[key] = merged.get(key, 0) + value
        self._parts += [f"{name}{labels} {value}\n" for labels, value in merged.items()]

    def counter(self, name, explained, samples) -> None:
        """Add a counter: a number, or a list of pairs of labels (a dict) and a number."""
        self._begin(name if self._openmetrics else f"{name}_total", "counter", explained)
        self._add(f"{name}_total", samples)

    def gauge(self, name, explained, samples) -> None:
        """Add a gauge; as counter()."""
        self._begin(name, "gauge", explained)
        self._add(name, samples)

    def histogram(self, name, explained, bounds, samples) -> None:
        """Add a histogram.

        Args:
            name, explained: Its name, and what it tells.
            bounds: Upper bounds of all buckets but the last.
            samples: Triples of labels, the counts of the buckets, each for itself, and the sum.
        """
        self._begin(name, "histogram", explained)
        for labels, buckets, total in samples:
            so_far = 0
            for bound, count in zip([*map(repr, bounds), "+Inf"], buckets):
                so_far += count
                self._parts.append(f"{name}_bucket{_labels(labels | {'le': bound})} {so_far}\n")
            self._parts.append(f"{name}_sum{_labels(labels)} {total!r}\n{name}_count{_labels(labels)} {so_far}\n")

    def text(self) -> str:
        """Return all that was added."""
        return "".join(self._parts) + ("# EOF\n" if self._openmetrics else "")
