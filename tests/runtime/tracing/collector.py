"""An OpenTelemetry collector for tests: it receives OTLP over HTTP and keeps the spans."""

import gzip
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")


@dataclass(frozen=True)
class Span:
    """A received span. IDs are in hexadecimal; parent is empty for the first span of a trace. Times are in nanoseconds."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    start: int
    end: int
    is_error: bool
    state: str
    links: tuple[str, ...]
    attributes: dict[str, Any] = field(hash=False)
    resource: dict[str, Any] = field(hash=False)


class Collector:
    """The server. status: what it answers."""

    def __init__(self) -> None:
        self.status = 200
        self.spans: list[Span] = []
        self.headers: list[dict[str, str]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                if collector.status == 200 and self.path == "/v1/traces":
                    collector.headers.append({name.lower(): value for name, value in self.headers.items()})
                    collector.spans += _spans(body)
                self.send_response(collector.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def wait(self, found: Callable[[list[Span]], Any], seconds: float = 30) -> Any:
        """Wait until the spans satisfy a condition. Return its result."""
        end = time.monotonic() + seconds
        while not (result := found(list(self.spans))):
            assert time.monotonic() < end, [(span.name, span.trace) for span in self.spans]
            time.sleep(0.02)
        return result

    def trace(self, trace: str, *names: str) -> dict[str, Span]:
        """Return the spans of a trace by name, once it has spans of all these names."""

        def found(spans: list[Span]) -> dict[str, Span] | None:
            by_name = {span.name: span for span in spans if span.trace == trace}
            return by_name if set(names) <= by_name.keys() else None

        result: dict[str, Span] = self.wait(found)
        return result


def _spans(body: bytes) -> list[Span]:
    found: list[Span] = []
    for group in ExportTraceServiceRequest.FromString(body).resource_spans:
        resource = {each.key: _value(each.value) for each in group.resource.attributes}
        for scope in group.scope_spans:
            found += [_span(span, resource) for span in scope.spans]
    return found


def _span(span: Any, resource: dict[str, Any]) -> Span:
    return Span(
        span.name,
        KINDS[span.kind],
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        span.status.code == 2,
        span.trace_state,
        tuple(link.span_id.hex() for link in span.links),
        {each.key: _value(each.value) for each in span.attributes},
        resource,
    )


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))
