"""The consumer, first process of an AsyncAPI's worker replica: it takes jobs from the queue and runs them in worker processes.

It runs no user code, so leases are renewed while the handler is busy, and the exit of a process is noticed at once.

`python -m cortex_runtime consume --config /etc/cortex/api.json --project /mnt/project --models /mnt/models --admin-port 8081
--grace 60` with CORTEX_QUEUE_URL in the environment (see queues/connect.py) and the settings of `serve` for models.
Its only port is the admin port, the same as that of `serve`: /healthz, /readyz (not ready: Starting, QueueUnreachable, CrashLoop,
Draining, ...), /metrics (cortex_async_*) and /load (running jobs as "inFlight"). The termination log has the reason of a failure.

On SIGTERM or SIGINT it takes no more jobs. Running jobs have --grace seconds; the remaining ones return to the queue at once
without counting the attempt. A pod's terminationGracePeriodSeconds is therefore grace + 15, and it needs no preStop hook.
"""

import asyncio
import logging
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import uvloop

from cortex_api import Document
from cortex_api.contract import QUEUE_URL_VARIABLE
from cortex_runtime.errors import StartError, Stopped
from cortex_runtime.http.server import Server
from cortex_runtime.jobs.dispatcher import Dispatcher
from cortex_runtime.jobs.gateway import read_document
from cortex_runtime.jobs.interface import InterfacePublisher
from cortex_runtime.jobs.job_process import JobProcess, jobs_per_process, jobs_per_replica
from cortex_runtime.jobs.metrics import ConsumerMetrics
from cortex_runtime.logs import records
from cortex_runtime.messages import Description, Message, Stop
from cortex_runtime.processes import garbage
from cortex_runtime.processes.launcher import Launcher
from cortex_runtime.processes.listener import listen
from cortex_runtime.processes.template_process import Template
from cortex_runtime.queues.connect import connect
from cortex_runtime.queues.queue import Queue
from cortex_runtime.replica.admin import Admin, NotReady, admin_server
from cortex_runtime.replica.pool import PoolOptions, WorkerPool
from cortex_runtime.replica.termination import record_termination
from cortex_runtime.tracing import open_tracing
from cortex_runtime.tracing.start import StartTrace

log = logging.getLogger("cortex")

_FLUSH_SECONDS = 7.0
"""A little longer than the processes need at most."""
_WORKER = "cortex_runtime.jobs.worker_main"


@dataclass(frozen=True, kw_only=True)
class ConsumerOptions(PoolOptions):
    """The command line of `consume`. grace: seconds that running jobs have after SIGTERM."""

    admin_port: int
    termination_log: Path
    grace: float = 60.0


