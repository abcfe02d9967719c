"""The gateway of an AsyncAPI: accepts jobs and returns their status and results. It runs no user code.

`python -m cortex_runtime gateway --config /etc/cortex/api.json --port 8080 --admin-port 8081` with this environment:

- CORTEX_QUEUE_URL: the URL of the queue (see queues/connect.py); for sqs:// also the environment variables of boto3.
- CORTEX_MAX_REPLICAS: maximum of worker replicas; times handler.maxReplicaConcurrency it limits the queue. Default 1.
- CORTEX_WEBHOOK_SECRET: the key that signs webhooks. If unset, they are not signed.

On the API's port:

- POST / submits a job: 202 {"id"}. Headers: Content-Type decides the type of the payload; Idempotency-Key (the same key returns
  the same job); X-Cortex-Webhook (URL that is notified of the end, if spec.webhook is set).
- GET /ID: 200 {"id", "status"} with status in_queue, in_progress, completed (and "result", "timestamp") or failed (and
  "error", "reason", "timestamp"); `?wait=20s` responds once the job has ended, or after that time (at most a minute).
- DELETE /ID cancels: 200, as GET. A job that has ended stays unchanged.
- POST /ID/retry queues a failed job again, with all its attempts: 200, as GET. 409 if the job has not failed.
- GET /openapi.json and /docs, unless handler.docs is false: the OpenAPI document and a page that shows it.
- Errors: 400, 401 no valid API key (if handler.apiKeys is set), 404 unknown id, 413, 415, 422 key used for another request,
  503 with Retry-After: queue full or unreachable.

On the admin port, alongside /healthz, /readyz (200 from the first connection to the queue until the end of
the drain), /metrics and /load:
GET /queue: 200 {"queued": 3, "in_flight": 1, "oldest_seconds": 4.2} (null if the backend does not report it), or
503 {"error": "QueueUnreachable", "message"}; and GET /jobs (see job_list.py). SIGTERM drains (see replica/drain.py).
"""

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import uvicorn
import uvloop
from starlette.types import ASGIApp, Receive, Scope, Send

from cortex_api import Document, units
from cortex_api.contract import (
    DRAIN_DELAY,
    DRAIN_LIMIT,
    JOBS_PATH,
    MAX_REPLICAS_VARIABLE,
    QUEUE_PATH,
    QUEUE_URL_VARIABLE,
    WEBHOOK_SECRET_VARIABLE,
)
from cortex_runtime.errors import StartError
from cortex_runtime.http import response
from cortex_runtime.http.protocol import GracefulProtocol
from cortex_runtime.http.server import AdminProtocol, Server, counted, plain
from cortex_runtime.jobs.gateway_app import Gateway
from cortex_runtime.jobs.job_list import job_list
from cortex_runtime.jobs.metrics import GatewayMetrics
from cortex_runtime.jobs.queue_state import QueueState
from cortex_runtime.logs import records
from cortex_runtime.processes import garbage
from cortex_runtime.processes.listener import listen
from cortex_runtime.queues.base import QueueError, Unreachable
from cortex_runtime.queues.connect import connect
from cortex_runtime.queues.queue import Queue
from cortex_runtime.replica.admin import Admin, NotReady
from cortex_runtime.replica.drain import wait_until_quiet
from cortex_runtime.replica.termination import record_termination
from cortex_runtime.tracing import open_tracing

log = logging.getLogger("cortex")

_QUEUE_SECONDS = 2.0
"""Timeout for measuring the queue; shorter than that of the operator's request."""
_JOBS_SECONDS = 5.0
_SWEEP_SECONDS = (60.0, 3600.0)


@dataclass(frozen=True)
class GatewayOptions:
    """The command line of `gateway`. drain_delay, drain_limit: as of `wait_until_quiet`, after SIGTERM."""

    config: Path
    host: str
    port: int
    admin_port: int
    termination_log: Path
    drain_delay: float = DRAIN_DELAY
    drain_limit: float = DRAIN_LIMIT


