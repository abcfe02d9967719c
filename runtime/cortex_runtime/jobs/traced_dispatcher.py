"""The spans of jobs in a consumer: waiting in the queue, and each attempt. Imported only with traces."""

from dataclasses import dataclass, field
from time import time_ns
from typing import Any

from opentelemetry.context import attach
from opentelemetry.propagate import extract, inject
from opentelemetry.trace import SpanKind, get_current_span

from cortex_runtime.jobs.dispatcher import Dispatcher
from cortex_runtime.jobs.job_process import JobProcess, RunningJob
from cortex_runtime.queues.base import Status
from cortex_runtime.queues.claims import Job
from cortex_runtime.tracing.provider import Tracing, request_span, set_error


@dataclass
class TracedDispatcher(Dispatcher):
    """A dispatcher that continues the traces of its jobs."""

    tracing: Tracing = field(kw_only=True)

    async def run_attempt(self, job: Job) -> None:
        """Run one attempt, with a span "job" if the job is traced, and a span "queue" from the time at which it was queued."""
        if job.ticket.trace is None:
            await super().run_attempt(job)
            return
        attach(extract(job.ticket.trace))
        if not get_current_span().get_span_context().trace_flags.sampled:
            await super().run_attempt(job)
            return
        attempt = job.record.attempt
        attributes: dict[str, Any] = {"cortex.job.id": job.id, "cortex.job.attempt": attempt}
        queued = job.record.submitted if attempt == 1 else job.record.updated
        now = time_ns()
        start = min(now, int(queued * 1e9))
        self.tracing.start("queue", kind=SpanKind.CONSUMER, attributes=attributes, start_time=start).end(now)
        with self.tracing.current("job", kind=SpanKind.CONSUMER, attributes=attributes) as span:
            request_span.set(span)
            await super().run_attempt(job)
            span.set_attribute("cortex.job.status", job.record.status.value)
            if job.record.status is not Status.COMPLETED:
                set_error(span, job.record.reason or "released", job.record.status is Status.FAILED)

    def start(self, job: Job, worker: JobProcess) -> RunningJob:
        """Start an attempt in a process, with the trace context."""
        trace: dict[str, str] = {}
        if job.ticket.trace is not None:
            inject(trace)
        return worker.run(job.id, job.record.attempt, job.ticket.payload.type, job.payload, trace or None)
