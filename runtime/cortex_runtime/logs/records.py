"""Log as JSON lines on stdout: messages of the runtime, `logging` calls and prints of user code.

Each line has the id of the current request. Logging never raises and never blocks (output.py). User code can't change the loggers
of the runtime, and prints don't pass through `logging`.
"""

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

trace_fields: Callable[[], Mapping[str, str]] | None = None
"""Returns the fields `trace_id` and `span_id` of the current request, if it is traced. Set in processes that trace requests."""

MAX_LINE = 1 << 20
"""Maximum size of a line in bytes. The values of a longer line are truncated to equal parts of it."""
_RECORD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_END_SECONDS = 1.0
"""Seconds that an exiting process waits for a slow reader."""
_OPTIONS = orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS


class _State(threading.local):
    """Whether this thread is writing a record. Records that its values log while they are formatted are not formatted."""

    busy = False


_state = _State()
_output: Output | None = None
_captured: list[capture.Lines] = []


def configure(level: str, capture_prints: bool = False) -> None:
    """Log as JSON lines on stdout from this level up. capture_prints: also for sys.stdout and sys.stderr."""
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=number, handlers=[JsonHandler()], force=True)
    RuntimeLogger.minimum = number
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    if capture_prints:
        _captured[:] = capture.capture(_write_print, request_id.get)
        sys.excepthook = _on_uncaught
        threading.excepthook = _on_uncaught_in_thread
        sys.unraisablehook = _on_unraisable


def write(*lines: bytes) -> None:
    """Write lines of JSON. Never blocks, never raises."""
    global _output
    if _output is None:
        _output = Output(1, _dropped_line)
        atexit.register(flush)
    _output.write(*lines)


def flush() -> None:
    """Write all pending lines before the process exits. If the reader is too slow, they are lost."""
    for lines in _captured:
        lines.flush_all()
    if _output is not None:
        _output.flush(_END_SECONDS)


class RuntimeLogger(logging.Logger):
    """A logger of the runtime, which user code can't change through `logging`.

    minimum: the level of all these loggers. own_minimum: the level of this one, if it has its own.
    """

    # Until `configure` is called, so that programs that import the package log no progress.
    minimum = logging.WARNING
    own_minimum: int | None = None

    def isEnabledFor(self, level: int) -> bool:
        """Return whether records of this level are written."""
        return level >= (self.minimum if self.own_minimum is None else self.own_minimum)

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


def runtime_logger(name: str, minimum: int | None = None) -> RuntimeLogger:
    """Return a logger of the runtime, which `logging.getLogger` then returns too. minimum: its own level, if it has one."""
    logger = logging.getLogger(name)
    # A library may have created it, for example uvicorn if it is imported first.
    logger.__class__ = RuntimeLogger
    assert isinstance(logger, RuntimeLogger)
    logger.own_minimum = minimum
    logger.setLevel(minimum or logging.DEBUG)
    return logger


class JsonHandler(logging.Handler):
    """Writes the records of user code and libraries as JSON lines. The fields of `extra` are fields of the line."""

    def handle(self, record: logging.LogRecord) -> bool:
        """Write one record unless a filter rejects it. Acquires no lock."""
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
        if trace_fields is not None:
            content.update(trace_fields())
        if not outer:
            if error is not None:
                content["traceback"] = tracebacks.whole(error)
            for name, value in extra.items():
                content.setdefault(name, value)
        write(to_line(content))
    except Exception:
        # Out of memory or stack: the request is more important than its log line.
        pass
    finally:
        _state.busy = outer


def _message(format_message: Callable[[], object], template: object) -> str:
    try:
        return str(format_message())
    except Exception as error:
        return f"{_plain_message(template)} (failed to format the arguments: {tracebacks.text_of(error)})"


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
        # An unfinished line of an earlier request is written in the context of a later one.
        if trace_fields is not None and request == request_id.get():
            content.update(trace_fields())
        write(to_line(content))
    except Exception:
        pass


def to_line(content: dict[str, Any]) -> bytes:
    """Return a line of JSON. Unsupported values become text, invalid characters are escaped, long values are truncated."""
    try:
        line = orjson.dumps(content, default=tracebacks.text_of, option=_OPTIONS)
    except TypeError:
        line = b""
    if not line or len(line) > MAX_LINE:
        most = MAX_LINE // (4 * len(content))
        plain = {tracebacks.printable(name): _plain_value(value, most) for name, value in content.items()}
        line = orjson.dumps(plain, option=_OPTIONS)
    return line


def _plain_value(value: Any, most: int) -> Any:
    if value is None or isinstance(value, bool | float | datetime):
        return value
    if type(value) is int and value.bit_length() < 64:
        return value
    text = tracebacks.printable(value if isinstance(value, str) else tracebacks.text_of(value))
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}... ({len(text)} characters) ...{text[-most // 2 :]}"


def _dropped_line(lines: int) -> bytes:
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


class RequestIds:
    """Generates ids for requests without one. They are unique across processes and cheap to generate."""

    def __init__(self) -> None:
        self._prefix = os.urandom(8).hex()
        self._count = itertools.count(1)

    def new(self) -> str:
        """Return a new id."""
        return f"{self._prefix}-{next(self._count):06x}"


log = runtime_logger("cortex")
runtime_logger("uvicorn.error", logging.WARNING)
runtime_logger("cortex.debug", logging.INFO)
