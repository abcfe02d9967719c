"""`python -m cortex_runtime destroy --config FILE`: removes the queue of an AsyncAPI, with all jobs and results. For
`deletionPolicy: Delete`; nothing else ever does that. Where there is no queue, that is fine.
"""

import asyncio
import logging
import os
from pathlib import Path

from cortex_runtime import logs
from cortex_runtime.errors import StartError
from cortex_runtime.gateway import read_document
from cortex_runtime.queues.base import QueueError
from cortex_runtime.queues.connect import VARIABLE, connect
from cortex_runtime.queues.queue import Queue
from cortex_runtime.supervisor import record_termination

log = logging.getLogger("cortex")


def destroy(config: Path, termination_log: Path) -> int:
    """Exit status: 0 once the queue is gone, 1 with the cause in the termination log."""
    logs.configure("info")
    try:
        document = read_document(config)
        asyncio.run(_destroy(connect(os.environ.get(VARIABLE, ""), document)))
    except (StartError, QueueError) as problem:
        error = problem if isinstance(problem, StartError) else StartError("QueueUnreachable", str(problem))
        log.error("the queue can't be removed: %s", error, extra={"reason": error.reason})
        record_termination(termination_log, error)
        return 1
    log.info("the queue of %s is removed", document.name)
    return 0


async def _destroy(queue: Queue) -> None:
    try:
        await queue.backend.open()
        await queue.backend.destroy()
    finally:
        await queue.backend.close()
