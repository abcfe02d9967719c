"""Logs as JSON lines on stdout: the runtime's own, the user's `logging` calls and prints, and a line for each request.

The id of the request that is being handled stands in every line. Lines of requests are gathered for a moment and written
together, since a system call for each would cost more than some handlers do.
"""

import asyncio
import io
import itertools
import logging
import os
import sys
import time
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import orjson

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

_RECORD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_FLUSH_SECONDS = 0.05
_FLUSH_LINES = 256


def _line(content: dict[str, Any]) -> bytes:
    return orjson.dumps(content, default=str, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS)


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


class JsonHandler(logging.Handler):
    """Writes each log record as one JSON line; fields given as `extra` stand beside the message."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            content: dict[str, Any] = {
                "time": datetime.fromtimestamp(record.created, UTC),
                "level": record.levelname.lower(),
                "message": record.getMessage(),
                "logger": record.name,
                "process": record.process,
            }
            current = request_id.get()
            if current is not None:
                content["requestId"] = current
            if record.exc_info and record.exc_info[0]:
                content["traceback"] = logging.Formatter().formatException(record.exc_info)
            for name, value in vars(record).items():
                if name not in _RECORD_FIELDS:
                    content.setdefault(name, value)
            _write(_line(content))
        except Exception:
            self.handleError(record)


class _Printed(io.TextIOBase):
    """Stands in for sys.stdout or sys.stderr: each printed line becomes a log line."""

    def __init__(self, log: Callable[[str], None], descriptor: int) -> None:
        self._log = log
        self._rest = ""
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if line.strip():
                self._log(line)
        return len(text)

    def flush(self) -> None:
        if self._rest.strip():
            line, self._rest = self._rest, ""
            self._log(line)


def configure(level: str, capture_prints: bool = False) -> None:
    """Send all logging of this process, and prints if asked, to stdout as JSON lines from this level up."""
    logging.basicConfig(level=level.upper(), handlers=[JsonHandler()], force=True)
    for name in ("uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    if capture_prints:
        # A print is meant to be seen, whatever level the API has.
        printed = logging.getLogger("print")
        printed.setLevel(logging.INFO)
        sys.stdout = _Printed(printed.info, 1)
        sys.stderr = _Printed(printed.info, 2)


class AccessLog:
    """A line for each request whose status is worth one, written in batches on the event loop.

    At level debug that is every request. At info and above it is what failed: a line for each success costs as much as a
    quick handler does, and the metrics count them all. least_status: below it, nothing is to be added.
    """

    def __init__(self, level: str) -> None:
        self.least_status = {"debug": 0, "info": 400, "warning": 400, "error": 500}[level]
        self._pending: list[tuple[float, str, str, int, float, str]] = []
        self._process = os.getpid()

    def add(self, method: str, path: str, status: int, seconds: float, request: str) -> None:
        """Note a request that is over; seconds: how long it took."""
        pending = self._pending
        pending.append((time.time(), method, path, status, seconds, request))
        if len(pending) == 1:
            asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self.flush)
        elif len(pending) >= _FLUSH_LINES:
            self.flush()

    def flush(self) -> None:
        """Write what is pending."""
        pending, self._pending = self._pending, []
        lines = [
            _line(
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
                }
            )
            for moment, method, path, status, seconds, request in pending
        ]
        if lines:
            _write(b"".join(lines))


class RequestIds:
    """Ids for requests that bring none: unique across processes, cheap to make."""

    def __init__(self) -> None:
        self._prefix = os.urandom(8).hex()
        self._count = itertools.count(1)

    def new(self) -> str:
        """A new id."""
        return f"{self._prefix}-{next(self._count):06x}"
