"""OpenTelemetry traces. `open_tracing` is called once in each process; without an endpoint it imports nothing and returns None.

provider.py decides which requests are traced and creates spans; exporter.py sends them in a thread of its own.
"""

import logging
from typing import TYPE_CHECKING

from cortex_api import Document

if TYPE_CHECKING:
    from cortex_runtime.tracing.provider import Tracing

log = logging.getLogger("cortex")

MODULES = (
    "cortex_runtime.tracing.provider",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
)
"""What a traced process imports. It starts no threads."""


def is_traced(document: Document) -> bool:
    """Return whether an API has an endpoint for its traces."""
    return document.spec.tracing is not None and document.spec.tracing.endpoint is not None


def open_tracing(document: Document) -> "Tracing | None":
    """Return the tracing of this process, which from now on also exports the spans of user code. None if the API has no endpoint.

    Call it after the last fork: it starts a thread.
    """
    if not is_traced(document):
        return None
    try:
        from cortex_runtime.tracing.provider import Tracing
    except ImportError as error:
        log.warning(
            "spec.tracing: nothing is traced, because the image lacks a package: %s; install opentelemetry-sdk and"
            " opentelemetry-exporter-otlp-proto-http",
            error,
        )
        return None
    return Tracing(document)
