"""The views of one API: its overview, its candidate and its manifest."""

import time
from dataclasses import replace
from typing import Any

import yaml
from starlette.requests import Request

from cortex_cli.apis import API
from cortex_cli.ui import api_charts
from cortex_cli.ui.api_charts import Period
from cortex_cli.ui.backend import Backend
from cortex_cli.ui.candidate_view import candidate_of, read_examples
from cortex_cli.ui.charts import Chart
from cortex_cli.ui.frame import Frame, missing
from cortex_cli.ui.highlight import yaml_lines
from cortex_cli.ui.lookups import Lookup
from cortex_cli.ui.pages import View
from cortex_cli.ui.prometheus import WINDOWS as PROMETHEUS_WINDOWS
from cortex_cli.ui.prometheus import Prometheus
from cortex_cli.ui.store import key_of

_DEFAULT_WINDOW = "5m"


class APIPages:
    """The views."""

    def __init__(self, backend: Backend, frame: Frame) -> None:
        self._backend = backend
        self._frame = frame

    def overview(self, request: Request, api: API) -> View:
        """Why the API is or isn't ready, its charts, replicas, models and predictions."""
        details, history = self._backend.details, self._backend.sampler.history(key_of(api))
        prometheus = self._backend.prometheus
        windows = api_charts.WINDOWS | (PROMETHEUS_WINDOWS if prometheus else {})
        window = request.query_params.get("window", "")
        window = window if window in windows else _DEFAULT_WINDOW
        now = time.time()
        period = api_charts.period(history, now, windows[window])
        charts, source_error = api_charts.charts(api.kind, history, period), ""
        if prometheus is not None:
            found = self._from_prometheus(prometheus, api, window, windows[window])
            charts, source_error = (found.value or charts), found.error
        findings = details.findings(api)
        tracker = api.live["spec"].get("tracker") or {}
        context = {
            "findings": findings,
            "problems": [found for found in findings.value or () if found.level == "bad"],
            "tiles": details.tiles(api),
            "charts": charts,
            "source_error": source_error,
            "windows": list(windows),
            "window": window,
            "scaling": details.scaling(api, now - api_charts.WINDOWS["3h"]),
            "replicas": details.replicas(api),
            "models": details.models(api),
            "processes": int(api.live["spec"]["handler"].get("processesPerReplica", 1)),
            "predictions": details.predictions(api),
            "prediction_chart": api_charts.prediction_chart(
                history, period, tracker.get("modelType") == "regression"
            )
            if tracker
            else None,
            "endpoint": str(api.status.get("url") or ""),
        }
        live = ("_status.html", "_head.html", "_why.html", "_tiles.html", "_charts.html", "_details.html")
        return View("api.html", {**self._frame.context(api, ""), **context}, live)

    def _from_prometheus(self, prometheus: Prometheus, api: API, window: str, seconds: float) -> Lookup:
        """Return the charts of a period."""

        def read() -> list[Chart]:
            now = time.time()
            found = prometheus.charts(key_of(api), Period(now - seconds, now))
            decisions = self._backend.sampler.history(key_of(api)).decisions(now - seconds)
            return [replace(chart, marks=api_charts.marks(decisions)) for chart in found]

        key = ("prometheus", key_of(api), window)
        return self._backend.lookups.get(key, read, max(5.0, seconds / api_charts.POINTS), 1.0)

    def candidate(self, request: Request, api: API) -> View:
        """The candidate beside the stable version, and responses that differ."""
        found = candidate_of(api)
        if found is None:
            return missing(request)
        backend = self._backend
        cluster, store = backend.open(), backend.store
        key = ("differences", key_of(api))
        examples = backend.lookups.get(key, lambda: read_examples(cluster, store, api), 5.0, 0.5)
        context = {"candidate": found, "examples": examples}
        frame = self._frame.context(api, "/compare")
        return View("candidate.html", {**frame, **context}, ("_status.html", "_head.html", "_candidate.html"))

    def manifest(self, request: Request, api: API) -> View:
        """The resource as YAML: what was applied, and the status."""
        live = {key: value for key, value in api.live.items() if key != "status"}
        context = {"spec": yaml_lines(_yaml(live)), "api_status": yaml_lines(_yaml({"status": api.status}))}
        frame = self._frame.context(api, "/manifest")
        return View("manifest.html", {**frame, **context}, ("_status.html", "_head.html", "_manifest.html"))


def _yaml(content: Any) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)
