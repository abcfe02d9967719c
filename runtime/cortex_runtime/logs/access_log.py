"""The access log: one JSON line for each request."""

import asyncio
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from cortex_runtime.logs import records
from cortex_runtime.logs.records import to_line, write

_FLUSH_SECONDS = 0.05
_FLUSH_LINES = 256
_NO_FIELDS: Mapping[str, str] = {}


class AccessLog:
    """Logs requests, in batches on the event loop.

    At level debug it logs every request, otherwise only failed ones: a line for each successful request costs as much as a fast
    handler, and the metrics count them. least_status: requests with a lower status are not logged.
    """

    def __init__(self, level: str) -> None:
        self.least_status = {"debug": 0, "info": 400, "warning": 400, "error": 500}[level]
        self._pending: list[tuple[float, str, str, int, float, str, Mapping[str, str]]] = []
        self._process = os.getpid()

    def add(self, method: str, path: str, status: int, seconds: float, request: str) -> None:
        """Add a completed request. seconds: its duration."""
        pending = self._pending
        trace = records.trace_fields() if records.trace_fields is not None else _NO_FIELDS
        pending.append((time.time(), method, path, status, seconds, request, trace))
        if len(pending) == 1:
            asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self.flush)
        elif len(pending) >= _FLUSH_LINES:
            self.flush()

    def flush(self) -> None:
        """Write the pending lines."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        write(
            *(
                to_line(
                    {
                        "time": datetime.fromtimestamp(moment, UTC),
                        "level": "info" if status < 500 else "error",
                        "message": f"{method} {path} {status}",
                        "method": method,
                        "path": path,
                        "status": status,
                        "milliseconds": round(seconds * 1000, 3),
                        "requestId": request,
                        "process": self._process,
                        **trace,
                    }
                )
                for moment, method, path, status, seconds, request, trace in pending
            )
        )
