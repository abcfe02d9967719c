"""The termination log: why a container exited, for the status of its pod."""

import json
import logging
from pathlib import Path

from cortex_runtime.errors import StartError
from cortex_runtime.logs.tracebacks import last_lines

log = logging.getLogger("cortex")

_LIMIT = 4096
"""Bytes that Kubernetes reads."""


def record_termination(path: Path, error: StartError) -> None:
    """Write the reason and message of an error as JSON of at most 4,096 bytes.

    A longer message is cut to its first line and its last lines, each complete.
    """
    first, _, rest = error.message.partition("\n")
    message, limit = error.message, _LIMIT
    while len(content := json.dumps({"reason": error.reason, "message": message}).encode()) > _LIMIT:
        limit = limit * 7 // 8
        head = last_lines(first, limit // 4 if rest else limit)
        message = head + (f"\n{last_lines(rest, limit - len(head))}" if rest else "")
    try:
        path.write_bytes(content)
    except OSError as problem:
        log.warning("failed to write the termination log %s: %s", path, problem)
