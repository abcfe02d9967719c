"""Logs as JSON lines on stdout: the runtime's own, the user's `logging` calls and prints, and a line for each request.

The id of the request that is being handled is in every line. A line is never an error, whatever is to be shown, and no caller
waits until it is written (output.py). The runtime's loggers and prints don't pass the loggers that user code can configure.
"""

import asyncio
import atexit
import itertools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import orjson

from cortex_runtime.logs import capture, tracebacks
from cortex_runtime.logs.output import Output

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

LONGEST = 1 << 20
"""Bytes of a line; in a longer one every value is cut to an equal part of that."""
_RECORD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_FLUSH_SECONDS = 0.05
_FLUSH_LINES = 256
_END_SECONDS = 1.0
"""How long the end of a process waits for a slow reader of its log."""
_OPTIONS = orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS


class _State(threading.local):
    """Whether this thread is about to write a record: what its values log while they are shown is not formatted."""

    busy = False


_state = _State()
_output: Output | None = None
_captured: list[capture.Lines] = []


def configure(level: str, capture_prints: bool = False) -> None:
    """Send all logging of this process, and prints if asked, to stdout as JSON lines from this level up."""
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=number, handlers=[JsonHandler()], force=True)
    RuntimeLogger.least = number
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    if capture_prints:
        _captured[:] = capture.capture(_write_print, request_id.get)
        sys.excepthook = _on_uncaught
        threading.excepthook = _on_uncaught_in_thread
        sys.unraisablehook = _on_unraisable


def write(*lines: bytes) -> None:
    """Write lines of JSON. Never waits, never raises."""
    global _output
    if _output is None:
        _output = Output(1, _lost)
        atexit.register(flush)
    _output.write(*lines)


def flush() -> None:
    """Write everything that is pending, before the process ends; a reader that is too slow for that gets no more."""
    for lines in _captured:
        lines.flush_all()
    if _output is not None:
        _output.flush(_END_SECONDS)


class RuntimeLogger(logging.Logger):
    """A logger of the runtime's: of what is done to `logging`, nothing changes what it writes.

    least: the level from which on all of them write; own_least: the same for one.
    """

    least = (
        logging.WARNING
    )  # Until `configure`: a program that imports the package, such as a test, sees no progress lines.
    own_least: int | None = None

    def isEnabledFor(self, level: int) -> bool:
        """Whether a record of this level is written."""
        return level >= (self.least if self.own_least is None else self.own_least)

    def _log(
        self,
        level: int,
        msg: object,
        args: Any,
        exc_info: Any = None,
        extra: Mapping[str, object] | None = None,
        stack_info: bool = False,
        stacklevel: int = 1,
    ) -> None:
        error = exc_info if isinstance(exc_info, BaseException) else sys.exc_info()[1] if exc_info else None
        name = _LEVELS.get(level, "info")
        _write_record(name, self.name, lambda: str(msg) % args if args else msg, msg, error, extra or {})


_LEVELS = {10: "debug", 20: "info", 30: "warning", 40: "error", 50: "critical"}


def own(name: str, least: int | None = None) -> RuntimeLogger:
    """The runtime's logger of a name, which `logging.getLogger` returns from now on. least: its own level, if it has one."""
    manager = logging.Logger.manager
    usual, manager.loggerClass = manager.loggerClass, RuntimeLogger
    try:
        logger = logging.getLogger(name)
    finally:
        manager.loggerClass = usual
    assert isinstance(logger, RuntimeLogger)
    logger.own_least = least
    logger.setLevel(least or logging.DEBUG)
    return logger


class JsonHandler(logging.Handler):
    """Writes each record of user code and of libraries as one JSON line; fields given as `extra` are next to the message."""

    def handle(self, record: logging.LogRecord) -> bool:
        """Write one record, unless a filter is against it. No lock is held meanwhile."""
        accepted = bool(self.filter(record))
        if accepted:
            self.emit(record)
        return accepted

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        extra = {name: value for name, value in vars(record).items() if name not in _RECORD_FIELDS}
        error = record.exc_info[1] if record.exc_info else None
        _write_record(
            record.levelname.lower(),
            record.name,
            record.getMessage,
            record.msg,
            error,
            extra,
            record.created,
        )


