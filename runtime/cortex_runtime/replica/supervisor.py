"""The supervisor of a RealtimeAPI's replica, its first process: it starts the workers, answers on the admin port and drains.

`WorkerSlot` (worker_slot.py), not this module, detects the exit of a worker and starts the next one. The supervisor runs no user
code, so health checks are answered while the handler is busy.
"""

import asyncio
import logging
import signal
import socket
from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson

from cortex_api import Document, units
from cortex_api.contract import (
    CANDIDATE_PATH,
    DIFFERENCES_PATH,
    DRAIN_DELAY,
    DRAIN_LIMIT,
    DURATIONS_PATH,
    INTERFACE_PATH,
)
from cortex_runtime.document import require_supported
from cortex_runtime.errors import StartError, Stopped
from cortex_runtime.http.server import Server
from cortex_runtime.logs import records
from cortex_runtime.messages import Drain, ReloadSplit, Stop
from cortex_runtime.metrics.shared_memory import BUCKETS
from cortex_runtime.processes.child_process import ChildProcess
from cortex_runtime.processes.launcher import Launcher
from cortex_runtime.processes.listener import listen, reserve
from cortex_runtime.processes.template_process import Template
from cortex_runtime.replica.admin import Admin, admin_server
from cortex_runtime.replica.drain import wait_until_quiet
from cortex_runtime.replica.pool import CHECK_SECONDS, PoolOptions, WorkerPool
from cortex_runtime.replica.split_watcher import SplitWatcher
from cortex_runtime.replica.termination import record_termination
from cortex_runtime.tracing import open_tracing
from cortex_runtime.tracing.start import StartTrace

log = logging.getLogger("cortex")

_WORKER = "cortex_runtime.serving.worker_main"
_LOAD_WINDOW = 10.0
"""Seconds over which the load is averaged for /load."""


@dataclass(frozen=True, kw_only=True)
class Options(PoolOptions):
    """The command line of `serve`.

    split: file that says which requests the candidate answers. drain_delay, drain_limit: when new connections are refused after
    SIGTERM, as of `wait_until_quiet`.
    """

    port: int
    admin_port: int
    grpc_port: int
    termination_log: Path
    split: Path
    drain_delay: float = DRAIN_DELAY
    drain_limit: float = DRAIN_LIMIT


