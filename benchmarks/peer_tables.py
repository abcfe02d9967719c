"""Format the results of `make bench-peers` as tables: medians, and medians of the ratios of alternating slices. No I/O."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

OURS = "cortex"
OPEN_LOOP = "iris"
TITLES = {
    "trivial": "A trivial synchronous handler, 200 bytes of JSON",
    "iris": "A small ONNX model (iris)",
    "batching": "An ONNX model of 25 million weights, batches of 16 rows or 5 ms",
    "v2-rest": "Open Inference Protocol over HTTP (iris, JSON)",
    "v2-grpc": "Open Inference Protocol over gRPC (iris)",
    "v2-json-1mb": "Open Inference Protocol over HTTP, a tensor of 1 MB in JSON",
    "v2-binary-1mb": "Open Inference Protocol over HTTP, a tensor of 1 MB as bytes",
    "v2-grpc-1mb": "Open Inference Protocol over gRPC, a tensor of 1 MB",
}
GOALS = {
    ("v2-rest", "kserve"): 5,
    ("v2-rest", "mlserver"): 3,
    ("v2-grpc", "kserve"): 3,
    ("v2-grpc", "mlserver"): 3,
    **{(f"v2-{form}-1mb", peer): 2 for form in ("json", "binary", "grpc") for peer in ("kserve", "mlserver")},
}
"""Minimum ratios of requests per second, by workload and peer."""


@dataclass(frozen=True)
class Row:
    """A measured value.

    peer: the peer of the pair. contestant: the measured server: the peer, or Cortex. number: number of the round or slice.
    """

    work: str
    peer: str
    contestant: str
    number: int
    measured: str
    value: str


class Values:
    """Access to the rows by workload, peer and server."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = list(rows)
        self.peers = list(dict.fromkeys(row.peer for row in self.rows if row.peer))
        self.works = [work for work in TITLES if any(row.work == work for row in self.rows)]

    def of(self, work: str, peer: str, contestant: str, measured: str) -> dict[int, float]:
        """Return the values by number of the round or slice."""
        return {
            row.number: float(row.value)
            for row in self.rows
            if (row.work, row.peer, row.contestant, row.measured) == (work, peer, contestant, measured)
        }

    def ours(self, work: str, measured: str) -> list[float]:
        """Return the values of Cortex in all pairs."""
        return [value for peer in self.peers for value in self.of(work, peer, OURS, measured).values()]

    def theirs(self, work: str, peer: str, measured: str) -> list[float]:
        return list(self.of(work, peer, peer, measured).values())

    def ratio(self, work: str, peer: str, measured: str, own: str = "") -> str:
        """Format the ratio of Cortex to the peer: median, minimum and maximum. own: name of Cortex's value, if different."""
        theirs = self.of(work, peer, peer, measured)
        found = [
            value / theirs[number]
            for number, value in self.of(work, peer, OURS, own or measured).items()
            if theirs.get(number)
        ]
        return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})" if found else "-"

    def best_first(self, work: str, measured: str, highest: bool) -> list[str]:
        """Return the peers that have a value, sorted by their medians."""
        medians = {
            peer: statistics.median(found)
            for peer in self.peers
            if (found := self.theirs(work, peer, measured))
        }
        return sorted(medians, key=lambda peer: medians[peer], reverse=highest)


def tables(rows: Iterable[Row]) -> str:
    """Return all tables of a run in Markdown."""
    values = Values(rows)
    parts = [_method(values), *(_throughput(values, work) for work in values.works)]
    if OPEN_LOOP in values.works:
        parts += [_tail(values), _start(values)]
    return "\n\n".join([*parts, *_failures(values)])


def _method(values: Values) -> str:
    versions = {row.contestant: row.value for row in values.rows if row.measured == "version"}
    how = next((row.value for row in values.rows if row.measured == "how"), "")
    rounds = max((row.number for row in values.rows if row.measured == "load_average"), default=0)
    lines = [
        f"{how}; {rounds} rounds.",
        ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
    ]
    loads = [float(row.value) for row in values.rows if row.measured == "load_average"]
    if loads:
        lines.append(
            f"Load average of the machine before each pair: {min(loads):.1f} to {max(loads):.1f}, "
            f"median {statistics.median(loads):.1f}."
        )
    return "\n".join(lines)


