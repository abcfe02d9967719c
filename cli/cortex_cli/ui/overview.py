"""The rows of the overview: one API each, with its state and the requests of the last minute. Filter and sort them."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

from markupsafe import Markup

from cortex_cli import apis, number_text
from cortex_cli.apis import API
from cortex_cli.number_text import NO_DATA, latency_text
from cortex_cli.replica_metrics import Latency
from cortex_cli.ui.charts import sparkline
from cortex_cli.ui.history import History, Recent
from cortex_cli.ui.sampler import Sampler
from cortex_cli.ui.states import STATES, Condition, condition_of, words
from cortex_cli.ui.store import Store, key_of

_SPARK_SECONDS = 300.0
_MESSAGE = 240
_DEFAULT_SORT = "state"


@dataclass(frozen=True)
class Row:
    """One API. Numbers are texts; `values` has them as numbers to sort by, None if unknown."""

    id: str
    api: API
    url: str
    condition: Condition
    message: str
    replicas: str
    rate: str
    errors: str
    has_errors: bool
    p50: str
    p99: str
    queue: str
    queue_title: str
    candidate: str
    candidate_title: str
    candidate_state: str
    spark: Markup
    age: str
    unreachable: int
    values: dict[str, Any]


@dataclass(frozen=True)
class Query:
    """What the overview shows, from the URL. sort: a column; prefixed with "-" for descending order."""

    text: str = ""
    state: str = ""
    namespace: str = ""
    sort: str = _DEFAULT_SORT

    @classmethod
    def of(cls, parameters: Any) -> "Query":
        """Read the parameters of a URL. Unknown values are ignored."""
        state, sort = parameters.get("state", ""), parameters.get("sort", "")
        return cls(
            parameters.get("q", "").strip(),
            state if state in STATES else "",
            parameters.get("namespace", ""),
            sort if sort.removeprefix("-") in SORTS else _DEFAULT_SORT,
        )

    def url(self, **changes: str) -> str:
        """Return the URL of the overview with some parameters changed."""
        fields = {
            "q": self.text,
            "state": self.state,
            "namespace": self.namespace,
            "sort": self.sort,
        } | changes
        kept = {
            key: value for key, value in fields.items() if value and (key, value) != ("sort", _DEFAULT_SORT)
        }
        return "/" + (f"?{urlencode(kept)}" if kept else "")

    def includes(self, api: API, condition: Condition) -> bool:
        """Return whether an API matches text and namespace. Each word must occur in name, namespace, kind, reason or message."""
        if self.namespace and api.namespace != self.namespace:
            return False
        message = first_line(condition.message)
        haystack = f"{api.name} {api.namespace} {api.kind} {condition.reason} {message}".lower()
        return all(word in haystack for word in self.text.lower().split())


@dataclass(frozen=True)
class Column:
    """A column of the table. is_number: aligned to the right, the largest first when sorted."""

    key: str
    title: str
    hint: str = ""
    is_number: bool = False


COLUMNS = (
    Column("name", "API"),
    Column("state", "State", "the worst first"),
    Column("replicas", "Replicas", "ready / desired", True),
    Column("rate", "Requests", "responses per second, last minute; the line shows 5 minutes", True),
    Column("errors", "Errors", "share of 5XX responses, last minute", True),
    Column("p50", "p50", "median latency, last minute", True),
    Column("p99", "p99", "99th percentile of the latency, last minute", True),
    Column("queue", "In flight", "requests running and waiting; for an AsyncAPI, jobs in the queue", True),
    Column("candidate", "Candidate", "version under test"),
    Column("age", "Age", "", True),
)
SORTS = {column.key for column in COLUMNS}


@dataclass(frozen=True)
class Overview:
    """What the overview shows. counts: APIs by state, of those that match text and namespace. more: rows that are left out."""

    rows: list[Row]
    more: int
    counts: dict[str, int]
    total: int
    namespaces: list[str]
    query: Query

    def sort_of(self, column: Column) -> str:
        """Return "ascending", "descending" or "none" for a column."""
        key = self.query.sort
        if key.removeprefix("-") != column.key:
            return "none"
        return "descending" if key.startswith("-") else "ascending"

    def sort_url(self, column: Column) -> str:
        """Return the URL that sorts by a column, or reverses its order."""
        first, second = (f"-{column.key}", column.key) if column.is_number else (column.key, f"-{column.key}")
        return self.query.url(sort=second if self.query.sort == first else first)


def overview(store: Store, sampler: Sampler, query: Query, limit: int | None = None) -> Overview:
    """Return the overview at this time. limit: number of rows; None for all."""
    now = time.time()
    every = store.apis()
    matching = [(api, found) for api in every if query.includes(api, found := condition_of(api))]
    counts = Counter(condition.state for _, condition in matching)
    shown = [each for each in matching if not query.state or each[1].state == query.state]
    if query.sort == _DEFAULT_SORT:
        # Numbers are computed for the rows that are shown only.
        shown.sort(key=lambda each: (each[1].rank, not _has_failed_candidate(each[0])))
        rows = [row_of(api, condition, sampler, now) for api, condition in shown[:limit]]
    else:
        rows = ordered([row_of(api, condition, sampler, now) for api, condition in shown], query.sort)[:limit]
    return Overview(
        rows,
        len(shown) - len(rows),
        {state: counts[state] for state in STATES},
        len(matching),
        sorted({api.namespace for api in every}),
        query,
    )


def ordered(rows: list[Row], sort: str) -> list[Row]:
    """Sort rows, which are in the order of their names, by a column; unknown values last."""
    key = sort.removeprefix("-")
    known = [row for row in rows if row.values.get(key) is not None]
    unknown = [row for row in rows if row.values.get(key) is None]
    value: Callable[[Row], Any] = lambda row: row.values[key]  # noqa: E731
    return sorted(known, key=value, reverse=sort.startswith("-")) + unknown


def row_of(api: API, condition: Condition, sampler: Sampler, now: float) -> Row:
    """Return the row of an API."""
    key = key_of(api)
    history = sampler.history(key)
    recent = history.recent(now)
    latency = latency_of(api, recent)
    desired = apis.desired_replicas(api)
    ready = int(api.status.get("readyReplicas") or 0)
    candidate = api.status.get("candidate") or {}
    queued, queue, queue_title = queue_of(api, history, recent)
    rate = rate_of(api, recent)
    errors = error_share(api, recent)
    return Row(
        id=f"row-{api.kind}-{api.namespace}-{api.name}".lower(),
        api=api,
        url=url_of(api),
        condition=condition,
        message=first_line(condition.message),
        replicas=f"{ready}/{desired}" if desired is not None else str(ready),
        rate=number_text.rate(rate),
        errors=number_text.share(errors),
        has_errors=bool(errors),
        p50=latency_text(latency.p50, latency) if latency else NO_DATA,
        p99=latency_text(latency.p99, latency) if latency else NO_DATA,
        queue=queue,
        queue_title=queue_title,
        candidate=candidate_text(candidate),
        candidate_title=candidate_title(candidate),
        candidate_state=str(candidate.get("phase", "")),
        spark=spark_of(api, history, now),
        age=apis.age(api.live["metadata"].get("creationTimestamp")),
        unreachable=len(sampler.errors(key)),
        values={
            "name": api.name,
            "state": condition.rank,
            "replicas": ready,
            "rate": rate,
            "errors": errors,
            "p50": latency.p50 if latency else None,
            "p99": latency.p99 if latency else None,
            "queue": queued,
            "candidate": candidate.get("phase"),
            # Ascending age is descending time of creation.
            "age": -_created(api, now),
        },
    )


def url_of(api: API) -> str:
    """Return the path of the page of an API."""
    return f"/{api.kind.lower()}/{quote(api.namespace)}/{quote(api.name)}"


def rate_of(api: API, recent: Recent) -> float | None:
    """Return the responses or, for an AsyncAPI, the ended jobs per second; None if nothing was measured yet."""
    if api.kind != "AsyncAPI":
        return recent.rate()
    return sum(recent.traffic.jobs.values()) / recent.seconds if recent.seconds else None


def latency_of(api: API, recent: Recent) -> Latency | None:
    """Return the latency of the requests, or of the jobs of an AsyncAPI."""
    return recent.traffic.job_latency if api.kind == "AsyncAPI" else recent.traffic.latency


def error_share(api: API, recent: Recent) -> float | None:
    """Return the share of 5XX responses, or of failed jobs; None if nothing has ended."""
    if api.kind != "AsyncAPI":
        return recent.error_share
    total = sum(recent.traffic.jobs.values())
    return recent.traffic.jobs.get("failed", 0) / total if total else None


def queue_of(api: API, history: History, recent: Recent) -> tuple[int | None, str, str]:
    """Return the number of requests or jobs that run or wait: as a number, as text, and with an explanation."""
    if api.kind == "AsyncAPI":
        queue = api.status.get("queue")
        if not queue:
            return None, NO_DATA, "the length of the queue is not known"
        queued, running = int(queue.get("queued") or 0), int(queue.get("inFlight") or 0)
        return queued + running, f"{queued:,} + {running:,}", f"{queued:,} jobs wait, {running:,} run"
    if history.last is None or history.last.counted is None:
        return None, NO_DATA, "no replica could be read"
    running, waiting = recent.traffic.in_flight, history.last.counted.queue_length
    title = f"{waiting:,} of them wait for a thread" if waiting else "running and waiting"
    return running, f"{running:,}", title


def spark_of(api: API, history: History, now: float) -> Markup:
    """Return the line of the requests or ended jobs of the last minutes."""
    start = now - _SPARK_SECONDS
    values = [
        (p.time, sum((p.counted.jobs if api.kind == "AsyncAPI" else p.counted.classes).values()) / p.seconds)
        for p in history.points(start)
        if p.counted is not None and p.seconds
    ]
    return sparkline(values, start, now) if any(value for _, value in values) else Markup("")


def candidate_text(candidate: dict[str, Any]) -> str:
    """Return the phase of a candidate, and its share of the requests if it has one; "" without a candidate."""
    if not candidate:
        return ""
    phase = words(str(candidate.get("phase") or "Starting"))
    return f"{phase} {candidate['weight']}%" if candidate.get("weight") else phase


def candidate_title(candidate: dict[str, Any]) -> str:
    """Return what a candidate receives, in words."""
    return f"answers {candidate.get('weight') or 0}% of the requests, copies of {candidate.get('mirror') or 0}% of the others"


def first_line(message: str) -> str:
    """Return the beginning of a message."""
    line = next(iter(message.strip().splitlines()), "")
    return line if len(line) <= _MESSAGE else f"{line[: _MESSAGE - 1]}…"


def _created(api: API, now: float) -> float:
    stamp = api.live["metadata"].get("creationTimestamp")
    return datetime.fromisoformat(stamp).timestamp() if stamp else now


def _has_failed_candidate(api: API) -> bool:
    return (api.status.get("candidate") or {}).get("phase") in ("RolledBack", "Failed")
