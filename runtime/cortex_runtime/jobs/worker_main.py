"""One worker process of a consumer: it runs the user's code on jobs and exits when the consumer exits.

Run as `python -m cortex_runtime.jobs.worker_main ARGUMENTS` (handler/worker_lifecycle.py). job_process.py is the other end of the
control channel.
"""

import asyncio
import contextvars
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import uvloop
from starlette.exceptions import HTTPException
from starlette.responses import Response

from cortex_api import Document, units
from cortex_runtime.errors import UserError
from cortex_runtime.handler import worker_lifecycle
from cortex_runtime.handler.interfaces import JOB, Method
from cortex_runtime.handler.loaded_handler import LoadedHandler
from cortex_runtime.handler.threads import Threads
from cortex_runtime.http import response
from cortex_runtime.http.payload import parse
from cortex_runtime.jobs.job_process import jobs_per_process
from cortex_runtime.jobs.progress import reporter
from cortex_runtime.logs import records
from cortex_runtime.logs.tracebacks import printable, text_of
from cortex_runtime.messages import (
    CancelJob,
    ControlChannel,
    JobCompleted,
    JobFailed,
    JobProgress,
    Ready,
    ReloadModels,
    RunJob,
    Stop,
)
from cortex_runtime.metrics.shared_memory import SharedMetrics
from cortex_runtime.processes.worker_arguments import WorkerArguments

log = logging.getLogger("cortex")

_PROGRESS_SECONDS = 0.1


class Jobs:
    """Runs the handler's method for each job that the consumer sends."""

    def __init__(self, handler: LoadedHandler, threads: Threads, control: ControlChannel) -> None:
        self._handler = handler
        self._method: Method = handler.methods[JOB]
        self._max_body = units.parse_bytes(handler.document.spec.handler.max_body_size)
        self._threads = threads
        self._control = control
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stopped = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._context = contextvars.Context()

    async def run(self) -> None:
        """Run jobs until a `Stop`, then until all jobs have ended."""
        self._loop, self._context = asyncio.get_running_loop(), contextvars.copy_context()
        threading.Thread(target=self._receive_commands, daemon=True).start()
        self._control.send(Ready())
        await self._stopped.wait()
        while self._tasks:
            await asyncio.wait(self._tasks.values())

    def _receive_commands(self) -> None:
        loop = self._loop
        assert loop is not None
        while (command := self._control.receive()) is not None:
            if isinstance(command, Stop):
                loop.call_soon_threadsafe(self._stopped.set)
            elif isinstance(command, RunJob):
                loop.call_soon_threadsafe(self._start, command, context=self._context)
            elif isinstance(command, CancelJob):
                loop.call_soon_threadsafe(self._cancel, command.id)
            elif isinstance(command, ReloadModels):
                threading.Thread(
                    target=worker_lifecycle.refresh_models, args=(self._handler,), daemon=True
                ).start()
        # The consumer is gone, and with it the leases of all jobs that run here.
        os._exit(1)

    def _start(self, job: RunJob) -> None:
        task = asyncio.get_running_loop().create_task(self._run_job(job))
        self._tasks[job.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(job.id, None))

    def _cancel(self, identity: str) -> None:
        if self._method.is_async and (task := self._tasks.get(identity)) is not None:
            task.cancel()

    async def _run_job(self, job: RunJob) -> None:
        identity = job.id
        records.request_id.set(identity)
        reporter.set(_Reporter(identity, self._control.send))
        try:
            result = await self._call(identity, job.content_type, job.body)
            value, callback = response.split_callback(result)
            if isinstance(value, Response) or response.is_stream(value):
                raise response.NotSerializable(
                    f"the handler returned a {type(value).__name__}, which can't be serialized to JSON"
                )
            data = response.to_json(value)
        except asyncio.CancelledError:
            self._send_failure(identity, "Cancelled", "the job was cancelled", False)
            return
        except UserError as error:
            self._send_failure(identity, "Rejected", error.message, False)
            return
        except response.NotSerializable as error:
            log.error("the result can't be serialized to JSON: %s", error)
            self._send_failure(identity, "ResultInvalid", str(error), False)
            return
        except HTTPException as error:
            self._send_failure(identity, "Rejected", error.detail, error.status_code >= 500)
            return
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            log.exception("the handler failed")
            name = type(error.__cause__ or error).__name__
            message = f"the handler raised {name}; the log of the worker has the traceback with this job's id"
            self._send_failure(identity, "HandlerError", message, True)
            return
        if self._handler.tracker is not None:
            self._handler.tracker.note(value)
        self._control.send(JobCompleted(identity, data))
        if callback is not None:
            await self._threads.run_after(callback, "its job had been completed")

    async def _call(self, identity: str, content_type: str, payload: bytes) -> Any:
        method = self._method
        arguments: dict[str, Any] = {}
        if method.takes_payload:
            arguments["payload"] = await parse(payload, content_type.encode("latin-1"), self._max_body)
        if "request_id" in method.arguments:
            arguments["request_id"] = identity
        if method.is_async:
            return await method.function(**arguments)
        return await self._threads.run_plain(partial(method.function, **arguments))

    def _send_failure(self, identity: str, reason: str, message: object, retryable: bool) -> None:
        self._control.send(JobFailed(identity, reason, printable(text_of(message)), retryable))


class _Reporter:
    """Sends the progress of one job, at most once per _PROGRESS_SECONDS."""

    def __init__(self, identity: str, send: Callable[[JobProgress], None]) -> None:
        self._identity = identity
        self._send = send
        self._last = 0.0

    def __call__(self, fraction: float, note: str) -> None:
        now = time.monotonic()
        if now - self._last >= _PROGRESS_SECONDS:
            self._last = now
            self._send(JobProgress(self._identity, fraction, printable(note)))


def prepare(document: Document, arguments: WorkerArguments, control: ControlChannel) -> Callable[[], None]:
    """Load models and code and construct the handler. Return the function that runs jobs. Raises StartError."""
    shared_metrics = SharedMetrics(arguments.metrics, arguments.slots)
    threads = Threads(jobs_per_process(document.async_spec.handler), shared_metrics.worker(arguments.slot))
    handler = worker_lifecycle.load_handler(document, arguments, control, shared_metrics, threads)
    jobs = Jobs(handler, threads, control)
    is_async = handler.methods[JOB].is_async
    return lambda: threads.drive(uvloop.new_event_loop(), _run(jobs), on_handler_thread=is_async)


async def _run(jobs: Jobs) -> None:
    try:
        await jobs.run()
    finally:
        worker_lifecycle.exit_process(0)


def main(arguments: WorkerArguments) -> NoReturn:
    """Run the worker in this process."""
    worker_lifecycle.run(arguments, prepare)


if __name__ == "__main__":
    main(WorkerArguments.from_json(sys.argv[1]))
