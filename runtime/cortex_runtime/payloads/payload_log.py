"""The payload log of a worker, as `spec.payloadLogging` configures it."""

from dataclasses import dataclass
from functools import partial

from cortex_api import Document, units
from cortex_runtime.metrics.series import NamedSeries
from cortex_runtime.payloads.events import EventBuilder
from cortex_runtime.payloads.queue import PayloadQueue
from cortex_runtime.payloads.redaction import parse
from cortex_runtime.payloads.sinks import open_sink

_CLOSE_SECONDS = 5.0


@dataclass(frozen=True)
class PayloadLog:
    """queue: takes what is logged. ratio: of the requests or jobs that are logged. most: bytes of a payload."""

    queue: PayloadQueue
    ratio: float
    most: int

    def close(self) -> None:
        """Send what is queued, for at most some seconds, and drop the rest."""
        self.queue.close(_CLOSE_SECONDS)


def open_payload_log(document: Document, series: NamedSeries) -> PayloadLog:
    """Return the payload log of an API with `spec.payloadLogging`. series: count its events."""
    spec = document.spec.payload_logging
    assert spec is not None
    most = units.parse_bytes(spec.max_payload_size)
    kind = "realtimeapis" if document.kind == "RealtimeAPI" else "asyncapis"
    source = f"/namespaces/{document.namespace}/{kind}/{document.name}"
    builder = EventBuilder(source, most, [parse(path) for path in spec.redact])
    queue = PayloadQueue(partial(open_sink, spec.url, document.name), builder, series, spec.url)
    return PayloadLog(queue, spec.sampling / 100, most)
