"""The front of an AsyncAPI: takes jobs, says where they are, hands out results. No user code runs here.

`python -m cortex_runtime gateway --config /etc/cortex/api.json --port 8080 --admin-port 8081` with this environment:

- CORTEX_QUEUE_URL: where the queue is (queues/connect.py tells the forms); what boto3 needs when it is sqs://.
- CORTEX_MAX_REPLICAS: workers that there may be; with handler.maxReplicaConcurrency it bounds the queue. Default 1.
- CORTEX_WEBHOOK_SECRET: signs webhooks. Absent: they are not signed.

On the API's port:

- POST / takes a job: 202 {"id"}. Headers: Content-Type decides what the handler gets; Idempotency-Key (the same again gives
  the same job); X-Cortex-Webhook (who is told of the end, where spec.webhook is set).
- GET /ID: 200 {"id", "status"} with status in_queue, in_progress, completed (and "result", "timestamp") or failed (and
  "error", "reason", "timestamp"); `?wait=20s` answers as soon as the job has ended, a minute later at most.
- DELETE /ID cancels: 200, as GET. What has ended stays as it is.
- Errors: 400, 404 unknown id, 413, 415, 422 key used for another request, 503 with Retry-After: queue full, or not reachable.

On the admin port, beside /healthz, /readyz (200 from when the queue was reached first until the drain), /metrics and /load:
GET /queue: 200 {"queued": 3, "in_flight": 1, "oldest_seconds": 4.2} (the last null where the backend can't tell), or
503 {"error": "QueueUnreachable", "message"}. SIGTERM drains.
"""

import asyncio
import logging
import math
import os
import re
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from urllib.parse import parse_qs

import orjson
import uvicorn
import uvloop
from starlette.types import Receive, Scope, Send

from cortex_api import Document, units
from cortex_runtime import logs
from cortex_runtime.admin import Admin
from cortex_runtime.errors import StartError, UserError
from cortex_runtime.logs import AccessLog, RequestIds, request_id
from cortex_runtime.payload import ClientGone, decompress, read_body
from cortex_runtime.queues.base import Depth, Full, Missing, QueueError, Record, Status, Unreachable
from cortex_runtime.queues.connect import VARIABLE, connect
from cortex_runtime.queues.metrics import GatewayMetrics
from cortex_runtime.queues.queue import OtherRequest, Queue
from cortex_runtime.queues.view import view
from cortex_runtime.respond import JSON
from cortex_runtime.server import Server
from cortex_runtime.webhook import Webhooks, problem_of
from cortex_runtime.workers import listen

log = logging.getLogger("cortex")

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}").fullmatch
_SANE_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}").fullmatch
_LONGEST_WAIT = 60.0
_BODY_SECONDS = 60.0
_LONGEST_KEY = 255
_DEPTH_SECONDS = 1.0
_CLIENT_GONE = 499
_SWEEP_SECONDS = (60.0, 3600.0)
_PAUSE, _LONGEST_PAUSE = 0.2, 5.0

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class GatewayOptions:
    """The command line of `gateway`. drain_delay: seconds for which new connections are still taken after SIGTERM."""

    config: Path
    host: str
    port: int
    admin_port: int
    termination_log: Path
    drain_delay: float = 1.0


