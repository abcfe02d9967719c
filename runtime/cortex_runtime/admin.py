"""The admin port's ASGI application: health, readiness, metrics and load of the replica. No user code runs in its process."""

from collections.abc import Callable

import orjson
from starlette.types import Receive, Scope, Send

from cortex_runtime.metrics import CONTENT_TYPE

_JSON = "application/json"


class Admin:
    """GET /healthz, /readyz, /metrics, /load.

    problem: gives (reason, message) of why the replica isn't ready, or None. metrics: gives the text. load: requests in flight.
    average: their number over the last ten seconds, which the operator scales by. failure: why a worker died last, which /readyz
    tells as "lastFailure".
    """

    def __init__(
        self,
        problem: Callable[[], tuple[str, str] | None],
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
            last = {} if failure is None else {"lastFailure": failure}
            if problem is None:
                return 200, _JSON, orjson.dumps({"ready": True, **last})
            reason, message = problem
            return 503, _JSON, orjson.dumps({"ready": False, "reason": reason, "message": message, **last})
        if path == "/metrics":
            return 200, CONTENT_TYPE, self._metrics()
        if path == "/load":
            average = {} if self._average is None else {"average": round(self._average(), 3)}
            return 200, _JSON, orjson.dumps({"inFlight": self._load(), **average})
        return 404, _JSON, b'{"error":"there are /healthz, /readyz, /metrics and /load"}'
