"""One process of a consumer, in which the user's code works on jobs. Started by the consumer, and ends when that ends.

`python -m cortex_runtime.jobs.worker ORDER`, as handler/host.py has it. job_workers.py is the other end of the control socket.
"""

import asyncio
import contextvars
import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO

import uvloop
from starlette.exceptions import HTTPException
from starlette.responses import Response

from cortex_api import Document, units
from cortex_runtime.errors import UserError
from cortex_runtime.handler import host
from cortex_runtime.handler.interfaces import JOB, Method
from cortex_runtime.handler.program import Program
from cortex_runtime.handler.threads import Threads
from cortex_runtime.http import response
from cortex_runtime.http.payload import parse
from cortex_runtime.jobs.job_workers import jobs_per_process
from cortex_runtime.jobs.progress import reporter
from cortex_runtime.logs import records
from cortex_runtime.logs.tracebacks import printable, text_of
from cortex_runtime.metrics.shared_memory import SharedMetrics
from cortex_runtime.processes.worker_arguments import WorkerArguments

log = logging.getLogger("cortex")

_PROGRESS_SECONDS = 0.1


class Jobs:
    """Runs the handler's method for each job that the consumer sends."""

    def __init__(self, program: Program, threads: Threads, control: socket.socket) -> None:
        self._program = program
        self._method: Method = program.methods[JOB]
        self._max_body = units.parse_bytes(program.document.spec.handler.max_body_size)
        self._threads = threads
        self._control = control
        self._sending = threading.Lock()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stopped = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._context = contextvars.Context()

    async def run(self) -> None:
        """Work until told to stop and all jobs are over."""
        self._loop, self._context = asyncio.get_running_loop(), contextvars.copy_context()
        threading.Thread(target=self._obey, daemon=True).start()
        self._send({"event": "ready"})
        await self._stopped.wait()
        while self._tasks:
            await asyncio.wait(self._tasks.values())

    def _obey(self) -> None:
        orders: BinaryIO = self._control.makefile("rb")
        loop = self._loop
        assert loop is not None
        while order := orders.readline():
            if order == b"stop\n":
                loop.call_soon_threadsafe(self._stopped.set)
            elif order.startswith(b"{"):
                head = json.loads(order)
                payload = orders.read(head.get("size", 0))
                loop.call_soon_threadsafe(self._take, head, payload, context=self._context)
            elif order == b"models\n":
                threading.Thread(target=host.follow, args=(self._program,), daemon=True).start()
        # The consumer is gone, and with it the hold on all jobs here.
        os._exit(1)

    def _take(self, head: dict[str, Any], payload: bytes) -> None:
        if "cancel" in head:
            if self._method.is_async and (task := self._tasks.get(head["cancel"])) is not None:
                task.cancel()
            return
        identity = head["run"]
        task = asyncio.get_running_loop().create_task(self._work(identity, head["type"], payload))
        self._tasks[identity] = task
        task.add_done_callback(lambda _: self._tasks.pop(identity, None))

    async def _work(self, identity: str, content_type: str, payload: bytes) -> None:
        records.request_id.set(identity)
        reporter.set(_Reporter(identity, self._send))
        try:
            result = await self._call(identity, content_type, payload)
            value, callback = response.split_callback(result)
            if isinstance(value, Response) or response.is_stream(value):
                raise response.NotSerializable(
                    f"the handler returned a {type(value).__name__}, which is not JSON"
                )
            data = response.to_json(value)
        except asyncio.CancelledError:
            self._failed(identity, "Cancelled", "the job was cancelled", False)
            return
        except UserError as error:
            self._failed(identity, "Rejected", error.message, False)
            return
        except response.NotSerializable as error:
            log.error("the result is not JSON: %s", error)
            self._failed(identity, "ResultInvalid", str(error), False)
            return
        except HTTPException as error:
            self._failed(identity, "Rejected", error.detail, error.status_code >= 500)
            return
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            log.exception("the handler failed")
            name = type(error.__cause__ or error).__name__
            message = f"the handler raised {name}; its log has the traceback, under this id"
            self._failed(identity, "HandlerError", message, True)
            return
        if self._program.tracker is not None:
            self._program.tracker.note(value)
        self._send({"event": "done", "id": identity, "size": len(data)}, data)
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

    def _failed(self, identity: str, reason: str, message: object, again: bool) -> None:
        said = printable(text_of(message))
        self._send({"event": "failed", "id": identity, "reason": reason, "message": said, "again": again})

    def _send(self, report: dict[str, Any], data: bytes = b"") -> None:
        with self._sending:
            self._control.sendall(json.dumps(report).encode() + b"\n" + data)


class _Reporter:
    """Sends the progress of one job, not too often."""

    def __init__(self, identity: str, send: Callable[[dict[str, Any]], None]) -> None:
        self._identity = identity
        self._send = send
        self._last = 0.0

    def __call__(self, fraction: float, note: str) -> None:
        now = time.monotonic()
        if now - self._last >= _PROGRESS_SECONDS:
            self._last = now
            said = printable(note)
            self._send({"event": "progress", "id": self._identity, "progress": fraction, "note": said})


def prepare(document: Document, arguments: WorkerArguments, control: socket.socket) -> Callable[[], None]:
    """Load models and code and construct the handler. Returns what then works. Raises StartError."""
    shared_metrics = SharedMetrics(arguments.metrics, arguments.slots)
    threads = Threads(jobs_per_process(document.spec.handler), shared_metrics.worker(arguments.slot))
    program = host.program(document, arguments, control, shared_metrics, threads)
    jobs = Jobs(program, threads, control)
    is_async = program.methods[JOB].is_async
    return lambda: threads.drive(uvloop.new_event_loop(), _run(jobs), on_handler_thread=is_async)


async def _run(jobs: Jobs) -> None:
    try:
        await jobs.run()
    finally:
        host.end(0)


if __name__ == "__main__":
    host.run(sys.argv[1], prepare)
