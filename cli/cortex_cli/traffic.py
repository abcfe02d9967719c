"""What replicas say of their requests and predictions: their Prometheus texts, added up. Pure."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

_SAMPLE = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)(?: \d+)?$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


@dataclass(frozen=True)
class Sample:
    """One line of the text."""

    name: str
    labels: dict[str, str]
    value: float


@dataclass(frozen=True)
class Values:
    """Predictions of a regression: how many, their smallest, greatest and average."""

    count: int
    least: float
    greatest: float
    average: float


@dataclass(frozen=True)
class Traffic:
    """The requests of some replicas since each of them started.

    classes: status class ("2XX") to number. seconds: the average time of one, or None when there was none. predictions: class
    to number, most frequent first, of a tracked classification; values: of a tracked regression; skipped: why a response could
    not be counted, to number. jobs: how those of an AsyncAPI ended, to number; job_seconds: the average time of one from
    acceptance to end.
    """

    classes: dict[str, int] = field(default_factory=dict)
    seconds: float | None = None
    in_flight: int = 0
    predictions: dict[str, int] = field(default_factory=dict)
    values: Values | None = None
    skipped: dict[str, int] = field(default_factory=dict)
    jobs: dict[str, int] = field(default_factory=dict)
    job_seconds: float | None = None


def samples(text: str) -> Iterator[Sample]:
    """The samples of a Prometheus text; what is none is passed over."""
    for line in text.splitlines():
        found = _SAMPLE.match(line)
        if found is None:
            continue
        labels = {
            name: re.sub(r'\\[\\"n]', lambda escape: _ESCAPES[escape[0]], value)
            for name, value in _LABEL.findall(found["labels"] or "")
        }
        try:
            yield Sample(found["name"], labels, float(found["value"]))
        except ValueError:
            continue


def add_up(texts: Iterable[str]) -> Traffic:
    """All replicas together."""
    classes: Counter[str] = Counter()
    predictions: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    jobs: Counter[str] = Counter()
    found: defaultdict[str, list[float]] = defaultdict(list)
    for text in texts:
        for sample in samples(text):
            match sample.name:
                case "cortex_requests_total":
                    classes[f"{sample.labels.get('status', '?')[0]}XX"] += int(sample.value)
                case "cortex_tracker_predictions_total":
                    predictions[sample.labels.get("class", "")] += int(sample.value)
                case "cortex_tracker_skipped_total":
                    skipped[sample.labels.get("reason", "")] += int(sample.value)
                case "cortex_async_jobs_total":
                    jobs[sample.labels.get("status", "")] += int(sample.value)
                case _:
                    found[sample.name].append(sample.value)
    return Traffic(
        dict(sorted(classes.items())),
        _average(found, "cortex_request_duration_seconds"),
        int(sum(found["cortex_requests_in_flight"])),
        dict(predictions.most_common()),
        _values(found),
        dict(skipped.most_common()),
        dict(sorted(jobs.items())),
        _average(found, "cortex_async_finish_seconds"),
    )


def _average(found: Mapping[str, list[float]], name: str) -> float | None:
    """Of a histogram; None when nothing was counted."""
    count = sum(found.get(f"{name}_count", ()))
    return sum(found.get(f"{name}_sum", ())) / count if count else None


def _values(found: Mapping[str, list[float]]) -> Values | None:
    count = sum(found.get("cortex_tracker_value_count", ()))
    least = [value for value in found.get("cortex_tracker_value_min", ()) if not math.isnan(value)]
    greatest = [value for value in found.get("cortex_tracker_value_max", ()) if not math.isnan(value)]
    if not count or not least or not greatest:
        return None
    return Values(int(count), min(least), max(greatest), sum(found["cortex_tracker_value_sum"]) / count)
