"""The ASGI application of a gateway. See gateway.py for its requests and responses."""

import asyncio
import logging
import re
from collections.abc import Callable
from time import perf_counter
from urllib.parse import parse_qs, urlsplit

import orjson
from starlette.types import Receive, Scope, Send

from cortex_api import Document, units
from cortex_runtime.errors import ClientDisconnected, HttpError, UserError
from cortex_runtime.http import api_keys
from cortex_runtime.http.request_body import as_utf8, is_json, media_type, method_not_allowed, read_body
from cortex_runtime.http.response import JSON, error_body, error_of, send
from cortex_runtime.jobs.gateway_docs import GatewayDocs
from cortex_runtime.jobs.metrics import GatewayMetrics
from cortex_runtime.jobs.queue_state import QueueState
from cortex_runtime.logs.access_log import AccessLog
from cortex_runtime.logs.records import RequestIds, request_id
from cortex_runtime.queues.base import Full, Missing, Record, Status, Unreachable
from cortex_runtime.queues.dead_letters import NotRetryable, refusal
from cortex_runtime.queues.job_json import view
from cortex_runtime.queues.queue import Queue
from cortex_runtime.queues.submissions import OtherRequest

log = logging.getLogger("cortex")

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}").fullmatch
_SANE_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}").fullmatch
_LONGEST_WAIT = 60.0
_BODY_SECONDS = 60.0
_LONGEST_KEY = 255
_LONGEST_URL = 1024
_CLIENT_GONE = 499

Headers = list[tuple[bytes, bytes]]


