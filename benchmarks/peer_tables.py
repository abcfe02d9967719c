"""The tables of `make bench-peers`, from its rows: medians of the rounds, and medians of the rounds' ratios. Pure."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

OURS = "cortex"
TITLES = {
    "trivial": "A trivial synchronous handler, 200 bytes of JSON",
    "iris": "A small ONNX model (iris)",
    "batching": "An ONNX model of 25 million weights, server-side batching (16 rows, 5 ms)",
}


@dataclass(frozen=True)
class Row:
    """One value of one round. at: whose capacity the load was half of, for those measured under a Poisson load."""

    work: str
    contestant: str
    round: int
    measured: str
    at: str
    value: str


class Values:
    """Rows by what they are of."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = list(rows)
        self.contestants = list(dict.fromkeys(row.contestant for row in self.rows if row.contestant))
        self.works = [work for work in TITLES if any(row.work == work for row in self.rows)]

    def of(self, work: str, name: str, measured: str, at: str = "") -> dict[int, float]:
        """Round to value."""
        return {
            row.round: float(row.value)
            for row in self.rows
            if (row.work, row.contestant, row.measured, row.at) == (work, name, measured, at)
        }

    def said(self, name: str, measured: str) -> str:
        """A word of the whole run."""
        return next((r.value for r in self.rows if r.contestant == name and r.measured == measured), "")


def ratio(ours: dict[int, float], theirs: dict[int, float]) -> str:
    """The median of the ratios of rounds that have both, and the lowest and the highest, which tell how sure it is."""
    found = [ours[number] / theirs[number] for number in ours if theirs.get(number)]
    if not found:
        return "-"
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def middle(values: dict[int, float], digits: int = 0) -> str:
    return f"{statistics.median(values.values()):,.{digits}f}" if values else "-"


def tables(rows: Iterable[Row]) -> str:
    """All tables of a run, as Markdown."""
    values = Values(rows)
    parts = [_method(values)]
    parts += [_throughput(values, work) for work in values.works]
    if "iris" in values.works:
        parts += [_tail(values), _start(values)]
    return "\n\n".join([*parts, *_failures(values)])


def _method(values: Values) -> str:
    loads = values.of("", "", "load_average").values()
    versions = ", ".join(f"{name} {values.said(name, 'version')}" for name in values.contestants)
    lines = [f"{values.said('', 'how')}. {versions}."]
    if loads:
        lines.append(f"Load average of the machine when a round began: {min(loads):.1f} to {max(loads):.1f}.")
    return "\n".join(lines)


def _table(heads: list[str], lines: Iterable[list[str]]) -> str:
    ruled = ["---" if number == 0 else "---:" for number in range(len(heads))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [heads, ruled, *lines])


def _by_median(values: Values, work: str, measured: str, highest_first: bool) -> list[str]:
    """Contestants that have a value, the best first."""
    medians = {
        name: statistics.median(found.values())
        for name in values.contestants
        if (found := values.of(work, name, measured))
    }
    return sorted(medians, key=lambda name: medians[name], reverse=highest_first)


def _throughput(values: Values, work: str) -> str:
    ours = values.of(work, OURS, "requests_per_second")
    lines = []
    for name in _by_median(values, work, "requests_per_second", highest_first=True):
        rates = values.of(work, name, "requests_per_second")
        shown = "" if name == OURS else ratio(ours, rates)
        lines.append([name, middle(rates), shown, middle(values.of(work, name, "cpu_us"))])
    heads = ["", "requests/s", "cortex is x times that", "CPU per request, µs"]
    return f"### {TITLES[work]}\n\n" + _table(heads, lines)


def _tail(values: Values) -> str:
    own = values.of("iris", OURS, "p99_ms", OURS)
    lines = []
    for name in _by_median(values, "iris", "requests_per_second", highest_first=True):
        rate = middle(values.of("iris", name, "rate", name))
        theirs = values.of("iris", name, "p99_ms", name)
        cells = [name, rate, middle(values.of("iris", name, "p50_ms", name), 2), middle(theirs, 2)]
        if name == OURS:
            lines.append([*cells, "", "", ""])
        else:
            beside = values.of("iris", OURS, "p99_ms", name)
            lines.append([*cells, middle(beside, 2), ratio(beside, theirs), ratio(own, theirs)])
    heads = ["", "requests/s (half of its capacity)", "p50, ms", "p99, ms", "cortex's p99 at this rate, ms"]
    heads += ["ratio at this rate", "ratio, each at half of its own capacity"]
    return "### Poisson arrivals at half load (iris)\n\n" + _table(heads, lines)


def _start(values: Values) -> str:
    lines = []
    for name in _by_median(values, "iris", "start_s", highest_first=False):
        starts, share = values.of("iris", name, "start_s"), values.of("iris", name, "pss_mib")
        cells = [name, middle(starts, 2), ratio(values.of("iris", OURS, "start_s"), starts)]
        cells += [middle(share), ratio(values.of("iris", OURS, "pss_mib"), share)]
        if name == OURS:
            cells[2] = cells[4] = ""
        cells += [middle(values.of("iris", name, "rss_mib")), middle(values.of("iris", name, "processes"))]
        lines.append(cells)
    heads = [
        "",
        "start to first answer, s",
        "cortex's as a ratio",
        "memory (PSS), MiB",
        "cortex's as a ratio",
    ]
    heads += ["RSS, added up, MiB", "processes"]
    return "### Start and memory (iris)\n\n" + _table(heads, lines)


def _failures(values: Values) -> list[str]:
    failed = [row for row in values.rows if row.measured == "failed"]
    lines = [
        f"- {row.contestant}{f', {row.work}, round {row.round}' if row.work else ''}: {row.value}"
        for row in failed
    ]
    return ["### Not measured\n\n" + "\n".join(lines)] if lines else []
