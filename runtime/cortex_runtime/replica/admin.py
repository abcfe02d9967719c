"""The admin port's ASGI application: health, readiness, metrics and load of the replica. No user code runs in its process."""

from collections.abc import Callable
from typing import Any, NamedTuple

import orjson
from starlette.types import Receive, Scope, Send

from cortex_runtime.metrics.prometheus import CONTENT_TYPE

_JSON = "application/json"


class Unready(NamedTuple):
    """Why a replica is not ready. since: when it began to do what the message says, RFC 3339; empty where that says nothing."""

    reason: str
    message: str
    since: str = ""


class Admin:
    """GET /healthz, /readyz, /metrics, /load.

    problem: returns why the replica isn't ready, or None. metrics: gives the text. load: requests in flight.
    average: their number over the last ten seconds, which the operator scales by. failure: why a worker died last, which /readyz
    tells as "lastFailure".
    """

    def __init__(
        self,
        problem: Callable[[], Unready | None],
        metrics: Callable[[], bytes],
        load: Callable[[], int],
        average: Callable[[], float] | None = None,
        failure: Callable[[], dict[str, str] | None] = lambda: None,
    ) -> None:
        self._problem = problem
        self._metrics = metrics
        self._load = load
        self._average = average
        self._failure = failure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        status, kind, body = self._answer(scope["path"])
        headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _answer(self, path: str) -> tuple[int, str, bytes]:
        if path == "/healthz":
            return 200, _JSON, b'{"ok":true}'
        if path == "/readyz":
            problem, failure = self._problem(), self._failure()
            more: dict[str, Any] = self._loads()
            if failure is not None:
                more["lastFailure"] = failure
            if problem is None:
                return 200, _JSON, orjson.dumps({"ready": True, **more})
            if problem.since:
                more["since"] = problem.since
            why = {"reason": problem.reason, "message": problem.message}
            return 503, _JSON, orjson.dumps({"ready": False, **why, **more})
        if path == "/metrics":
            return 200, CONTENT_TYPE, self._metrics()
        if path == "/load":
            return 200, _JSON, orjson.dumps(self._loads())
        return 404, _JSON, b'{"error":"there are /healthz, /readyz, /metrics and /load"}'

    def _loads(self) -> dict[str, float]:
        average = {} if self._average is None else {"average": round(self._average(), 3)}
        return {"inFlight": self._load(), **average}