class Gateway:
    """The ASGI application. limit: maximum of queued and running jobs; more are refused. Raises StartError."""

    def __init__(
        self, document: Document, queue: Queue, state: QueueState, limit: int, metrics: GatewayMetrics
    ) -> None:
        self._queue = queue
        self._state = state
        self._limit = limit
        self._metrics = metrics
        self._max_body = units.parse_bytes(document.spec.handler.max_body_size)
        self._webhook = document.async_spec.webhook
        self._keys = api_keys.load(document)
        self._docs = GatewayDocs(document, queue.backend) if document.spec.handler.docs else None
        self._access = AccessLog(document.spec.handler.log_level)
        self._ids = RequestIds()
        self.is_draining = False
        """Whether each response is the last one of its connection."""
        self.stopping = asyncio.Event()
        """Ends requests that wait for the end of a job."""
        self.trace_context: Callable[[], dict[str, str] | None] = lambda: None
        """Returns the trace context of the current request, as headers."""

    def close(self) -> None:
        """Write pending lines of the access log."""
        self._access.flush()

    async def __call__(self, scope: Scope, receive: Receive, to: Send) -> None:
        """Respond to one HTTP request, count it and log it."""
        if scope["type"] != "http":
            return
        began = perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        given = headers.get(b"x-request-id")
        identity = given.decode() if given is not None and _SANE_ID(given) else self._ids.new()
        request_id.set(identity)
        extra: Headers = [(b"x-request-id", identity.encode())]
        if self.is_draining:
            extra.append((b"connection", b"close"))
        self._metrics.begin()
        status = _CLIENT_GONE
        try:
            status, kind, body = await self._guarded(scope, receive, headers, extra)
            await send(to, status, kind, body, extra)
        except ClientDisconnected:
            pass
        finally:
            seconds = perf_counter() - began
            self._metrics.answered(scope["method"], status, seconds)
            if status >= self._access.least_status:
                self._access.add(scope["method"], scope["path"], status, seconds, identity)

    async def _guarded(
        self, scope: Scope, receive: Receive, headers: dict[bytes, bytes], extra: Headers
    ) -> tuple[int, bytes, bytes]:
        try:
            if self._docs is not None and (found := self._docs.page(scope)) is not None:
                status, kind, body, more = found
                extra.extend(more)
                return status, kind, body
            if self._keys is not None and not self._keys.admits(headers):
                raise HttpError(401, api_keys.MESSAGE, [self._keys.challenge])
            if self._docs is not None and self._docs.asks_for_document(scope):
                return 200, JSON, await self._docs.document()
            status, body = await self._answer(scope, receive, headers)
            return status, JSON, body
        except ClientDisconnected:
            raise
        except Exception as error:
            answer = error_of(_of_the_queue(error), "the gateway")
            extra.extend(answer.headers)
            return answer.status, JSON, error_body(answer)

    async def _answer(self, scope: Scope, receive: Receive, headers: dict[bytes, bytes]) -> tuple[int, bytes]:
        verb, path = scope["method"], scope["path"]
        if path == "/":
            if verb != "POST":
                raise HttpError(
                    405,
                    f"method {verb} not allowed for /; use POST to submit a job and GET /ID to read it",
                    [(b"allow", b"POST")],
                )
            return await self._take(receive, headers)
        if self._docs is not None and self._docs.serves(path):
            raise method_not_allowed(scope, ("GET", "HEAD"))
        identity, slash, action = path[1:].partition("/")
        if not _ID(identity) or (slash and action != "retry"):
            raise HttpError(404, f"{path[:80]} not found; use POST / to submit a job and GET /ID to read it")
        if action:
            if verb != "POST":
                raise HttpError(405, f"method {verb} not allowed for {path}; use POST", [(b"allow", b"POST")])
            record = await self._retry(identity)
        elif verb in ("GET", "HEAD"):
            wait = _wait(scope["query_string"])
            record = await self._find(identity, wait)
        elif verb == "DELETE":
            record = await self._queue.cancel(identity)
        else:
            raise HttpError(
                405,
                f"method {verb} not allowed for a job; use GET or DELETE",
                [(b"allow", b"GET, HEAD, DELETE")],
            )
        if record is None:
            raise HttpError(404, f"job {identity} not found, or its result has expired (queue.retention)")
        if record.status is not Status.COMPLETED:
            return 200, view(record)
        try:
            return 200, view(record, await self._queue.result(record))
        except Missing:
            raise HttpError(500, "the job is completed, but its result is missing in the store") from None

    async def _take(self, receive: Receive, headers: dict[bytes, bytes]) -> tuple[int, bytes]:
        if not self._state.reached:
            raise Unreachable(self._state.problem)
        length = await self._state.length()
        if length >= self._limit:
            self._metrics.refused()
            raise HttpError(
                503,
                f"the queue is full: {length} jobs are queued or running; the limit is {self._limit}",
                [(b"retry-after", b"5")],
            )
        key = headers.get(b"idempotency-key", b"").decode("latin-1").strip()
        if len(key) > _LONGEST_KEY:
            raise UserError(f"Idempotency-Key must be at most {_LONGEST_KEY} characters")
        webhook = self._address(headers.get(b"x-cortex-webhook", b"").decode("latin-1").strip())
        body = await read_body(receive, headers, self._max_body, _BODY_SECONDS)
        kind = headers.get(b"content-type", b"")
        if kind == JSON:
            _check_json(body)
        else:
            named, parameters = media_type(kind)
            if is_json(named):
                _check_json(as_utf8(body, parameters))
        identity = await self._queue.submit(
            body, kind.decode("latin-1"), key=key, webhook=webhook, trace=self.trace_context()
        )
        self._state.accepted()
        self._metrics.accepted()
        return 202, orjson.dumps({"id": identity})

    def _address(self, given: str) -> str:
        if not given:
            return str(self._webhook.url or "") if self._webhook is not None else ""
        if self._webhook is None:
            raise UserError("X-Cortex-Webhook requires spec.webhook, which this API does not set")
        if problem := webhook_problem(given):
            raise UserError(f"X-Cortex-Webhook: {problem}")
        return given

    async def _retry(self, identity: str) -> Record | None:
        if not self._state.reached:
            raise Unreachable(self._state.problem)
        record = await self._queue.dead_letters.retry(identity)
        if record is not None:
            log.info("job %s is retried", identity)
        elif (known := await self._queue.status(identity)) is not None:
            # It has no record of its own yet.
            raise NotRetryable(refusal(known))
        return record

    async def _find(self, identity: str, wait: float) -> Record | None:
        if not self._state.reached:
            raise Unreachable(self._state.problem)
        if not wait or self.stopping.is_set():
            return await self._queue.status(identity)
        waiting = asyncio.ensure_future(self._queue.wait(identity, wait))
        stopping = asyncio.ensure_future(self.stopping.wait())
        try:
            await asyncio.wait((waiting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return waiting.result()
            return await self._queue.status(identity)
        finally:
            for task in (waiting, stopping):
                task.cancel()
            await asyncio.gather(waiting, stopping, return_exceptions=True)


def _of_the_queue(error: Exception) -> Exception:
    """Return what an error of the queue means to a client; any other error unchanged."""
    if isinstance(error, OtherRequest):
        return HttpError(422, str(error))
    if isinstance(error, NotRetryable):
        return HttpError(409, str(error))
    if isinstance(error, Full):
        return HttpError(503, f"the queue is out of space: {error}", [(b"retry-after", b"30")])
    if isinstance(error, Unreachable):
        log.warning("a request failed because the queue is unreachable: %s", error)
        return HttpError(503, f"the queue is unreachable: {error}", [(b"retry-after", b"2")])
    return error


def _wait(query: bytes) -> float:
    values = parse_qs(query.decode("latin-1")).get("wait")
    if not values:
        return 0.0
    try:
        return min(_LONGEST_WAIT, units.seconds(values[-1]))
    except ValueError as error:
        raise UserError(f"wait: {error}") from error


def _check_json(body: bytes) -> None:
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UserError(f"the body is not valid JSON: {error}") from error


def webhook_problem(url: str) -> str | None:
    """Return what is wrong with the URL of a webhook, or None."""
    if len(url) > _LONGEST_URL:
        return f"must be at most {_LONGEST_URL} characters"
    if any(ord(character) <= 32 for character in url):
        return "must not contain spaces or control characters"
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        known = False
    return None if known else "must be an http or https URL"
