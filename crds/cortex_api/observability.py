"""`spec.tracing` and `spec.payloadLogging`: what is recorded of requests, and where it is sent."""

import re
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, WithJsonSchema

from cortex_api import units
from cortex_api.base import Model, Quantity, Rule
from cortex_api.formats import HttpUrl, SinkUrl

Percentage = Annotated[float, Field(ge=0, le=100)]

_REDACTED_PATH = r"^\$(\.\.?([A-Za-z_][A-Za-z0-9_-]*|\*)|\['[^']+'\]|\[([0-9]+|\*)\])+$"
_LONGEST_PATH = 256


def _is_path(value: str) -> str:
    if not re.fullmatch(_REDACTED_PATH, value):
        raise ValueError(
            f"\"{value}\" is not a supported JSON path; use for example $.user.email, $..password, $.rows[*].name or $['a key']"
        )
    return value


JsonPath = Annotated[
    str,
    Field(max_length=_LONGEST_PATH),
    AfterValidator(_is_path),
    WithJsonSchema({"type": "string", "maxLength": _LONGEST_PATH, "pattern": _REDACTED_PATH}),
]


class Tracing(Model):
    """OpenTelemetry traces of requests and jobs."""

    endpoint: HttpUrl | None = None
    """Base URL of an OpenTelemetry collector that receives OTLP over HTTP, for example http://otel-collector.monitoring:4318.
    /v1/traces is appended. Defaults to the endpoint in the chart's values. If neither is set, nothing is traced."""
    sampling: Percentage | None = None
    """Percentage of the requests without trace context that are traced, for example 0.5. Defaults to the chart's value (1). A
    request with trace context is traced if its sender traces it."""


class PayloadLogging(Model):
    """Requests and responses, or jobs and results, that are sent to a sink as CloudEvents."""

    url: SinkUrl
    """Where the events are sent: an http(s) URL gets one POST for each, s3://bucket/prefix gets objects with many."""
    sampling: Percentage = 100.0
    """Percentage of requests that are logged, each with its response; of jobs, each with all attempts."""
    max_payload_size: Quantity = "64Ki"
    """Maximum size of a payload. Of a larger one, only the size is logged."""
    redact: Annotated[
        list[JsonPath], Field(max_length=64, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = Field(default_factory=list)
    """JSON paths of values that are replaced by "[redacted]", in requests and responses, or in payloads and results of jobs. With
    redact, payloads that are not JSON are not logged."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.maxPayloadSize) || quantity(string(self.maxPayloadSize)).compareTo(quantity('16Mi')) <= 0",
            "maxPayloadSize must not be greater than 16Mi",
            lambda p: units.parse_bytes(p.max_payload_size) <= 16 * 2**20,
        ),
    )