class QueueState:
    """Whether the queue answers, and how long it is: asked for when somebody wants to know, and then not again for a second."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._asking: asyncio.Task[Depth] | None = None
        self._asked = -math.inf
        self._accepted = 0
        self.depth: Depth | None = None
        self.problem = "it has not been reached yet"
        self.reached = False

    async def open(self) -> None:
        """Reach the queue, however long it takes."""
        pause = _PAUSE
        while not self.reached:
            try:
                await self._queue.backend.open()
                self.reached, self.problem = True, ""
            except QueueError as error:
                self.problem = str(error)
                log.error("the queue can't be reached, and is tried again: %s", error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def accepted(self) -> None:
        """One job more."""
        self._accepted += 1

    async def fresh(self) -> Depth:
        """The queue's depth, at most a second old. Raises Unreachable."""
        if self.depth is not None and self._age() < _DEPTH_SECONDS and not self.problem:
            return self.depth
        return await asyncio.shield(self._ask())

    async def length(self) -> int:
        """Jobs that wait and run, as far as known here: nobody waits for the backend unless nothing is known."""
        if self.depth is None:
            await self.fresh()
        elif self._age() >= _DEPTH_SECONDS:
            self._ask()
        assert self.depth is not None
        return self.depth.waiting + self.depth.taken + self._accepted

    def _age(self) -> float:
        return asyncio.get_running_loop().time() - self._asked

    def _ask(self) -> "asyncio.Task[Depth]":
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._measure())
            # Nobody may be waiting for it.
            self._asking.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._asking

    async def _measure(self) -> Depth:
        before = self._accepted
        try:
            if not self.reached:
                raise Unreachable(self.problem)
            try:
                self.depth = await self._queue.depth()
            except QueueError:
                # A server that came back with an empty disk has no streams; where there is one, nothing changes.
                await self._queue.backend.open()
                self.depth = await self._queue.depth()
        except QueueError as error:
            self.problem = str(error)
            raise Unreachable(str(error)) from error
        finally:
            self._asked = asyncio.get_running_loop().time()
        self.problem = ""
        self._accepted -= before
        return self.depth


