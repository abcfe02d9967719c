"""`spec.tracing`: what is recorded of requests, and where it is sent."""

from typing import Annotated

from pydantic import Field

from cortex_api.base import Model

Percentage = Annotated[float, Field(ge=0, le=100)]
HttpUrl = Annotated[str, Field(pattern=r"^https?://[^ /]+.*$", max_length=1024)]


class Tracing(Model):
    """OpenTelemetry traces of requests and jobs."""

    endpoint: HttpUrl | None = None
    """Base URL of an OpenTelemetry collector that receives OTLP over HTTP, for example http://otel-collector.monitoring:4318.
    /v1/traces is appended. Defaults to the endpoint in the chart's values. If neither is set, nothing is traced."""
    sampling: Percentage | None = None
    """Percentage of the requests without trace context that are traced, for example 0.5. Defaults to the chart's value (1). A
    request with trace context is traced if its sender traces it."""
