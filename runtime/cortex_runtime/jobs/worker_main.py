"""One worker process of a consumer: it runs the user's code on jobs and exits when the consumer exits.

Run as `python -m cortex_runtime.jobs.worker_main ARGUMENTS` (handler/worker_lifecycle.py). job_process.py is the other end of the
control channel.
"""

import asyncio
import contextlib
import contextvars
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import uvloop
from starlette.exceptions import HTTPException
from starlette.responses import Response

from cortex_api import Document, units
from cortex_runtime.errors import UserError
from cortex_runtime.handler import worker_lifecycle
from cortex_runtime.handler.interfaces import JOB, Method
from cortex_runtime.handler.loaded_handler import LoadedHandler
from cortex_runtime.handler.payload_type import validator_of
from cortex_runtime.handler.threads import Threads, call_user_code
from cortex_runtime.handler.user_context import user_context
from cortex_runtime.http import response
from cortex_runtime.http.request_body import parse, parse_json
from cortex_runtime.jobs.job_process import jobs_per_process
from cortex_runtime.jobs.progress import reporter
from cortex_runtime.logs import records
from cortex_runtime.logs.tracebacks import printable, text_of
from cortex_runtime.messages import (
    CancelJob,
    ControlChannel,
    Describe,
    Description,
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
from cortex_runtime.tracing import open_tracing

if TYPE_CHECKING:
    from cortex_runtime.jobs.logged_control import LoggedControl

log = logging.getLogger("cortex")

_PROGRESS_SECONDS = 0.1


class Jobs:
    """Runs the handler's method for each job that the consumer sends.

    A plain method runs on a handler thread from its command to its report. The way through the event loop would cost two more
    switches between threads.
    """

    def __init__(
        self, handler: LoadedHandler, threads: Threads, control: "ControlChannel | LoggedControl"
    ) -> None:
        self._handler = handler
        self._method: Method = handler.methods[JOB]
        self._validator = validator_of(self._method.payload_type, self._method.where)
        self._max_body = units.parse_bytes(handler.document.spec.handler.max_body_size)
        self._threads = threads
        self._control = control
        self._running: set[str] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._callbacks: set[asyncio.Task[None]] = set()
        self._is_stopping = False
        self._ended = asyncio.Event()
        self._context = contextvars.Context()
        self._loop: asyncio.AbstractEventLoop

    async def run(self) -> None:
        """Run jobs until a `Stop`, then until all jobs have ended."""
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        threading.Thread(target=self._receive_commands, daemon=True).start()
        self._control.send(Ready())
        await self._ended.wait()

    def _receive_commands(self) -> None:
        loop = self._loop
        while (command := self._control.receive()) is not None:
            if isinstance(command, RunJob):
                self._running.add(command.id)
                if self._method.is_async:
                    loop.call_soon_threadsafe(self._start, command, context=self._context)
                else:
                    run = partial(self._context.copy().run, self._run_plain, command)
                    self._threads.start(run, len(self._running))
            elif isinstance(command, Stop):
                self._is_stopping = True
                self._end_if_idle()
            elif isinstance(command, CancelJob):
                loop.call_soon_threadsafe(self._cancel, command.id)
            elif isinstance(command, ReloadModels):
                threading.Thread(
                    target=worker_lifecycle.refresh_models, args=(self._handler,), daemon=True
                ).start()
            elif isinstance(command, Describe):
                threading.Thread(target=self._describe, daemon=True).start()
        # The consumer is gone, and with it the leases of all jobs that run here.
        os._exit(1)

    def _describe(self) -> None:
        """Send the interface of the handler, for the OpenAPI document of the gateway."""
        from cortex_runtime.openapi import job_interface

        try:
            content = job_interface.describe(self._handler)
        except Exception:
            # Of code of a type, such as a schema that it writes itself. Jobs run without a description.
            log.exception("the OpenAPI document does not describe the handler")
            content = job_interface.UNKNOWN
        self._control.send(Description("", content))

    def _end_if_idle(self) -> None:
        if self._is_stopping and not self._running:
            self._loop.call_soon_threadsafe(self._ended.set)

    def _start(self, job: RunJob) -> None:
        self._tasks[job.id] = self._loop.create_task(self._run_async(job))

    def _cancel(self, identity: str) -> None:
        if (task := self._tasks.get(identity)) is not None:
            task.cancel()

    def _run_plain(self, job: RunJob) -> None:
        """Run a job with a plain method, on a handler thread and in a context of its own."""
        callback = None
        try:
            with self.reporting(job):
                # The callback of the job shares the context.
                context = user_context()
                payload = self._parse(job) if self._method.takes_payload else None
                call = partial(self._method.function, **self._arguments(job.job, payload))
                callback = self._report_result(job.id, context.run(call_user_code, call))
        finally:
            self._finish(job.id, callback)

    async def _run_async(self, job: RunJob) -> None:
        callback = None
        try:
            with self.reporting(job):
                payload = None
                if self._method.takes_payload:
                    payload = await parse(job.body, job.content_type.encode("latin-1"), self._max_body)
                result = await self._method.function(**self._arguments(job.job, payload))
                callback = self._report_result(job.id, result)
        finally:
            del self._tasks[job.id]
            self._finish(job.id, callback)

    def _parse(self, job: RunJob) -> Any:
        if job.content_type == "application/json":
            return parse_json(job.body)
        parsing = parse(job.body, job.content_type.encode("latin-1"), self._max_body)
        return asyncio.run_coroutine_threadsafe(parsing, self._loop).result()

    def _arguments(self, identity: str, payload: Any) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        if self._method.takes_payload:
            arguments["payload"] = payload if self._validator is None else self._validator.complete(payload)
        if "request_id" in self._method.arguments:
            arguments["request_id"] = identity
        return arguments

    def _report_result(self, identity: str, result: Any) -> Callable[[], Any] | None:
        """Send what the method returned. Return its callback, if it has one."""
        value, callback = response.split_callback(result)
        if isinstance(value, Response) or response.is_stream(value):
            raise response.NotSerializable(
                f"the handler returned a {type(value).__name__}, which can't be serialized to JSON"
            )
        data = response.to_json(value)
        if self._handler.tracker is not None:
            self._handler.tracker.note(value)
        self._control.send(JobCompleted(identity, data))
        return callback

    @contextlib.contextmanager
    def reporting(self, job: RunJob) -> Iterator[None]:
        """Provide the context of a job, and send what is raised as its failure."""
        identity = job.id
        records.request_id.set(job.job)
        reporter.set(_Reporter(identity, self._control.send))
        try:
            yield
        except asyncio.CancelledError:
            self._send_failure(identity, "Cancelled", "the job was cancelled", False)
        except UserError as error:
            self._send_failure(identity, "Rejected", error.message, False)
        except response.NotSerializable as error:
            log.error("the result can't be serialized to JSON: %s", error)
            self._send_failure(identity, "ResultInvalid", str(error), False)
        except HTTPException as error:
            self._send_failure(identity, "Rejected", error.detail, error.status_code >= 500)
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            log.exception("the handler failed")
            name = type(error.__cause__ or error).__name__
            message = f"the handler raised {name}; the log of the worker has the traceback with this job's id"
            if (traceback := response.shown_traceback(error)) is not None:
                message = f"the handler raised {name}\n{traceback}"
            self._send_failure(identity, "HandlerError", message, True)

    def _finish(self, identity: str, callback: Callable[[], Any] | None) -> None:
        """Note the end of a job, after its callback if it has one. Called in the context of the job."""
        if callback is not None:
            self._loop.call_soon_threadsafe(self._start_callback, identity, callback)
            return
        self._running.discard(identity)
        self._end_if_idle()

    def _start_callback(self, identity: str, callback: Callable[[], Any]) -> None:
        task = self._loop.create_task(self._threads.run_after(callback, "its job had been completed"))
        self._callbacks.add(task)
        task.add_done_callback(self._callbacks.discard)
        task.add_done_callback(lambda _: self._finish(identity, None))

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
    # Before the user's code, whose spans are exported too.
    tracing = open_tracing(document)
    handler = worker_lifecycle.load_handler(document, arguments, control, shared_metrics, threads)
    closing: list[Callable[[], None]] = []
    channel: Any = control
    if document.spec.payload_logging is not None:
        from cortex_runtime.jobs.logged_control import LoggedControl
        from cortex_runtime.payloads.payload_log import open_payload_log

        payloads = open_payload_log(document, handler.series)
        channel = LoggedControl(control, payloads)
        closing.append(payloads.close)
    if tracing is None:
        jobs = Jobs(handler, threads, channel)
    else:
        from cortex_runtime.jobs.traced_jobs import traced_jobs

        jobs = traced_jobs(tracing, handler, threads, channel)
        closing.append(tracing.close)
    is_async = handler.methods[JOB].is_async
    return lambda: threads.drive(uvloop.new_event_loop(), _run(jobs, closing), on_handler_thread=is_async)


async def _run(jobs: Jobs, closing: Sequence[Callable[[], None]]) -> None:
    """Run jobs, and then what sends the last spans and payloads: together within the consumer's _FLUSH_SECONDS."""
    try:
        await jobs.run()
        await asyncio.gather(*(asyncio.to_thread(close) for close in closing))
    finally:
        worker_lifecycle.exit_process(0)


def main(arguments: WorkerArguments) -> NoReturn:
    """Run the worker in this process."""
    worker_lifecycle.run(arguments, prepare)


if __name__ == "__main__":
    main(WorkerArguments.from_json(sys.argv[1]))