class Gateway:
    """The ASGI application. limit: jobs waiting and running; above it no more are taken."""

    def __init__(
        self, document: Document, queue: Queue, state: QueueState, limit: int, metrics: GatewayMetrics
    ) -> None:
        self._queue = queue
        self._state = state
        self._limit = limit
        self._metrics = metrics
        self._max_body = units.parse_bytes(document.spec.handler.max_body_size)
        self._webhook = document.spec.webhook
        self._access = AccessLog(document.spec.handler.log_level)
        self._ids = RequestIds()
        self.draining = asyncio.Event()

    def close(self) -> None:
        """Write what is pending."""
        self._access.flush()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request, whatever happens; count it and log it."""
        if scope["type"] != "http":
            return
        began = perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        given = headers.get(b"x-request-id")
        identity = given.decode() if given is not None and _SANE_ID(given) else self._ids.new()
        request_id.set(identity)
        extra: Headers = [(b"x-request-id", identity.encode())]
        if self.draining.is_set():
            extra.append((b"connection", b"close"))
        self._metrics.begin()
        status = _CLIENT_GONE
        try:
            status, body = await self._guarded(scope, receive, headers, extra)
            await send_json(send, status, body, extra)
        except ClientGone:
            pass
        finally:
            seconds = perf_counter() - began
            self._metrics.answered(scope["method"], status, seconds)
            if status >= self._access.least_status:
                self._access.add(scope["method"], scope["path"], status, seconds, identity)

    async def _guarded(
        self, scope: Scope, receive: Receive, headers: dict[bytes, bytes], extra: Headers
    ) -> tuple[int, bytes]:
        try:
            return await self._answer(scope, receive, headers, extra)
        except UserError as error:
            return error.status, _error(error.message)
        except OtherRequest as error:
            return 422, _error(str(error))
        except Full as error:
            extra.append((b"retry-after", b"30"))
            return 503, _error(f"the queue has no room: {error}")
        except Unreachable as error:
            extra.append((b"retry-after", b"2"))
            log.warning("a request found the queue unreachable: %s", error)
            return 503, _error(f"the queue can't be reached: {error}")
        except ClientGone:
            raise
        except Exception:
            log.exception("the gateway failed")
            return 500, _error("internal server error")

    async def _answer(
        self, scope: Scope, receive: Receive, headers: dict[bytes, bytes], extra: Headers
    ) -> tuple[int, bytes]:
        verb, path = scope["method"], scope["path"]
        if path == "/":
            if verb != "POST":
                extra.append((b"allow", b"POST"))
                return 405, _error(f"{verb} is not for /: jobs are posted there, and are at /ID afterwards")
            return await self._take(receive, headers, extra)
        identity = path[1:]
        if not _ID(identity):
            return 404, _error(f"there is nothing at {path}; jobs are posted to /, and are at /ID afterwards")
        if verb == "GET":
            wait = _wait(scope["query_string"])
            record = await self._find(identity, wait)
        elif verb == "DELETE":
            record = await self._queue.cancel(identity)
        else:
            extra.append((b"allow", b"GET, DELETE"))
            return 405, _error(f"{verb} is not for a job; GET and DELETE are")
        if record is None:
            return 404, _error(
                f"there is no job {identity}: it never was, or ended too long ago (queue.retention)"
            )
        if record.status is not Status.COMPLETED:
            return 200, view(record)
        try:
            return 200, view(record, await self._queue.result(record))
        except Missing:
            return 500, _error("the job is completed, but its result is not in the store any more")

    async def _take(self, receive: Receive, headers: dict[bytes, bytes], extra: Headers) -> tuple[int, bytes]:
        if not self._state.reached:
            raise Unreachable(self._state.problem)
        length = await self._state.length()
        if length >= self._limit:
            extra.append((b"retry-after", b"5"))
            self._metrics.refused()
            return 503, _error(f"the queue is full: {length} jobs wait or run, and {self._limit} may")
        key = headers.get(b"idempotency-key", b"").decode("latin-1").strip()
        if len(key) > _LONGEST_KEY:
            raise UserError(f"Idempotency-Key is longer than {_LONGEST_KEY} characters")
        webhook = self._address(headers.get(b"x-cortex-webhook", b"").decode("latin-1").strip())
        body = await read_body(receive, headers, self._max_body, _BODY_SECONDS)
        if (encoding := headers.get(b"content-encoding")) is not None:
            body = decompress(body, encoding.strip().lower(), self._max_body)
        kind = headers.get(b"content-type", b"")
        if kind[:16].lower() == b"application/json":
            _check_json(body)
        identity = await self._queue.submit(body, kind.decode("latin-1"), key=key, webhook=webhook)
        self._state.accepted()
        self._metrics.accepted()
        return 202, orjson.dumps({"id": identity})

    def _address(self, given: str) -> str:
        if not given:
            return str(self._webhook.url or "") if self._webhook is not None else ""
        if self._webhook is None:
            raise UserError("this API has no webhook (spec.webhook), so X-Cortex-Webhook can't be used")
        if problem := problem_of(given):
            raise UserError(f"X-Cortex-Webhook: {problem}")
        return given

    async def _find(self, identity: str, wait: float) -> Record | None:
        if not self._state.reached:
            raise Unreachable(self._state.problem)
        if not wait or self.draining.is_set():
            return await self._queue.status(identity)
        waiting = asyncio.ensure_future(self._queue.wait(identity, wait))
        draining = asyncio.ensure_future(self.draining.wait())
        try:
            await asyncio.wait((waiting, draining), return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return waiting.result()
            return await self._queue.status(identity)
        finally:
            for task in (waiting, draining):
                task.cancel()
            await asyncio.gather(waiting, draining, return_exceptions=True)


class GatewayAdmin:
    """The admin port: that of a replica, and GET /queue."""

    def __init__(self, admin: Admin, state: QueueState) -> None:
        self._admin = admin
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"] != "/queue":
            await self._admin(scope, receive, send)
            return
        try:
            depth = await self._state.fresh()
        except Unreachable as error:
            await send_json(send, 503, orjson.dumps({"error": "QueueUnreachable", "message": str(error)}), ())
            return
        fields = {"queued": depth.waiting, "in_flight": depth.taken, "oldest_seconds": depth.oldest}
        await send_json(send, 200, orjson.dumps(fields), ())


async def send_json(send: Send, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Send a whole response."""
    lines = [(b"content-type", JSON), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})


def _error(message: str) -> bytes:
    return orjson.dumps({"error": message, "requestId": request_id.get()})


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