def _table(heads: list[str], lines: Iterable[list[str]]) -> str:
    ruled = ["---" if number == 0 else "---:" for number in range(len(heads))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [heads, ruled, *lines])


def _middle(values: list[float], digits: int = 0) -> str:
    return f"{statistics.median(values):,.{digits}f}" if values else "-"


def _throughput(values: Values, work: str) -> str:
    goals = {peer: str(ratio) for (each, peer), ratio in GOALS.items() if each == work}
    rates = values.ours(work, "requests_per_second")
    lines = [[OURS, _middle(rates), "", _middle(values.ours(work, "cpu_us")), ""]]
    for peer in values.best_first(work, "requests_per_second", highest=True):
        line = [peer, _middle(values.theirs(work, peer, "requests_per_second"))]
        line += [values.ratio(work, peer, "requests_per_second")]
        line += [_middle(values.theirs(work, peer, "cpu_us")), values.ratio(work, peer, "cpu_us")]
        lines.append(line)
    heads = ["", "requests/s", "Cortex / peer", "CPU per request, µs", "Cortex / peer"]
    if goals:
        heads.append("goal")
        lines = [[*line, goals.get(line[0], "")] for line in lines]
    return f"### {TITLES[work]}\n\n" + _table(heads, lines)


def _tail(values: Values) -> str:
    quantiles = ("p50_ms", "p99_ms", "p999_ms")
    own = [_middle(values.ours(OPEN_LOOP, f"own_{name}"), 2) for name in quantiles]
    lines = [[OURS, _middle(values.ours(OPEN_LOOP, "own_rate")), *own, "", "", ""]]
    for peer in values.best_first(OPEN_LOOP, "requests_per_second", highest=True):
        line = [peer, _middle(values.theirs(OPEN_LOOP, peer, "rate"))]
        line += [_middle(values.theirs(OPEN_LOOP, peer, name), 2) for name in quantiles]
        line += [
            " / ".join(
                _middle(list(values.of(OPEN_LOOP, peer, OURS, name).values()), 2) for name in quantiles[1:]
            ),
            values.ratio(OPEN_LOOP, peer, "p99_ms"),
            values.ratio(OPEN_LOOP, peer, "p99_ms", "own_p99_ms"),
        ]
        lines.append(line)
    heads = ["", "requests/s (half of its maximum)", "p50, ms", "p99, ms", "p99.9, ms"]
    heads += ["p99 / p99.9 of Cortex at this rate, ms", "p99: Cortex / peer"]
    heads += ["p99: Cortex at half of its own maximum / peer"]
    text = "### Poisson arrivals at half load (iris)\n\n" + _table(heads, lines)
    closed = [
        f"{peer} {sum(found):.0f}"
        for peer in values.peers
        if sum(found := values.theirs(OPEN_LOOP, peer, "reconnects"))
    ]
    return text + (f"\n\nConnections that the server closed: {', '.join(closed)}." if closed else "")


def _start(values: Values) -> str:
    measured = {"start_s": 2, "start_cpu_s": 2, "pss_mib": 0, "rss_mib": 0, "processes": 0}
    compared = ("start_s", "start_cpu_s", "pss_mib")
    ours = [_middle(values.ours(OPEN_LOOP, name), digits) for name, digits in measured.items()]
    lines = [[OURS, ours[0], "", ours[1], "", ours[2], "", *ours[3:]]]
    for peer in values.best_first(OPEN_LOOP, "start_s", highest=False):
        theirs = [_middle(values.theirs(OPEN_LOOP, peer, name), digits) for name, digits in measured.items()]
        ratios = [values.ratio(OPEN_LOOP, peer, name) for name in compared]
        cells = [cell for pair in zip(theirs, ratios, strict=False) for cell in pair]
        lines.append([peer, *cells, *theirs[len(compared) :]])
    heads = [
        "",
        "time to first response, s",
        "Cortex / peer",
        "CPU time to first response, s",
        "Cortex / peer",
    ]
    heads += ["memory (PSS), MiB", "Cortex / peer", "memory (RSS), MiB", "processes"]
    return "### Start and memory (iris)\n\n" + _table(heads, lines)


def _failures(values: Values) -> list[str]:
    lines = [
        f"- {row.peer}{f', {row.work}, round {row.number}' if row.work else ''}: {row.value}"
        for row in values.rows
        if row.measured == "failed"
    ]
    return ["### Not measured\n\n" + "\n".join(lines)] if lines else []