def _write_record(
    level: str,
    logger: str,
    format_message: Callable[[], object],
    template: object,
    error: BaseException | None,
    extra: Mapping[str, object],
    created: float | None = None,
) -> None:
    outer = _state.busy
    _state.busy = True
    try:
        content: dict[str, Any] = {
            "time": datetime.fromtimestamp(time.time() if created is None else created, UTC),
            "level": level,
            "message": _plain_message(template) if outer else _message(format_message, template),
            "logger": logger,
            "process": os.getpid(),
        }
        current = request_id.get()
        if current is not None:
            content["requestId"] = current
        if not outer:
            if error is not None:
                content["traceback"] = tracebacks.whole(error)
            for name, value in extra.items():
                content.setdefault(name, value)
        write(to_line(content))
    except Exception:
        # Out of memory or of stack: the request matters more than its line.
        pass
    finally:
        _state.busy = outer


def _message(format_message: Callable[[], object], template: object) -> str:
    try:
        return str(format_message())
    except Exception as error:
        return f"{_plain_message(template)} (arguments that can't be shown: {tracebacks.text_of(error)})"


def _plain_message(template: object) -> str:
    return template if isinstance(template, str) else f"<{type(template).__name__}>"


def _write_print(line: str, request: str | None) -> None:
    try:
        content = {
            "time": datetime.now(UTC),
            "level": "info",
            "message": line,
            "logger": "print",
            "process": os.getpid(),
        }
        if request is not None:
            content["requestId"] = request
        write(to_line(content))
    except Exception:
        pass


def to_line(content: dict[str, Any]) -> bytes:
    """A line of JSON. What can't be encoded is escaped, what is no JSON is shown as text, and what is too long is cut."""
    try:
        line = orjson.dumps(content, default=tracebacks.text_of, option=_OPTIONS)
    except TypeError:
        line = b""
    if not line or len(line) > LONGEST:
        most = LONGEST // (4 * len(content))
        shown = {tracebacks.printable(name): _shown(value, most) for name, value in content.items()}
        line = orjson.dumps(shown, option=_OPTIONS)
    return line


def _shown(value: Any, most: int) -> Any:
    if value is None or isinstance(value, bool | float | datetime):
        return value
    if type(value) is int and value.bit_length() < 64:
        return value
    text = tracebacks.printable(value if isinstance(value, str) else tracebacks.text_of(value))
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}... ({len(text)} characters) ...{text[-most // 2 :]}"


def _lost(lines: int) -> bytes:
    return to_line(
        {
            "time": datetime.now(UTC),
            "level": "warning",
            "message": f"{lines} log lines were dropped: the reader of stdout is too slow",
            "logger": "cortex",
            "process": os.getpid(),
        }
    )


def _on_uncaught(kind: Any, error: BaseException, trace: Any) -> None:
    if not isinstance(error, KeyboardInterrupt):
        log.error("an exception ended the process", exc_info=error)


def _on_uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_type is not SystemExit:
        name = arguments.thread.name if arguments.thread is not None else "?"
        log.error("an exception ended thread %s", name, exc_info=arguments.exc_value)


def _on_unraisable(arguments: Any) -> None:
    words = arguments.err_msg or "an exception was ignored in"
    log.error("%s: %s", words, tracebacks.text_of(arguments.object), exc_info=arguments.exc_value)


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
                    }
                )
                for moment, method, path, status, seconds, request in pending
            )
        )


class RequestIds:
    """Ids for requests that bring none: unique across processes, cheap to make."""

    def __init__(self) -> None:
        self._prefix = os.urandom(8).hex()
        self._count = itertools.count(1)

    def new(self) -> str:
        """A new id."""
        return f"{self._prefix}-{next(self._count):06x}"


log = own("cortex")
own("uvicorn.error", logging.WARNING)
own("cortex.debug", logging.INFO)
