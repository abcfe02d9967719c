"""The events of a request and its response, or of a job and its result, in the structured JSON format of CloudEvents 1.0.

They contain no headers.
"""

import base64
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from cortex_runtime.errors import UserError
from cortex_runtime.http.request_body import decompress, is_json, media_type
from cortex_runtime.payloads.redaction import Path, redact

REQUEST, RESPONSE = "dev.cortex.request", "dev.cortex.response"
"""Types of the events."""


@dataclass(slots=True)
class Payload:
    """A body as it was sent. content: None if it is too large. size: bytes. type, encoding: headers of the body.

    convert: returns the content of `type` from what was sent; None if it was sent so. Raises UserError.
    """

    content: bytes | None
    size: int
    type: bytes
    encoding: bytes
    time: float
    convert: Callable[[bytes], bytes] | None = None


@dataclass(slots=True)
class Exchange:
    """A request and its response.

    status: of the response; of a gRPC call its code, of a job "completed" or "failed". trace: the header `traceparent` of the
    request's span, or empty. attempt: of a job, from 1; 0 for a request.
    """

    method: str
    path: str
    request_id: str
    status: int | str
    request: Payload
    response: Payload
    trace: str = ""
    attempt: int = 0

    @property
    def size(self) -> int:
        """The memory that it takes, in bytes."""
        return len(self.request.content or b"") + len(self.response.content or b"") + 1000


class EventBuilder:
    """Builds events. source: of the API. most: bytes of a payload. redacted: JSON paths."""

    def __init__(self, source: str, most: int, redacted: Sequence[Path]) -> None:
        self._source = source
        self._most = most
        self._redacted = redacted

    def build(self, exchange: Exchange) -> list[bytes]:
        """Return the two events of an exchange as JSON."""
        identity = os.urandom(16).hex()
        common: dict[str, Any] = {
            "specversion": "1.0",
            "source": self._source,
            "subject": exchange.path,
            "requestid": exchange.request_id,
            "method": exchange.method,
        }
        if exchange.trace:
            common["traceparent"] = exchange.trace
        if exchange.attempt:
            common["attempt"] = exchange.attempt
        request = {**common, "id": f"{identity}-request", "type": REQUEST}
        response = {
            **common,
            "id": f"{identity}-response",
            "type": RESPONSE,
            "status": exchange.status,
        }
        return [
            orjson.dumps({**event, **self._data(payload)})
            for event, payload in ((request, exchange.request), (response, exchange.response))
        ]

    def _data(self, payload: Payload) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(payload.time, UTC),
            "datasize": payload.size,
        }
        if not payload.size:
            return fields
        content = payload.content
        try:
            if content is not None and payload.encoding:
                content = decompress(content, payload.encoding.strip().lower(), self._most)
            if content is not None and payload.convert is not None:
                content = payload.convert(content)
        except UserError as error:
            return {**fields, "omitted": str(error.message)}
        if content is None or len(content) > self._most:
            return {**fields, "omitted": f"larger than {self._most} bytes"}
        kind, _ = media_type(payload.type)
        if is_json(kind):
            try:
                return {**fields, "datacontenttype": "application/json", "data": self._json(content)}
            except (ValueError, RecursionError):
                pass
        if self._redacted:
            # Values to redact could not be found.
            return {**fields, "omitted": "not valid JSON, and spec.payloadLogging.redact is set"}
        fields["datacontenttype"] = kind or "application/octet-stream"
        if kind.startswith("text/"):
            try:
                return {**fields, "data": content.decode()}
            except UnicodeDecodeError:
                pass
        return {**fields, "data_base64": base64.b64encode(content).decode()}

    def _json(self, content: bytes) -> orjson.Fragment:
        """Return a JSON payload, unchanged unless values are redacted. Raises ValueError and RecursionError."""
        orjson.loads(content)
        if not self._redacted:
            return orjson.Fragment(content)
        # Unlike orjson, it keeps large integers.
        value = json.loads(content)
        redact(value, self._redacted)
        return orjson.Fragment(json.dumps(value))
