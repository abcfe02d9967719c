"""The worker processes of a replica and what they share: project, dependencies, models and metrics.

A `WorkerSlot` (worker_slot.py) detects the exit of its worker and starts the next one. The pool checks for hung workers, and
fails when no worker can start.

The supervisor of a RealtimeAPI and the consumer of an AsyncAPI each have one. They differ in the workers that they launch.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cortex_api import Document
from cortex_api.contract import AWAITING_PROJECT
from cortex_runtime import tracing
from cortex_runtime.errors import StartError, Stopped
from cortex_runtime.handler.project_source import ProjectSource
from cortex_runtime.mailboxes import Mailboxes
from cortex_runtime.messages import (
    Command,
    Description,
    Message,
    ModelFailed,
    ModelsChanged,
    ReloadModels,
    ReloadSplit,
    Step,
    Stop,
)
from cortex_runtime.metrics.shared_memory import SharedMetrics
from cortex_runtime.processes.child_process import ChildProcess, Spawned
from cortex_runtime.processes.launcher import Launcher
from cortex_runtime.processes.orphans import OrphanReaper
from cortex_runtime.processes.parent_pipe import ParentPipe
from cortex_runtime.processes.worker_arguments import WorkerArguments
from cortex_runtime.replica.admin import NotReady
from cortex_runtime.replica.dependencies import Dependencies
from cortex_runtime.replica.descriptions import Descriptions
from cortex_runtime.replica.models import ReplicaModels
from cortex_runtime.replica.worker_slot import WorkerSlot

if TYPE_CHECKING:
    from cortex_runtime.metrics.prometheus import Metrics
    from cortex_runtime.replica.development import Development

log = logging.getLogger("cortex")

CHECK_SECONDS = 0.5
"""Seconds between two checks of the workers."""
RESPAWN_SECONDS = 2.0
"""Seconds after the exit of the last worker for which a replica remains ready: connections wait for the next worker, which is
usually ready by then. An unready replica would refuse them."""
_STOP_SECONDS = 0.5
_RETIRING_SECONDS = 5.0
"""Seconds that requests to earlier code have after a second reload has begun."""
_FAILURE_WINDOW = 300.0
"""Seconds for which earlier exits of workers are counted in the message of the last one."""


@dataclass(frozen=True)
class PoolOptions:
    """Where the workers find what they run.

    config: the API's document. project: folder of the code. packed: folder of a ConfigMap with the project as an archive, if
    any. models: folder for downloaded models. reload: restart the workers when a file of the project changes. manifest:
    a file of the project whose changes are ignored, because they change the document. development: the port on which the project
    is received from `cortex dev`, or None. show_tracebacks: responses with status 500 contain the traceback. host: address of the
    ports.
    """

    config: Path
    project: Path
    models: Path
    host: str = "0.0.0.0"
    packed: Path | None = None
    reload: bool = False
    manifest: Path | None = None
    development: int | None = None
    show_tracebacks: bool = False


class WorkerPool:
    """The worker processes of a replica.

    launcher: starts processes. launch: starts the worker process of a slot, with `spawn`. on_check: called after each check of
    the workers. on_step: called with each step of the start. further_metrics: returns metric families for /metrics. hang_timeout:
    seconds after which a worker may count as hung; None where hangs are not detected. shares_requests: whether queued requests
    may move to another worker.
    """

    def __init__(
        self,
        options: PoolOptions,
        document: Document,
        launcher: Launcher,
        launch: Callable[[int], Awaitable[ChildProcess]],
        *,
        hang_timeout: float | None = None,
        shares_requests: bool = False,
        on_check: Callable[[], None] = lambda: None,
        on_step: Callable[[str], None] = lambda description: None,
        further_metrics: Callable[[], Iterable[Any]] = tuple,
    ) -> None:
        self._options = options
        self._document = document
        self._launcher = launcher
        self._prometheus: Metrics | None = None
        self._launch = launch
        self._hang_timeout = hang_timeout
        self._on_check = on_check
        self._on_step = on_step
        self.further_metrics = further_metrics
        handler = document.spec.handler
        self._size = handler.processes_per_replica
        # Two slots per worker: during a reload, two generations of workers serve at the same time.
        self.metrics = SharedMetrics.create(2 * self._size)
        self._free = list(range(self.metrics.slots))
        self._mailboxes = Mailboxes.create(self.metrics.slots if shares_requests and self._size > 1 else 0)
        self._slots: Sequence[WorkerSlot] = ()
        self._descriptions = Descriptions()
        self._earlier_restarts = 0
        self._step = ("starting", time.time())
        self.stopping = asyncio.Event()
        self._is_refusing = False
        self._source = ProjectSource(handler, options.project, options.models, options.packed)
        self._watched = {self._source.folder, options.config}
        self._files: dict[str, tuple[int, int]] = {}
        self._parent_pipe = ParentPipe()
        self._arguments = WorkerArguments(
            str(options.config),
            str(self._source.folder),
            str(options.models),
            self._parent_pipe.name,
            show_tracebacks=options.show_tracebacks or options.development is not None,
        )
        preloaded = tracing.MODULES if tracing.is_traced(document) else ()
        self._dependencies = Dependencies(
            handler, self._source.folder, self._parent_pipe, launcher, preloaded
        )
        self._retiring: Sequence[WorkerSlot] = ()
        self._development: Development | None = None
        self._models = ReplicaModels(document, options.models, self._source.folder)

    async def start(self) -> None:
        """Fetch project, dependencies and models, and start the workers. Return once all workers are ready, or on `stop`.

        In development mode, wait for the project.

        Raises StartError, and Stopped if `stop` interrupts a download.
        """
        if self._options.development is not None:
            await self._start_development(self._options.development)
            return
        self._set_step("fetching the project")
        await asyncio.to_thread(self._source.fetch)
        if self.stopping.is_set():
            raise Stopped
        await self._dependencies.update(self._set_step)
        await self._models.start(self._set_step)
        if self._options.reload:
            from cortex_runtime.replica.reload import snapshot

            # Taken before the first worker reads the files, so that no change in between is missed.
            self._files = await asyncio.to_thread(snapshot, self._watched, self._options.manifest)
        self._set_step("starting the worker processes")
        self._slots = await self._start_generation()

    async def reload(self) -> None:
        """Start new workers with the files of the project as they are now, and stop the previous ones.

        Installs the dependencies again if their files have changed. If it raises StartError or is cancelled, the previous workers
        keep serving, with the dependencies that they had.
        """
        await self._end_retiring()
        before = self._dependencies.current()
        try:
            await self._dependencies.update(self._set_step)
            if not self._slots or self._models.has_project_files:
                await self._models.start(self._set_step)
            self._set_step("starting the worker processes")
            slots = await self._start_generation()
        except BaseException:
            await self._dependencies.restore(before)
            raise
        self._slots, previous = slots, self._slots
        # The models and the split may have changed while the new workers started.
        self.send(ReloadModels())
        self.send(ReloadSplit())
        self._earlier_restarts += sum(slot.restarts for slot in previous)
        for slot in previous:
            slot.send(Stop())
        self._retiring = previous
        if previous:
            # Until they have noticed, they still accept connections. An idle worker exits within a moment.
            await asyncio.wait([slot.task for slot in previous], timeout=_STOP_SECONDS)

    async def spawn(
        self, slot: int, listener: int | None = None, grpc_address: str = "", split: str = ""
    ) -> Spawned:
        """Start the process of a slot.

        listener: descriptor of the socket that it accepts from. grpc_address: host and port of gRPC, or empty. split: path of the
        file of the split.
        """
        arguments = replace(
            self._arguments, metrics=self.metrics.descriptor, slot=slot, slots=self.metrics.slots
        )
        if listener is not None:
            arguments = replace(
                arguments,
                listener=listener,
                grpc_address=grpc_address,
                split=split,
                mailboxes=self._mailboxes.descriptors,
            )
        folder, python_path = self._source.folder, self._document.spec.handler.python_path
        folders = [folder, folder / python_path] if python_path else [folder]
        return await self._launcher.launch(arguments, [str(each) for each in folders])

    async def watch(self) -> None:
        """Check the workers until `stop`. Raises StartError when no worker is left and none can start."""
        stop = asyncio.create_task(self.stopping.wait())
        others = [asyncio.create_task(self._models.poll(lambda: self.send(ReloadModels())))]
        if self._options.reload:
            others.append(asyncio.create_task(self._reload_on_change()))
        loop = asyncio.get_running_loop()
        orphans = OrphanReaper()
        try:
            checked = loop.time()
            while not stop.done():
                await asyncio.wait((stop,), timeout=CHECK_SECONDS)
                now = loop.time()
                for slot in self._slots:
                    # During a longer interval this process was suspended, and the workers with it.
                    slot.check(min(now - checked, 2 * CHECK_SECONDS))
                checked = now
                orphans.reap()
                self._on_check()
                down = [slot for slot in self._slots if not slot.is_ready and slot.problem]
                failing = [slot.problem for slot in down if slot.is_failing and slot.problem]
                # In development mode, the next change may be the fix.
                if failing and len(down) == len(self._slots) and self._development is None:
                    raise failing[0]
        finally:
            stop.cancel()
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    def on_report(self, report: Message) -> None:
        """Handle a report that is not about one job."""
        if isinstance(report, ModelFailed):
            self._models.count_load_failure(report.model)
        elif isinstance(report, ModelsChanged):
            self.send(ReloadModels())
        elif isinstance(report, Step):
            self._set_step(report.description)
        elif isinstance(report, Description):
            self._descriptions.on_description(report)

    def send(self, command: Command) -> None:
        """Send a command to all workers."""
        for slot in self._slots:
            slot.send(command)

    async def describe(self, topic: str) -> list[bytes]:
        """Return what the workers send about a topic of `Describe`, as JSON. A worker that hangs is left out."""
        return await self._descriptions.collect(self._slots, topic)

    def stop(self) -> None:
        """End `start` and `watch`; the workers keep running."""
        self.stopping.set()
        self._source.stop()
        self._dependencies.stop()
        self._models.stop()

    def refuse(self) -> None:
        """Report from here on that the replica is not ready, because it accepts no more work."""
        self._is_refusing = True

    async def wait(self, seconds: float) -> None:
        """Wait until all workers have exited, at most `seconds`."""
        if self._slots:
            await asyncio.wait([slot.task for slot in self._slots], timeout=seconds)

    def kill(self) -> None:
        """Kill all workers and do not replace them."""
        for slot in self._slots:
            slot.kill()

    async def close(self) -> None:
        """Kill all workers and wait until they have exited."""
        self.stop()
        if self._development is not None:
            await self._development.close()
        await _kill([*self._slots, *self._retiring])
        await self._launcher.close()
        self._dependencies.close()

    def problem(self) -> NotReady | None:
        """Return why the replica is not ready."""
        if self._is_refusing:
            return NotReady("Draining", "the replica is shutting down")
        now = asyncio.get_running_loop().time()
        if any(slot.is_serving or now - slot.died_at < RESPAWN_SECONDS for slot in self._slots):
            return None
        for slot in self._slots:
            if (problem := slot.hung or slot.problem) is not None:
                return NotReady(problem.reason, problem.message)
        if self._development is not None and (error := self._development.problem) is not None:
            return NotReady(error.reason, error.message)
        step, since = self._step
        if downloading := self._models.status():
            step = f"downloading {downloading}"
        return NotReady("Starting", step, _rfc3339(since))

    def last_failure(self) -> dict[str, str] | None:
        """Return why a worker last exited or hung, even if it has been replaced since."""
        failures = [slot.last_failure for slot in self._slots if slot.last_failure is not None]
        if not failures:
            return None
        error, seconds = max(failures, key=lambda failure: failure[1])
        deaths = sum(seconds - when <= _FAILURE_WINDOW for slot in self._slots for when in slot.deaths)
        count = f" ({deaths} times within {_FAILURE_WINDOW / 60:g} minutes)" if deaths > 1 else ""
        return {"reason": error.reason, "message": f"{error.message}{count}", "time": _rfc3339(seconds)}

    def counts(self) -> tuple[int, int]:
        """Return the number of workers that are ready and the number of restarts."""
        ready = sum(slot.is_ready for slot in self._slots)
        return ready, self._earlier_restarts + sum(slot.restarts for slot in self._slots)

    def metrics_text(self) -> bytes:
        """Return the metrics of the replica in the Prometheus text format."""
        return self._metrics().text()

    def openmetrics_text(self) -> bytes:
        """Return the metrics of the replica in the OpenMetrics text format, with exemplars."""
        return self._metrics().openmetrics()

    def _metrics(self) -> "Metrics":
        if self._prometheus is None:
            # Imported at the first scrape, since it takes longer than the start of a worker.
            from cortex_runtime.metrics.prometheus import Metrics

            self._prometheus = Metrics(
                self._document, self.metrics, self.counts, self._models.failures, self.further_metrics
            )
        return self._prometheus

    def _set_step(self, description: str) -> None:
        """Record the current step of the start, for readiness."""
        if description != self._step[0]:
            self._step = (description, time.time())
            self._on_step(description)
            log.debug("%s", description)

    async def _start_generation(self) -> list[WorkerSlot]:
        """Start a worker in each slot; return once all are ready. Raises StartError, with all killed, when one can't start."""
        slots = [WorkerSlot(self._launch_next, self._on_exit, self._hang_timeout) for _ in range(self._size)]
        started = asyncio.gather(*(slot.first_start for slot in slots))
        stop = asyncio.create_task(self.stopping.wait())
        try:
            await asyncio.wait((started, stop), return_when=asyncio.FIRST_COMPLETED)
            if started.done():
                started.result()
        except BaseException:
            await _kill(slots)
            raise
        finally:
            stop.cancel()
            started.cancel()
            # Retrieves its error, which asyncio logs otherwise.
            await asyncio.gather(started, return_exceptions=True)
        return slots

    async def _launch_next(self) -> ChildProcess:
        slot = self._free.pop(0)
        try:
            return await self._launch(slot)
        except BaseException:
            self._free.append(slot)
            raise

    def _on_exit(self, worker: ChildProcess) -> None:
        self.metrics.reset_gauges(worker.slot)
        self._free.append(worker.slot)
        if self._mailboxes.descriptors:
            live = [slot for slot, value in enumerate(self.metrics.live) if value]
            self._mailboxes.forward(worker.slot, live[0] if live else None)

    async def _reload_on_change(self) -> None:
        from cortex_runtime.replica.reload import changes

        async for _ in changes(self._watched, self._files, self.stopping, self._options.manifest):
            log.info("the project has changed; restarting the workers")
            try:
                await self.reload()
            except StartError as error:
                log.error("failed to load the changed project; the previous version stays in use: %s", error)
            else:
                log.info("the changed project is in use")

    async def _start_development(self, port: int) -> None:
        """Serve the development endpoint until the first version of the project is loaded, or `stop`."""
        from cortex_runtime.replica.development import Development

        self._set_step(AWAITING_PROJECT)
        self._development = Development(
            self._options.host, port, self._source.folder, self.reload, lambda: self._step[0]
        )
        await self._development.resume()
        waits = [asyncio.create_task(event.wait()) for event in (self.stopping, self._development.is_loaded)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def _end_retiring(self) -> None:
        """Wait until the workers of the version before the current one have exited; kill them after a while."""
        tasks = [slot.task for slot in self._retiring]
        if tasks and (await asyncio.wait(tasks, timeout=_RETIRING_SECONDS))[1]:
            log.warning("requests to earlier code took more than %g s and are aborted", _RETIRING_SECONDS)
            await _kill(self._retiring)
        self._retiring = ()
        self._dependencies.remove_unused()


async def _kill(slots: Iterable[WorkerSlot]) -> None:
    tasks = []
    for slot in slots:
        slot.kill()
        tasks.append(slot.task)
    await asyncio.gather(*tasks, return_exceptions=True)


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
