"""The trace of the start of a replica: what it downloads and installs, and how long the worker processes take."""

from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cortex_runtime.tracing.provider import Tracing

_NAMES = {
    "fetching the project": "download project",
    "installing dependencies": "install dependencies",
    "looking for models": "download models",
    "starting the worker processes": "start workers",
}
"""Names of the spans by the steps of the start. Other steps are those of the worker processes."""


class StartTrace:
    """A context manager for the start: a span "start", with one for each step. Without tracing, it does nothing."""

    def __init__(self, tracing: "Tracing | None") -> None:
        self._tracing = tracing
        self._start: Any = None
        self._step: Any = None

    def __enter__(self) -> "StartTrace":
        if self._tracing is not None:
            self._start = self._tracing.start("start")
        return self

    def step(self, description: str) -> None:
        """Begin a step, which ends the previous one."""
        name = _NAMES.get(description)
        if self._tracing is None or self._start is None or name is None:
            return
        from opentelemetry.trace import set_span_in_context

        if self._step is not None:
            self._step.end()
        self._step = self._tracing.start(name, set_span_in_context(self._start))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._start is None:
            return
        from cortex_runtime.tracing.provider import set_error

        for span in (self._step, self._start):
            if span is not None:
                if error is not None:
                    set_error(span, getattr(error, "reason", type(error).__name__))
                span.end()
        self._start = self._step = None
