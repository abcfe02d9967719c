"""A replica of an AsyncAPI's workers: takes jobs from the queue and has the user's handler work on them in processes of their
own. No user code runs here, so leases are renewed however busy the handler is, and a process that dies is seen at once.

`python -m cortex_runtime consume --config /etc/cortex/api.json --project /mnt/project --models /mnt/models --admin-port 8081
--grace 60` with CORTEX_QUEUE_URL in the environment (queues/connect.py tells the forms), and whatever `serve` takes for models
and TensorFlow. There is no port but the admin port, which is that of `serve`: /healthz, /readyz (not ready: Starting,
QueueUnreachable, CrashLoop, Draining ...), /metrics (cortex_async_*), /load (jobs in hand as "inFlight"). A cause of death is
in the termination log.

SIGTERM (or SIGINT): no more jobs are taken; those in hand have --grace seconds, and what is left goes back to the queue at
once, without counting the attempt. So a pod's terminationGracePeriodSeconds is grace + 15, and no preStop is needed.
"""

import asyncio
import logging
import os
import signal
from dataclasses import dataclass, replace

import uvloop

from cortex_api import Document
from cortex_runtime.errors import StartError
from cortex_runtime.handler.dependencies import Stopped as InstallStopped
from cortex_runtime.http.server import Server
from cortex_runtime.jobs.dispatcher import Dispatcher
from cortex_runtime.jobs.gateway import read_document
from cortex_runtime.jobs.job_workers import JobWorker, jobs_per_process, jobs_per_replica, start
from cortex_runtime.jobs.metrics import ConsumerMetrics
from cortex_runtime.logs import records
from cortex_runtime.metrics.prometheus import Metrics
from cortex_runtime.models.progress import Stopped
from cortex_runtime.queues.connect import VARIABLE, connect
from cortex_runtime.queues.queue import Queue
from cortex_runtime.replica.admin import Admin, Unready
from cortex_runtime.replica.supervisor import Options, Supervisor, record_termination
from cortex_runtime.replica.workers import Worker

log = logging.getLogger("cortex")


@dataclass(frozen=True)
class ConsumerOptions(Options):
    """The command line of `consume`. grace: seconds that jobs in hand have after SIGTERM."""

    grace: float = 60.0


class Consumer(Supervisor):
    """One replica. `run` returns the exit status."""

    watches_workers = False
    """A job may take any time."""

    def __init__(self, options: ConsumerOptions, document: Document, queue: Queue) -> None:
        super().__init__(replace(options, port=0), document)
        # Jobs come from the queue.
        self._listener.close()
        self._grace = options.grace
        self._queue = queue
        self._capacity = jobs_per_process(document.spec.handler)
        limit = jobs_per_replica(document.spec.handler)
        self._counts = ConsumerMetrics(lambda: self._dispatcher.running())
        self._dispatcher = Dispatcher(queue, self._counts, limit)

    async def run(self) -> int:
        """Work until a signal. Raises StartError when the API can't start."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        loop.add_signal_handler(signal.SIGINT, self._stop)
        admin = self._admin_server()
        serving = asyncio.create_task(admin.serve(sockets=[self._admin_listener]))
        working: asyncio.Task[None] | None = None
        try:
            await self._get_ready()
            self._seats = await self._generation()
            if not self._stopping.is_set():
                working = asyncio.create_task(self._dispatcher.run())
                log.info(
                    "ready: working on jobs of %s, %d at a time", self._document.name, self._dispatcher.limit
                )
                await self._watch()
            if working is not None:
                log.info("draining: %d jobs in hand", self._dispatcher.running())
                self._dispatcher.stop()
                await working
            await self._drain()
        except (InstallStopped, Stopped):
            log.info("told to stop before the workers were started")
        finally:
            self._stop()
            if working is not None:
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)
                # When no process can start any more, the jobs that waited for one.
                await self._dispatcher.drain(0.0, self._kill)
            await self._end(self._seats)
            await self._queue.backend.close()
            admin.should_exit = True
            await serving
            if self._installer is not None:
                self._installer.close()
        return 0

    async def _drain(self) -> None:
        for seat in self._seats:
            seat.tell("stop")
        await self._dispatcher.drain(self._grace, self._kill)

    def _kill(self) -> None:
        for seat in self._seats:
            seat.kill()

    def _launch(self) -> "asyncio.Future[Worker]":
        slot = self._free.pop(0)
        return asyncio.ensure_future(self._start(slot))

    async def _start(self, slot: int) -> JobWorker:
        return await start(
            self._arguments,
            self._shared_metrics,
            slot,
            self._on_report,
            self._capacity,
            self._dispatcher.notice,
        )

    def _problem(self) -> Unready | None:
        problem = super()._problem()
        if problem is None and self._dispatcher.problem:
            return Unready("QueueUnreachable", self._dispatcher.problem)
        return problem

    def _admin_server(self) -> Server:
        server = super()._admin_server()
        metrics = Metrics(self._document, self._shared_metrics, self._workers, self._model_failures)
        server.config.app = Admin(
            self._problem,
            lambda: metrics.text() + self._counts.text(),
            self._dispatcher.running,
            failure=self._last_failure,
        )
        return server


def consume(options: ConsumerOptions) -> int:
    """Work until SIGTERM or SIGINT. Returns the exit status: 0, or 1 with the cause in the termination log."""
    records.configure("info")
    try:
        document = read_document(options.config)
        queue = connect(os.environ.get(VARIABLE, ""), document)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_run(options, document, queue))
    except StartError as error:
        log.error("the API can't start: %s", error, extra={"reason": error.reason})
        record_termination(options.termination_log, error)
        return 1


async def _run(options: ConsumerOptions, document: Document, queue: Queue) -> int:
    return await Consumer(options, document, queue).run()
