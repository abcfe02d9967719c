"""The split in a worker: it follows the file that the operator writes. Without a split, no code of candidates is imported."""

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cortex_api import Document, units
from cortex_runtime.http.server import Server
from cortex_runtime.processes.worker_arguments import WorkerArguments
from cortex_runtime.serving.app import App
from cortex_runtime.serving.instrumentation import Instrumentation

if TYPE_CHECKING:
    from cortex_runtime.candidate.split import Split
    from cortex_runtime.candidate.switch import Switch
    from cortex_runtime.serving.grpc_server import GrpcServer

log = logging.getLogger("cortex")


class WorkerSplit:
    """Installs the split of the file into a server, and removes it."""

    def __init__(
        self,
        document: Document,
        app: App,
        server: Server,
        loop: asyncio.AbstractEventLoop,
        arguments: WorkerArguments,
        grpc: "GrpcServer | None",
        instrumentation: Instrumentation,
    ) -> None:
        self._document, self._app, self._server, self._loop = document, app, server, loop
        self._path = Path(arguments.split) if arguments.split else None
        self._slot = arguments.slot
        self._grpc = grpc
        self._instrumentation = instrumentation
        self._switch: Switch | None = None

    def start(self) -> None:
        """Use the split of the file before the first request. Called on the event loop."""
        found = self._read()
        if found:
            self._apply(found[0])

    def reload(self) -> None:
        """Use the split of the file now. Called on another thread, which imports what the split needs."""
        found = self._read()
        if found:
            self._loop.call_soon_threadsafe(self._apply, found[0])

    def describe(self, topic: str) -> dict[str, Any]:
        """Return what was compared: {} without a split. Called on another thread than the event loop's.

        topic: "classes" or "differences".
        """
        if self._switch is None:
            return {}

        async def describe() -> dict[str, Any]:
            return {} if self._switch is None else self._switch.describe(topic)

        return asyncio.run_coroutine_threadsafe(describe(), self._loop).result()

    def _read(self) -> "tuple[Split | None] | None":
        """Return the split of the file in a tuple; None if it is not valid, or nothing must be done."""
        if self._path is None or (self._switch is None and not self._path.exists()):
            return None
        from cortex_runtime.candidate.split import InvalidSplit, read

        try:
            split = read(self._path)
        except InvalidSplit:
            # The supervisor logs it.
            return None
        if split is not None:
            import cortex_runtime.candidate.switch

            if self._grpc is not None:
                import cortex_runtime.candidate.grpc_split  # noqa: F401
        return (split,)

    def _apply(self, split: "Split | None") -> None:
        if self._switch is None:
            if split is None:
                return
            self._switch = self._new_switch()
        self._switch.apply(split)

    def _new_switch(self) -> "Switch":
        from cortex_runtime.candidate.counters import WorkerCounters
        from cortex_runtime.candidate.switch import Switch

        spec = self._document.realtime_spec
        timeout = units.seconds(spec.handler.request_timeout)
        switch = Switch(
            self._app,
            self._server,
            WorkerCounters(self._app.metrics.shared, self._slot),
            max_body=units.parse_bytes(spec.handler.max_body_size),
            timeout=timeout,
            most_forwarded=spec.handler.max_replica_concurrency,
            api=self._document.name,
            tracker=spec.tracker,
            wrap=self._instrumentation.wrap,
            propagate=self._instrumentation.propagate,
        )
        if self._grpc is not None:
            from cortex_runtime.candidate.grpc_split import GrpcSwitch

            switch.on_session = GrpcSwitch(self._grpc, self._app.admission, timeout).use
        return switch
