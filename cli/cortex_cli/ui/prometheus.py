"""The charts of an API from a Prometheus server, with the labels that the chart's PodMonitor adds (docs/monitoring.md)."""

import json
import math
from collections import defaultdict
from typing import Any

import httpx

from cortex_api.contract import CANDIDATE, GATEWAY
from cortex_cli.connection import ClusterError
from cortex_cli.ui.api_charts import JOBS, PERCENTILES, POINTS, STATUSES, Period, arrange
from cortex_cli.ui.charts import Chart, Series, Values
from cortex_cli.ui.store import Key

WINDOWS = {"24h": 86400.0, "7d": 604800.0}
"""Further periods, in seconds: longer than the page keeps points."""
_TIMEOUT = 10.0
_SHORTEST_STEP, _SHORTEST_RANGE = 15.0, 60.0
Result = list[tuple[dict[str, str], Values]]


class Prometheus:
    """A client of one server. url: such as http://prometheus:9090, with credentials if it needs them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url.rstrip("/"), timeout=_TIMEOUT)

    def charts(self, key: Key, period: Period) -> list[Chart]:
        """Return the charts of an API. Raises ClusterError."""
        kind, namespace, name = key
        labels = f'namespace="{namespace}", api="{name}", kind="{kind}", component!="{CANDIDATE}"'
        step = max(period.seconds / POINTS, _SHORTEST_STEP)
        # At least four scrapes at the usual 15 seconds.
        seconds = f"{max(2 * step, _SHORTEST_RANGE):.0f}s"

        def query(expression: str) -> Result:
            return self._query(expression.replace("LABELS", labels).replace("RANGE", seconds), period, step)

        is_async = kind == "AsyncAPI"
        buckets = (
            "cortex_async_finish_seconds_bucket" if is_async else "cortex_request_duration_seconds_bucket"
        )
        latencies = [
            Series(
                name,
                color,
                _only(query(f"histogram_quantile({q}, sum by (le) (rate({buckets}{{LABELS}}[RANGE])))")),
            )
            for name, (q, color) in PERCENTILES.items()
        ]
        ready = query(f'count(cortex_workers_ready{{LABELS, component!="{GATEWAY}"}} > 0)')
        replicas = [Series("Ready", "teal", _only(ready), "step")]
        if is_async:
            rates = _jobs(query("sum by (status) (rate(cortex_async_jobs_total{LABELS}[RANGE]))"))
            loads = [_only(query("max(cortex_async_queued{LABELS})"))]
        else:
            rates = _classes(query("sum by (status) (rate(cortex_requests_total{LABELS}[RANGE]))"))
            loads = [
                _only(query("sum(cortex_requests_in_flight{LABELS})")),
                _only(query("sum(cortex_queue_length{LABELS})")),
            ]
        return arrange(kind, period, rates, latencies, loads, replicas)

    def _query(self, expression: str, period: Period, step: float) -> Result:
        """Return the labels and values of each series. Raises ClusterError."""
        # The last step is now, so that new values do not appear a step later. It is rounded: otherwise each request would select
        # other scrapes, and the chart would flicker.
        end = math.floor(period.end / _SHORTEST_STEP) * _SHORTEST_STEP
        start = end - math.floor(period.seconds / step) * step
        form = {"query": expression, "start": str(start), "end": str(end), "step": str(step)}
        try:
            response = self._client.post("/api/v1/query_range", data=form)
            content = json.loads(response.content)
        except httpx.HTTPError as error:
            raise ClusterError(f"Prometheus at {self.url} does not respond: {error}") from error
        except ValueError as error:
            raise ClusterError(
                f"{self.url} is not a Prometheus server: status {response.status_code}"
            ) from error
        if not isinstance(content, dict) or content.get("status") != "success":
            raise ClusterError(
                f"Prometheus: {content.get('error') if isinstance(content, dict) else content}"
            )
        return [(each["metric"], _values(each["values"], step)) for each in content["data"]["result"]]


def _values(pairs: list[Any], step: float) -> Values:
    """Return the values of a series, with a gap where steps are missing. NaN, a percentile without requests, is no value."""
    found: list[tuple[float, float | None]] = []
    for moment, text in pairs:
        if found and moment - found[-1][0] > 1.5 * step:
            found.append((found[-1][0] + step, None))
        value = float(text)
        found.append((float(moment), None if math.isnan(value) else value))
    return found


def _only(result: Result) -> Values:
    return result[0][1] if result else []


def _jobs(result: Result) -> list[Series]:
    """Return one series for each status of ended jobs."""
    by_status = {labels.get("status", ""): values for labels, values in result}
    first = next(iter(JOBS))
    return [
        Series(name, color, by_status.get(status, []), "area" if status == first else "line")
        for status, (name, color) in JOBS.items()
    ]


def _classes(result: Result) -> list[Series]:
    """Return one series for each status class."""
    sums: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
    for labels, values in result:
        for moment, value in values:
            if value is not None:
                sums[f"{labels.get('status', '?')[0]}XX"][moment] += value
    first = next(iter(STATUSES))
    return [
        Series(name, color, sorted(sums[key].items()), "area" if key == first else "line")
        for key, (name, color) in STATUSES.items()
        if key == first or sums[key]
    ]
