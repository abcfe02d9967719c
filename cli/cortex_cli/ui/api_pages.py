"""The views of one API: its overview, and its manifest."""

import time
from dataclasses import dataclass
from typing import Any

import yaml
from starlette.requests import Request

from cortex_api import KINDS
from cortex_cli import apis
from cortex_cli.apis import API
from cortex_cli.ui import api_charts
from cortex_cli.ui.backend import Backend
from cortex_cli.ui.detail import condition_with_advice
from cortex_cli.ui.highlight import yaml_lines
from cortex_cli.ui.overview import url_of
from cortex_cli.ui.pages import View, problem
from cortex_cli.ui.states import STATES
from cortex_cli.ui.store import key_of

PATH = "/{kind}/{namespace}/{name}"
_KINDS = {kind.lower(): kind for kind in KINDS}
_DEFAULT_WINDOW = "5m"


@dataclass(frozen=True)
class Tab:
    """A page of an API."""

    title: str
    url: str
    is_current: bool


class APIPages:
    """The views."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def overview(self, request: Request) -> View:
        """Why the API is or isn't ready, its charts, replicas, models and predictions."""
        api = self._find(request)
        if api is None:
            return _missing(request)
        details, history = self._backend.details, self._backend.sampler.history(key_of(api))
        window = request.query_params.get("window", "")
        window = window if window in api_charts.WINDOWS else _DEFAULT_WINDOW
        now = time.time()
        period = api_charts.period(history, now, api_charts.WINDOWS[window])
        findings = details.findings(api)
        tracker = api.live["spec"].get("tracker") or {}
        context = {
            "findings": findings,
            "problems": [found for found in findings.value or () if found.level == "bad"],
            "tiles": details.tiles(api),
            "charts": api_charts.charts(api.kind, history, period),
            "windows": list(api_charts.WINDOWS),
            "window": window,
            "scaling": details.scaling(api, now - api_charts.WINDOWS["3h"]),
            "replicas": details.replicas(api),
            "models": details.models(api),
            "predictions": details.predictions(api),
            "prediction_chart": api_charts.prediction_chart(
                history, period, tracker.get("modelType") == "regression"
            )
            if tracker
            else None,
            "endpoint": str(api.status.get("url") or ""),
        }
        live = ("_status.html", "_head.html", "_why.html", "_tiles.html", "_charts.html", "_details.html")
        return View("api.html", {**self._frame(request, api, ""), **context}, live)

    def manifest(self, request: Request) -> View:
        """The resource as YAML: what was applied, and the status."""
        api = self._find(request)
        if api is None:
            return _missing(request)
        live = {key: value for key, value in api.live.items() if key != "status"}
        context = {"spec": yaml_lines(_yaml(live)), "api_status": yaml_lines(_yaml({"status": api.status}))}
        frame = self._frame(request, api, "/manifest")
        return View("manifest.html", {**frame, **context}, ("_status.html", "_head.html", "_manifest.html"))

    def _find(self, request: Request) -> API | None:
        params = request.path_params
        kind = _KINDS.get(params["kind"], "")
        key = (kind, params["namespace"], params["name"])
        self._backend.sampler.watch(key)
        return self._backend.store.find(key)

    def _frame(self, request: Request, api: API, tab: str) -> dict[str, Any]:
        """Return the variables of all pages of an API."""
        url = url_of(api)
        condition, remedy = condition_with_advice(api)
        tabs = [("Overview", ""), ("Manifest", "/manifest")]
        return {
            "api": api,
            "url": url,
            "path": url,
            "age": apis.age(api.live["metadata"].get("creationTimestamp")),
            "condition": condition,
            "remedy": remedy,
            "states": STATES,
            "tabs": [Tab(title, url + suffix, suffix == tab) for title, suffix in tabs],
            "errors": self._backend.sampler.errors(key_of(api)),
        }


def _missing(request: Request) -> View:
    params = request.path_params
    message = f"{params['name']} does not exist in namespace {params['namespace']}. It may have been deleted."
    return problem("API not found", message, 404)


def _yaml(content: Any) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)