class GatewayAdmin:
    """The admin port of a replica, with GET /queue and GET /jobs in addition."""

    def __init__(self, admin: Admin, state: QueueState, queue: Queue) -> None:
        self._admin = admin
        self._state = state
        self._queue = queue

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to one request."""
        if scope["type"] == "http" and scope["path"] == QUEUE_PATH:
            await _report(send, _QUEUE_SECONDS, self._depth)
        elif scope["type"] == "http" and scope["path"] == JOBS_PATH:
            await _report(send, _JOBS_SECONDS, self._jobs)
        else:
            await self._admin(scope, receive, send)

    async def _depth(self) -> dict[str, Any]:
        depth = await self._state.fresh()
        return {"queued": depth.waiting, "in_flight": depth.taken, "oldest_seconds": depth.oldest}

    async def _jobs(self) -> dict[str, Any]:
        if not self._state.reached:
            raise Unreachable(self._state.problem)
        return await job_list(self._queue)


async def _report(send: Send, seconds: float, read: Callable[[], Awaitable[dict[str, Any]]]) -> None:
    """Respond with what the queue returns within some seconds, or with 503."""
    status = 200
    try:
        async with asyncio.timeout(seconds):
            content = await read()
    except (Unreachable, TimeoutError) as error:
        message = str(error) or f"no response within {seconds:g} s"
        status, content = 503, {"error": "QueueUnreachable", "message": message}
    await response.send(send, status, response.JSON, orjson.dumps(content))


def gateway(options: GatewayOptions) -> int:
    """Serve until SIGTERM or SIGINT. Return the exit status: 0, or 1 with the reason in the termination log."""
    records.configure("info")
    try:
        document = read_document(options.config)
        queue = connect(os.environ.get(QUEUE_URL_VARIABLE, ""), document)
        limit = document.spec.handler.max_replica_concurrency * _max_replicas()
        garbage.tune()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(options, document, queue, limit))
    except StartError as error:
        log.error("failed to start the gateway: %s", error, extra={"reason": error.reason})
        record_termination(options.termination_log, error)
        return 1
    return 0


def read_document(path: Path) -> Document:
    """Return the document of an AsyncAPI and configure logging by it. Raises StartError."""
    try:
        document = Document.read(path)
    except (OSError, ValueError) as error:
        raise StartError("InvalidSpec", str(error)) from error
    if document.kind != "AsyncAPI":
        raise StartError("InvalidSpec", f"kind must be AsyncAPI; got {document.kind}, which `serve` runs")
    records.configure(document.spec.handler.log_level)
    return document


def _max_replicas() -> int:
    given = os.environ.get(MAX_REPLICAS_VARIABLE, "1")
    if not given.isdigit() or int(given) < 1:
        raise StartError("InvalidSpec", f"{MAX_REPLICAS_VARIABLE} must be a positive integer; got {given!r}")
    return int(given)


async def _run(options: GatewayOptions, document: Document, queue: Queue, limit: int) -> None:
    stopping, interrupted, connections = asyncio.Event(), asyncio.Event(), 0

    def interrupt() -> None:
        interrupted.set()
        stopping.set()

    def count_connection() -> None:
        nonlocal connections
        connections += 1

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    loop.add_signal_handler(signal.SIGINT, interrupt)
    state = QueueState(queue)
    metrics = GatewayMetrics(document, lambda: state.depth)
    app = Gateway(document, queue, state, limit, metrics)
    tracing = open_tracing(document)
    served: ASGIApp = app
    if tracing is not None:
        from cortex_runtime.jobs.traced_gateway import traced_gateway

        served = traced_gateway(app, tracing, metrics)

    def problem() -> NotReady | None:
        if servers[0].should_exit:
            return NotReady("Draining", "the gateway is shutting down")
        return None if state.reached else NotReady("QueueUnreachable", state.problem)

    listeners = [listen(options.host, port) for port in (options.port, options.admin_port)]
    admin = GatewayAdmin(Admin(problem, metrics.text, metrics.in_flight), state, queue)
    configs = _config(served, counted(GracefulProtocol, count_connection)), _config(admin, AdminProtocol)
    servers = [Server(config, lambda: None) for config in configs]
    serving = [
        asyncio.create_task(server.serve(sockets=[listener]))
        for server, listener in zip(servers, listeners, strict=True)
    ]
    background = [asyncio.create_task(_background(document, queue, state, metrics, options))]
    try:
        stop = asyncio.create_task(stopping.wait())
        await asyncio.wait((stop, *serving, *background), return_when=asyncio.FIRST_COMPLETED)
        for task in (*serving, *background):
            if task.done():
                task.result()
                raise StartError("InvalidSpec", "the server of the gateway exited unexpectedly")
        log.info("draining: %d requests in flight", metrics.in_flight())
        app.is_draining = True
        await wait_until_quiet(options.drain_delay, options.drain_limit, lambda: connections, interrupted)
        app.stopping.set()
        servers[0].should_exit = True
        await serving[0]
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*serving, return_exceptions=True)
        app.close()
        await queue.backend.close()
        if tracing is not None:
            tracing.close()


async def _background(
    document: Document, queue: Queue, state: QueueState, metrics: GatewayMetrics, options: GatewayOptions
) -> None:
    """Run the background tasks: connect to the queue, then deliver webhooks and remove orphaned payloads."""
    await state.open()
    log.info("ready: accepting jobs of %s on port %d", document.name, options.port)
    work = [_sweep(queue)]
    if (webhook := document.async_spec.webhook) is not None:
        secret = os.environ.get(WEBHOOK_SECRET_VARIABLE, "").encode()
        timeout = units.seconds(webhook.timeout)
        # Imports an HTTP client, which a gateway without webhooks does not need.
        from cortex_runtime.jobs.webhook import Webhooks

        work.append(Webhooks(queue, secret, timeout, metrics.webhook).run())
    await asyncio.gather(*work)


async def _sweep(queue: Queue) -> None:
    least, most = _SWEEP_SECONDS
    pause = min(most, max(least, queue.settings.retention / 10))
    while True:
        await asyncio.sleep(pause)
        try:
            if gone := await queue.sweep():
                log.info("removed %d payloads without a job", gone)
        except QueueError as error:
            log.warning("failed to remove expired objects: %s", error)


def _config(app: ASGIApp, http: Any) -> uvicorn.Config:
    return plain(
        app,
        loop="uvloop",
        http=http,
        interface="asgi3",
        proxy_headers=False,
        backlog=2048,
        timeout_graceful_shutdown=30,
    )