def gateway(options: GatewayOptions) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit status: 0, or 1 with the cause in the termination log."""
    from cortex_runtime.supervisor import record_termination

    logs.configure("info")
    try:
        document = read_document(options.config)
        queue = connect(os.environ.get(VARIABLE, ""), document)
        limit = document.spec.handler.max_replica_concurrency * _max_replicas()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(options, document, queue, limit))
    except StartError as error:
        log.error("the gateway can't start: %s", error, extra={"reason": error.reason})
        record_termination(options.termination_log, error)
        return 1
    return 0


def read_document(path: Path) -> Document:
    """The document of an AsyncAPI; logging follows it. Raises StartError."""
    try:
        document = Document.read(path)
    except (OSError, ValueError) as error:
        raise StartError("InvalidSpec", str(error)) from error
    if document.kind != "AsyncAPI":
        raise StartError("InvalidSpec", f"kind: {document.kind} has no queue; `serve` is for it")
    logs.configure(document.spec.handler.log_level)
    return document


def _max_replicas() -> int:
    given = os.environ.get("CORTEX_MAX_REPLICAS", "1")
    if not given.isdigit() or int(given) < 1:
        raise StartError("InvalidSpec", f"CORTEX_MAX_REPLICAS must be a number from 1 on, not {given!r}")
    return int(given)


async def _run(options: GatewayOptions, document: Document, queue: Queue, limit: int) -> None:
    stopping, at_once = asyncio.Event(), False

    def interrupt() -> None:
        nonlocal at_once
        at_once = True
        stopping.set()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    loop.add_signal_handler(signal.SIGINT, interrupt)
    state = QueueState(queue)
    metrics = GatewayMetrics(document, lambda: state.depth)
    app = Gateway(document, queue, state, limit, metrics)

    def problem() -> tuple[str, str] | None:
        if stopping.is_set():
            return "Draining", "the gateway is shutting down"
        return None if state.reached else ("QueueUnreachable", state.problem)

    try:
        listener = listen(options.host, options.port)
    except OSError as error:
        raise StartError("InvalidSpec", f"can't listen on {options.host}:{options.port}: {error}") from error
    servers = [
        Server(_config(app, None, 0), lambda: None),
        Server(
            _config(
                GatewayAdmin(Admin(problem, metrics.text, metrics.in_flight), state),
                options.host,
                options.admin_port,
            ),
            lambda: None,
        ),
    ]
    serving = [
        asyncio.create_task(servers[0].serve(sockets=[listener])),
        asyncio.create_task(servers[1].serve()),
    ]
    behind = [asyncio.create_task(_behind(document, queue, state, metrics, options))]
    try:
        stop = asyncio.create_task(stopping.wait())
        await asyncio.wait((stop, *serving, *behind), return_when=asyncio.FIRST_COMPLETED)
        for task in (*serving, *behind):
            if task.done():
                task.result()
                raise StartError("InvalidSpec", "the gateway's server ended; is its port taken?")
        log.info("draining: %d requests in flight", metrics.in_flight())
        app.draining.set()
        if not at_once:
            await asyncio.sleep(options.drain_delay)
        servers[0].should_exit = True
        await serving[0]
    finally:
        for task in behind:
            task.cancel()
        await asyncio.gather(*behind, return_exceptions=True)
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*serving, return_exceptions=True)
        app.close()
        await queue.backend.close()


async def _behind(
    document: Document, queue: Queue, state: QueueState, metrics: GatewayMetrics, options: GatewayOptions
) -> None:
    """What goes on behind the requests: reach the queue, then deliver webhooks and sweep."""
    await state.open()
    log.info("ready: taking jobs of %s on port %d", document.name, options.port)
    work = [_sweep(queue)]
    if document.spec.webhook is not None:
        secret = os.environ.get("CORTEX_WEBHOOK_SECRET", "").encode()
        timeout = units.seconds(document.spec.webhook.timeout)
        work.append(Webhooks(queue, secret, timeout, metrics.webhook).run())
    await asyncio.gather(*work)


async def _sweep(queue: Queue) -> None:
    least, most = _SWEEP_SECONDS
    pause = min(most, max(least, queue.settings.retention / 10))
    while True:
        await asyncio.sleep(pause)
        try:
            if gone := await queue.sweep():
                log.info("%d payloads were removed whose jobs never came to be", gone)
        except QueueError as error:
            log.warning("what is past its time could not be removed: %s", error)


def _config(app: object, host: str | None, port: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        host=host or "127.0.0.1",
        port=port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=2048,
        timeout_graceful_shutdown=30,
    )
