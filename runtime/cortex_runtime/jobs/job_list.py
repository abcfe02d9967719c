"""The jobs that a reader of the page wants to see: those that have not ended, and those that have failed.

GET /jobs on the admin port: 200 {"open", "failed", "failed_total"}. A job is as in GET /ID, with "submitted" in addition, and a
failed one without the end of a long error. "open" contains the oldest jobs, the oldest first, or is null if the queue cannot list
them (SQS); "failed" the newest failures that can be retried, the newest first.
"""

from typing import Any

import orjson

from cortex_runtime.queues.base import Record
from cortex_runtime.queues.job_json import rfc3339, view
from cortex_runtime.queues.queue import Queue

_OPEN, _FAILED = 50, 100
_LONGEST_ERROR = 4000


async def job_list(queue: Queue) -> dict[str, Any]:
    """Return the content of the response. Raises Unreachable."""
    waiting = await queue.oldest(_OPEN)
    failed, total = await queue.dead_letters.list(_FAILED)
    return {
        "open": None if waiting is None else [_job(record) for record in waiting],
        "failed": [_job(record) for record in failed],
        "failed_total": total,
    }


def _job(record: Record) -> dict[str, Any]:
    job: dict[str, Any] = orjson.loads(view(record))
    for name in ("error", "lastError"):
        if name in job:
            job[name] = job[name][:_LONGEST_ERROR]
    return {**job, "submitted": rfc3339(record.submitted)}