class Supervisor:
    """One replica of a RealtimeAPI."""

    def __init__(self, options: Options, document: Document, launcher: Launcher) -> None:
        self._options = options
        self._document = document
        self._interrupted = asyncio.Event()
        self._request_timeout = units.seconds(document.realtime_spec.handler.request_timeout)
        self._listener = listen(options.host, options.port)
        protocols = document.realtime_spec.handler.protocols
        has_grpc = protocols is not None and protocols.grpc
        self._grpc_port: socket.socket | None = None
        self._grpc_address = ""
        if has_grpc:
            self._grpc_port, self._grpc_address = reserve(options.host, options.grpc_port)
        self._admin_listener = listen(options.host, options.admin_port)
        self._loads: deque[int] = deque(maxlen=round(_LOAD_WINDOW / CHECK_SECONDS))
        self._tracing = open_tracing(document)
        self._start_trace = StartTrace(self._tracing)
        self._pool = WorkerPool(
            options,
            document,
            launcher,
            self._launch,
            hang_timeout=self._request_timeout,
            shares_requests=True,
            on_check=self._on_check,
            on_step=self._start_trace.step,
            further_metrics=lambda: self._split.metrics(),
        )
        self._split = SplitWatcher(
            options.split,
            self._pool.metrics,
            lambda: self._pool.send(ReloadSplit()),
            self._pool.describe,
        )

    async def run(self) -> int:
        """Serve until a signal. Return the exit status. Raises StartError when the API can't start."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._pool.stop)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        admin = self._admin_server()
        serving = asyncio.create_task(admin.serve(sockets=[self._admin_listener]))
        try:
            with self._start_trace:
                await self._pool.start()
            if not self._pool.stopping.is_set():
                log.info("ready: serving %s on port %d", self._document.name, self._listener.getsockname()[1])
                await self._pool.watch()
            await self._drain()
        except Stopped:
            log.info("stopped before the workers were started")
        finally:
            await self._pool.close()
            admin.should_exit = True
            await serving
            self._close_listeners()
            if self._tracing is not None:
                await asyncio.to_thread(self._tracing.close)
        return 0

    async def _launch(self, slot: int) -> ChildProcess:
        spawned = await self._pool.spawn(
            slot, self._listener.fileno(), self._grpc_address, str(self._options.split)
        )
        return ChildProcess(*spawned, slot, self._pool.on_report)

    async def _drain(self) -> None:
        """Finish running requests. Until clients have stopped to connect, accept new ones, each as the last of its connection.

        The replica remains ready in the meantime, so that proxies use it as long as no other one is ready.
        """
        metrics, options = self._pool.metrics, self._options
        log.info("draining: %d requests in flight", metrics.in_flight())
        self._pool.send(Drain())
        await wait_until_quiet(
            options.drain_delay, options.drain_limit, lambda: sum(metrics.accepted), self._interrupted
        )
        self._pool.refuse()
        self._pool.send(Stop())
        # The workers close the socket too; then new connections are refused instead of hanging.
        self._close_listeners()
        await self._pool.wait(self._request_timeout)

    def _close_listeners(self) -> None:
        self._listener.close()
        if self._grpc_port is not None:
            self._grpc_port.close()

    def _interrupt(self) -> None:
        self._interrupted.set()
        self._pool.stop()

    def _on_check(self) -> None:
        self._split.check()
        self._loads.append(self._pool.metrics.in_flight())

    def _average_load(self) -> float:
        return sum(self._loads) / len(self._loads) if self._loads else 0.0

    async def _interface(self) -> tuple[int, Any]:
        """Return status and JSON of GET /interface, which any worker knows."""
        workers = await self._pool.describe("interface")
        if not workers:
            return 503, {"error": "no worker is ready"}
        return 200, orjson.loads(workers[0])

    async def _durations(self) -> tuple[int, Any]:
        """Return status and JSON of GET /durations: the requests in each bucket of seconds, and above the last bound."""
        cumulative, _ = self._pool.metrics.durations()
        counts = [int(above - below) for below, above in pairwise([0.0, *cumulative])]
        return 200, {"bounds": list(BUCKETS), "counts": counts}

    def _admin_server(self) -> Server:
        pool = self._pool
        admin = Admin(
            pool.problem,
            pool.metrics_text,
            pool.metrics.in_flight,
            self._average_load,
            pool.last_failure,
            {
                CANDIDATE_PATH: self._split.report,
                DIFFERENCES_PATH: self._split.differences,
                DURATIONS_PATH: self._durations,
                INTERFACE_PATH: self._interface,
            },
            pool.openmetrics_text if self._tracing is not None else None,
        )
        return admin_server(admin)


def serve(options: Options) -> int:
    """Serve an API until SIGTERM or SIGINT. Return the exit status: 0, or 1 with the reason in the termination log."""
    records.configure("info")
    try:
        try:
            document = Document.read(options.config)
        except (OSError, ValueError) as error:
            raise StartError("InvalidSpec", str(error)) from error
        records.configure(document.spec.handler.log_level)
        require_supported(document)
        launcher = Launcher(_WORKER, Template.fork(_WORKER))
        return asyncio.run(_run(options, document, launcher))
    except StartError as error:
        log.error("failed to start the API: %s", error, extra={"reason": error.reason})
        record_termination(options.termination_log, error)
        return 1


async def _run(options: Options, document: Document, launcher: Launcher) -> int:
    return await Supervisor(options, document, launcher).run()
