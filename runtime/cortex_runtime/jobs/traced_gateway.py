"""The spans of a gateway. The trace context of a request continues in the message of its job. Imported only with traces."""

from opentelemetry.propagate import inject
from opentelemetry.trace import get_current_span
from starlette.types import Scope

from cortex_runtime.jobs.gateway_app import Gateway
from cortex_runtime.jobs.metrics import GatewayMetrics
from cortex_runtime.tracing.asgi import TracedAsgi
from cortex_runtime.tracing.provider import Tracing, request_span
from cortex_runtime.tracing.unsampled import UnsampledSpan


class TracedGateway(TracedAsgi):
    """The application of a gateway whose requests are traced."""

    def route_of(self, scope: Scope) -> str | None:
        """Return the path template: that of all jobs, or of one."""
        return "/" if scope["path"] == "/" else "/{id}"


def traced_gateway(app: Gateway, tracing: Tracing, metrics: GatewayMetrics) -> TracedGateway:
    """Return the application that serves. Call it in the context from which those of all requests are copied."""
    tracing.activate()
    tracing.count_dropped(metrics.new_dropped_spans().inc)
    app.trace_context = _trace_context
    return TracedGateway(app, tracing)


def _trace_context() -> dict[str, str] | None:
    """Return the trace context of a job: that of its request, unless the request has none and is not traced."""
    if request_span.get() is None and isinstance(get_current_span(), UnsampledSpan):
        return None
    headers: dict[str, str] = {}
    inject(headers)
    return headers or None
