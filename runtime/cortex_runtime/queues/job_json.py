"""The JSON of a job, for GET /ID and webhooks."""

from datetime import UTC, datetime
from typing import Any

import orjson

from cortex_runtime.queues.base import Record, Status


def view(record: Record, result: bytes = b"") -> bytes:
    """Return the JSON of a job. result: the JSON of its result, if completed."""
    fields: dict[str, Any] = {"id": record.id, "status": record.status.value}
    if record.status is Status.COMPLETED:
        head = orjson.dumps(fields)[:-1]
        return b'%b,"result":%b,"timestamp":%b}' % (head, result, orjson.dumps(rfc3339(record.updated)))
    if record.attempt:
        fields["attempts"] = record.attempt
    if record.status is Status.FAILED:
        fields |= {"error": record.message, "reason": record.reason, "timestamp": rfc3339(record.updated)}
    elif record.status is Status.IN_PROGRESS:
        if record.progress is not None:
            fields["progress"] = record.progress
        if record.note:
            fields["note"] = record.note
    elif record.reason:
        fields["lastError"] = record.message
    return orjson.dumps(fields)


def rfc3339(seconds: float) -> str:
    """Return Unix time in the format of RFC 3339, in UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
