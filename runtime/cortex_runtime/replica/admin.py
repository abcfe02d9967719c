"""The ASGI application of the admin port: health, readiness, metrics and load of a replica. Its process runs no user code."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import orjson
from starlette.types import Receive, Scope, Send

from cortex_api.contract import HEALTH_PATH, LOAD_PATH, METRICS_PATH, READINESS_PATH
from cortex_runtime.http.server import Server, plain

_JSON = "application/json"
_PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_OPENMETRICS_TEXT = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class NotReady(NamedTuple):
    """Why a replica is not ready. since: when the step in the message began, RFC 3339; empty where the message names no step."""

    reason: str
    message: str
    since: str = ""


class Admin:
    """GET /healthz, /readyz, /metrics and /load.

    problem: returns why the replica is not ready, or None. metrics: returns the Prometheus text. load: returns the requests in
    flight. average: returns their average over the last ten seconds, by which the operator scales. failure: returns why a
    worker last exited or hung, which /readyz reports as "lastFailure". reports: by further path, return status and JSON.
    openmetrics: returns the metrics in the OpenMetrics format, for clients that accept it; None if there is nothing to add.
    """

    def __init__(
        self,
        problem: Callable[[], NotReady | None],
        metrics: Callable[[], bytes],
        load: Callable[[], int],
        average: Callable[[], float] | None = None,
        failure: Callable[[], dict[str, str] | None] = lambda: None,
        reports: Mapping[str, Callable[[], Awaitable[tuple[int, Any]]]] | None = None,
        openmetrics: Callable[[], bytes] | None = None,
    ) -> None:
        self._problem = problem
        self._metrics = metrics
        self._load = load
        self._average = average
        self._failure = failure
        self._reports = reports or {}
        self._openmetrics = openmetrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to one request."""
        if scope["type"] != "http":
            return
        report = self._reports.get(scope["path"])
        if report is not None:
            status, content = await report()
            content_type, body = _JSON, orjson.dumps(content)
        else:
            status, content_type, body = self._respond(scope["path"], dict(scope["headers"]))
        headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _respond(self, path: str, headers: Mapping[bytes, bytes]) -> tuple[int, str, bytes]:
        if path == HEALTH_PATH:
            return 200, _JSON, b'{"ok":true}'
        if path == READINESS_PATH:
            problem, failure = self._problem(), self._failure()
            details: dict[str, Any] = self._loads()
            if failure is not None:
                details["lastFailure"] = failure
            if problem is None:
                return 200, _JSON, orjson.dumps({"ready": True, **details})
            if problem.since:
                details["since"] = problem.since
            why = {"reason": problem.reason, "message": problem.message}
            return 503, _JSON, orjson.dumps({"ready": False, **why, **details})
        if path == METRICS_PATH:
            if self._openmetrics is not None and b"application/openmetrics-text" in headers.get(
                b"accept", b""
            ):
                return 200, _OPENMETRICS_TEXT, self._openmetrics()
            return 200, _PROMETHEUS_TEXT, self._metrics()
        if path == LOAD_PATH:
            return 200, _JSON, orjson.dumps(self._loads())
        paths = (HEALTH_PATH, READINESS_PATH, METRICS_PATH, LOAD_PATH, *self._reports)
        return 404, _JSON, orjson.dumps({"error": f"not found; use {', '.join(paths)}"})

    def _loads(self) -> dict[str, float]:
        average = {} if self._average is None else {"average": round(self._average(), 3)}
        return {"inFlight": self._load(), **average}


def admin_server(admin: Admin) -> Server:
    """Return the server of the admin port."""
    config = plain(admin, loop="asyncio", timeout_graceful_shutdown=1)
    return Server(config, lambda: None)
