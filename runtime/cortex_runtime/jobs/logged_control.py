"""The control channel of a worker that logs the payloads of jobs. Imported only if `spec.payloadLogging` is set.

It records what the worker receives and sends, so the code that runs jobs does not contain the log.
"""

import threading
import zlib
from time import time

import msgspec
import orjson

from cortex_runtime.messages import (
    ControlChannel,
    JobCompleted,
    JobFailed,
    Message,
    Report,
    RunJob,
    RunTracedJob,
)
from cortex_runtime.payloads.events import Exchange, Payload
from cortex_runtime.payloads.payload_log import PayloadLog

_JSON = b"application/json"
_ENDS = (JobCompleted, JobFailed)


class LoggedControl:
    """Does what `ControlChannel` does, and records a sample of the jobs, each with all its attempts."""

    def __init__(self, control: ControlChannel, log: PayloadLog) -> None:
        self._control = control
        self._log = log
        self._running: dict[str, tuple[RunJob, Payload]] = {}
        self._lock = threading.Lock()

    def receive(self) -> Message | None:
        """Do what `ControlChannel.receive` does."""
        command = self._control.receive()
        if isinstance(command, RunJob) and self._is_sampled(command.job):
            payload = self._payload(command.body, command.content_type.encode("latin-1"))
            # A payload that is too large to be logged must not be held longer than the job needs it.
            with self._lock:
                self._running[command.id] = msgspec.structs.replace(command, body=b""), payload
        return command

    def send(self, message: Report) -> None:
        """Do what `ControlChannel.send` does."""
        if isinstance(message, _ENDS):
            with self._lock:
                found = self._running.pop(message.id, None)
            if found is not None:
                self._record(*found, message)
        self._control.send(message)

    def _is_sampled(self, job: str) -> bool:
        """Return whether a job is in the sample: a property of its id, so that it holds for each attempt in any worker."""
        return zlib.crc32(job.encode()) < self._log.ratio * 2**32

    def _payload(self, content: bytes, kind: bytes) -> Payload:
        logged = content if len(content) <= self._log.most else None
        return Payload(logged, len(content), kind, b"", time())

    def _record(self, command: RunJob, payload: Payload, end: JobCompleted | JobFailed) -> None:
        trace = command.trace.get("traceparent", "") if isinstance(command, RunTracedJob) else ""
        is_traced = trace and int(trace[-2:], 16) & 1
        if isinstance(end, JobCompleted):
            status, content = "completed", end.body
        else:
            status, content = "failed", orjson.dumps({"error": end.message, "reason": end.reason})
        self._log.queue.add(
            Exchange(
                "job",
                f"/{command.job}",
                command.job,
                status,
                payload,
                self._payload(content, _JSON),
                trace if is_traced else "",
                command.attempt,
            )
        )
