"""`python -m cortex_runtime destroy --queue NAME`: deletes the queue of an AsyncAPI with all jobs and results.

For `deletionPolicy: Delete`; nothing else deletes a queue. A missing queue is not an error.
"""

import asyncio
import logging
import os
from pathlib import Path

from cortex_api.contract import QUEUE_URL_VARIABLE
from cortex_runtime.errors import StartError
from cortex_runtime.logs import records
from cortex_runtime.queues.base import Backend, Channel, QueueError
from cortex_runtime.queues.connect import backend_of
from cortex_runtime.replica.termination import record_termination

log = logging.getLogger("cortex")

_LEASES: dict[Channel, float] = {"jobs": 60.0, "hooks": 60.0}
"""Required by the backend, but no message is taken."""


def destroy(queue: str, termination_log: Path) -> int:
    """Delete a queue. Return the exit status: 0, or 1 with the reason in the termination log."""
    records.configure("info")
    try:
        asyncio.run(_destroy(backend_of(os.environ.get(QUEUE_URL_VARIABLE, ""), queue, _LEASES)))
    except (StartError, QueueError) as problem:
        error = problem if isinstance(problem, StartError) else StartError("QueueUnreachable", str(problem))
        log.error("failed to delete the queue: %s", error, extra={"reason": error.reason})
        record_termination(termination_log, error)
        return 1
    log.info("queue %s deleted", queue)
    return 0


async def _destroy(backend: Backend) -> None:
    try:
        await backend.destroy()
    finally:
        await backend.close()
