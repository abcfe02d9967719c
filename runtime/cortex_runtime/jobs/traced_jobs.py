"""The spans of jobs in a worker process, which continue those of the consumer. Imported only with traces."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from opentelemetry.context import attach
from opentelemetry.propagate import extract
from opentelemetry.trace import get_current_span

from cortex_runtime.clients import served
from cortex_runtime.handler.interfaces import JOB
from cortex_runtime.handler.loaded_handler import LoadedHandler
from cortex_runtime.jobs.worker_main import Jobs
from cortex_runtime.messages import RunJob, RunTracedJob
from cortex_runtime.tracing.calls import trace_models, traced_method
from cortex_runtime.tracing.provider import DROPPED, Tracing, request_span


class TracedJobs(Jobs):
    """Jobs whose calls have spans."""

    @contextmanager
    def reporting(self, job: RunJob) -> Iterator[None]:
        """Do what `Jobs.reporting` does, in the trace of the job."""
        if isinstance(job, RunTracedJob):
            attach(extract(job.trace))
            span = get_current_span()
            if span.get_span_context().trace_flags.sampled:
                request_span.set(span)
        with super().reporting(job):
            yield


def traced_jobs(tracing: Tracing, handler: LoadedHandler, *arguments: Any) -> TracedJobs:
    """Return what runs the jobs of a handler. It takes the arguments of `Jobs`."""
    tracing.activate()
    tracing.count_dropped(partial(handler.series.add, DROPPED, {}))
    trace_models(tracing, handler.client, served.get)
    method = handler.methods[JOB]
    function = traced_method(tracing, method.function, method.is_async)
    methods = {**handler.methods, JOB: replace(method, function=function)}
    return TracedJobs(replace(handler, methods=methods), *arguments)
