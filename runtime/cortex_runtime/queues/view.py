"""A job as its client sees it: the JSON of GET /ID, which is also what a webhook posts."""

from datetime import UTC, datetime
from typing import Any

import orjson

from cortex_runtime.queues.base import Record, Status


def view(record: Record, result: bytes = b"") -> bytes:
    """The JSON of a job. result: JSON too, when the job is completed."""
    fields: dict[str, Any] = {"id": record.id, "status": record.status.value}
    if record.status is Status.COMPLETED:
        head = orjson.dumps(fields)[:-1]
        return b'%b,"result":%b,"timestamp":%b}' % (head, result, orjson.dumps(_moment(record.updated)))
    if record.attempt:
        fields["attempts"] = record.attempt
    if record.status is Status.FAILED:
        fields |= {"error": record.message, "reason": record.reason, "timestamp": _moment(record.updated)}
    elif record.status is Status.IN_PROGRESS:
        if record.progress is not None:
            fields["progress"] = record.progress
        if record.note:
            fields["note"] = record.note
    elif record.reason:
        fields["lastError"] = record.message
    return orjson.dumps(fields)


def _moment(seconds: float) -> str:
    """RFC 3339, in UTC and to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
