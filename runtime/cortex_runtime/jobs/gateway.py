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
- Errors: 400, 401 no valid API key (where handler.apiKeys asks for one),
  404 unknown id, 413, 415, 422 key used for another request, 503 with Retry-After: queue full, or not reachable.

On the admin port, beside /healthz, /readyz (200 from when the queue was reached first until the drain), /metrics and /load:
GET /queue: 200 {"queued": 3, "in_flight": 1, "oldest_seconds": 4.2} (the last null where the backend can't tell), or
503 {"error": "QueueUnreachable", "message"}. SIGTERM drains.
"""

import asyncio
import logging
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import uvicorn
import uvloop
from starlette.types import Receive, Scope, Send

from cortex_api import Document, units
from cortex_runtime.errors import StartError
from cortex_runtime.http.protocol import OrderlyProtocol
from cortex_runtime.http.server import Server, plain
from cortex_runtime.jobs.gateway_app import Gateway, send_json
from cortex_runtime.jobs.metrics import GatewayMetrics
from cortex_runtime.jobs.queue_state import QueueState
from cortex_runtime.logs import records
from cortex_runtime.processes.listener import listen
from cortex_runtime.queues.base import QueueError, Unreachable
from cortex_runtime.queues.connect import VARIABLE, connect
from cortex_runtime.queues.queue import Queue
from cortex_runtime.replica.admin import Admin, Unready
from cortex_runtime.replica.termination import record_termination

log = logging.getLogger("cortex")

_QUEUE_SECONDS = 2.0
"""Seconds that the queue has to tell its length; less than the operator waits for an answer."""
_SWEEP_SECONDS = (60.0, 3600.0)


@dataclass(frozen=True)
class GatewayOptions:
    """The command line of `gateway`. drain_delay: seconds for which new connections are still taken after SIGTERM."""

    config: Path
    host: str
    port: int
    admin_port: int
    termination_log: Path
    drain_delay: float = 1.0


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
            async with asyncio.timeout(_QUEUE_SECONDS):
                depth = await self._state.fresh()
        except (Unreachable, TimeoutError) as error:
            message = str(error) or f"no answer within {_QUEUE_SECONDS:g} s"
            await send_json(send, 503, orjson.dumps({"error": "QueueUnreachable", "message": message}), ())
            return
        fields = {"queued": depth.waiting, "in_flight": depth.taken, "oldest_seconds": depth.oldest}
        await send_json(send, 200, orjson.dumps(fields), ())


def gateway(options: GatewayOptions) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit status: 0, or 1 with the cause in the termination log."""
    records.configure("info")
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
    records.configure(document.spec.handler.log_level)
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

    def problem() -> Unready | None:
        if stopping.is_set():
            return Unready("Draining", "the gateway is shutting down")
        return None if state.reached else Unready("QueueUnreachable", state.problem)

    listeners = [listen(options.host, port) for port in (options.port, options.admin_port)]
    admin = GatewayAdmin(Admin(problem, metrics.text, metrics.in_flight), state)
    servers = [Server(_config(served), lambda: None) for served in (app, admin)]
    serving = [
        asyncio.create_task(server.serve(sockets=[listener]))
        for server, listener in zip(servers, listeners, strict=True)
    ]
    behind = [asyncio.create_task(_behind(document, queue, state, metrics, options))]
    try:
        stop = asyncio.create_task(stopping.wait())
        await asyncio.wait((stop, *serving, *behind), return_when=asyncio.FIRST_COMPLETED)
        for task in (*serving, *behind):
            if task.done():
                task.result()
                raise StartError("InvalidSpec", "the gateway's server ended by itself")
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
        # It brings an HTTP client along, which a gateway without webhooks does not need.
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
                log.info("%d payloads were removed whose jobs never came to be", gone)
        except QueueError as error:
            log.warning("what is past its time could not be removed: %s", error)


def _config(app: Gateway | GatewayAdmin) -> uvicorn.Config:
    http: Any = OrderlyProtocol if isinstance(app, Gateway) else "httptools"
    return plain(
        app, loop="uvloop", http=http, proxy_headers=False, backlog=2048, timeout_graceful_shutdown=30
    )