class Consumer:
    """One worker replica of an AsyncAPI."""

    def __init__(
        self, options: ConsumerOptions, document: Document, queue: Queue, launcher: Launcher
    ) -> None:
        self._grace = options.grace
        self._document = document
        self._queue = queue
        self._capacity = jobs_per_process(document.async_spec.handler)
        self._admin_listener = listen(options.host, options.admin_port)
        self._metrics = ConsumerMetrics(lambda: self._dispatcher.running())
        self._tracing = open_tracing(document)
        self._interface = InterfacePublisher(queue.backend)
        self._can_reload = options.reload or options.development is not None
        self._launched = 0
        limit = jobs_per_replica(document.async_spec.handler)
        self._dispatcher = self._new_dispatcher(queue, limit)
        # No hang_timeout: a job may take any time.
        self._start_trace = StartTrace(self._tracing)
        self._pool = WorkerPool(options, document, launcher, self._launch, on_step=self._start_trace.step)

    def _new_dispatcher(self, queue: Queue, limit: int) -> Dispatcher:
        if self._tracing is None:
            return Dispatcher(queue, self._metrics, limit)
        from cortex_runtime.jobs.traced_dispatcher import TracedDispatcher

        self._tracing.count_dropped(self._metrics.new_dropped_spans().inc)
        return TracedDispatcher(queue, self._metrics, limit, tracing=self._tracing)

    async def run(self) -> int:
        """Run jobs until a signal. Return the exit status. Raises StartError when the API can't start."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._pool.stop)
        loop.add_signal_handler(signal.SIGINT, self._pool.stop)
        admin = self._admin_server()
        serving = asyncio.create_task(admin.serve(sockets=[self._admin_listener]))
        publishing = asyncio.create_task(self._interface.run())
        dispatching: asyncio.Task[None] | None = None
        try:
            with self._start_trace:
                await self._pool.start()
            if not self._pool.stopping.is_set():
                dispatching = asyncio.create_task(self._dispatcher.run())
                limit = self._dispatcher.limit
                log.info("ready: running jobs of %s, at most %d at a time", self._document.name, limit)
                await self._pool.watch()
            if dispatching is not None:
                self._pool.refuse()
                log.info("draining: %d jobs running", self._dispatcher.running())
                self._dispatcher.stop()
                await dispatching
            self._pool.send(Stop())
            await self._dispatcher.drain(self._grace, self._pool.kill)
            # Each sends its last spans and logged payloads, and exits.
            await self._pool.wait(_FLUSH_SECONDS)
        except Stopped:
            log.info("stopped before the workers were started")
        finally:
            self._pool.stop()
            publishing.cancel()
            await asyncio.gather(publishing, return_exceptions=True)
            if dispatching is not None:
                dispatching.cancel()
                await asyncio.gather(dispatching, return_exceptions=True)
                # When no process can start any more, jobs may still wait for one.
                await self._dispatcher.drain(0.0, self._pool.kill)
            await self._pool.close()
            await self._queue.backend.close()
            if self._tracing is not None:
                await asyncio.to_thread(self._tracing.close)
            admin.should_exit = True
            await serving
        return 0

    async def _launch(self, slot: int) -> JobProcess:
        describes = self._describes()
        spawned = await self._pool.spawn(slot)
        return JobProcess(
            *spawned,
            slot,
            self._on_report,
            capacity=self._capacity,
            on_change=self._dispatcher.on_worker_change,
            describes=describes,
        )

    def _describes(self) -> bool:
        """Return whether the next process describes the handler: the first one, and later ones that may have other code."""
        handler, number = self._document.spec.handler, self._launched
        self._launched += 1
        is_needed = self._can_reload or not self._interface.is_known
        return handler.docs and (number == 0 or (is_needed and number >= handler.processes_per_replica))

    def _on_report(self, report: Message) -> None:
        if isinstance(report, Description):
            self._interface.set(report.body)
        else:
            self._pool.on_report(report)

    def _problem(self) -> NotReady | None:
        problem = self._pool.problem()
        if problem is None and self._dispatcher.problem:
            return NotReady("QueueUnreachable", self._dispatcher.problem)
        return problem

    def _admin_server(self) -> Server:
        pool = self._pool
        admin = Admin(
            self._problem,
            lambda: pool.metrics_text() + self._metrics.text(),
            self._dispatcher.running,
            failure=pool.last_failure,
        )
        return admin_server(admin)


def consume(options: ConsumerOptions) -> int:
    """Run jobs until SIGTERM or SIGINT. Return the exit status: 0, or 1 with the reason in the termination log."""
    records.configure("info")
    try:
        document = read_document(options.config)
        launcher = Launcher(_WORKER, Template.fork(_WORKER))
        queue = connect(os.environ.get(QUEUE_URL_VARIABLE, ""), document)
        garbage.tune()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_run(options, document, queue, launcher))
    except StartError as error:
        log.error("failed to start the API: %s", error, extra={"reason": error.reason})
        record_termination(options.termination_log, error)
        return 1


async def _run(options: ConsumerOptions, document: Document, queue: Queue, launcher: Launcher) -> int:
    return await Consumer(options, document, queue, launcher).run()
