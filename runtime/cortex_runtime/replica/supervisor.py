"""The replica's first process: it fetches models, starts the workers, starts them again, answers on the admin port and drains. No
user code runs here, so health is answered however busy the handler is.
"""

import asyncio
import json
import logging
import signal
import socket
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cortex_api import Document, units
from cortex_runtime.document import require_supported
from cortex_runtime.errors import StartError
from cortex_runtime.handler.dependencies import Installer
from cortex_runtime.handler.dependencies import Stopped as InstallStopped
from cortex_runtime.http.server import Server, plain
from cortex_runtime.logs import records
from cortex_runtime.logs.tracebacks import last_lines
from cortex_runtime.mailboxes import Mailboxes
from cortex_runtime.metrics.prometheus import Metrics
from cortex_runtime.metrics.shared_memory import SharedMetrics
from cortex_runtime.models.progress import Stopped
from cortex_runtime.models.project import ProjectSource
from cortex_runtime.models.sync import Sync
from cortex_runtime.processes.lifeline import Lifeline
from cortex_runtime.processes.worker_arguments import WorkerArguments
from cortex_runtime.replica.admin import Admin, Unready
from cortex_runtime.replica.workers import Worker, WorkerSlot, listen, start

log = logging.getLogger("cortex")

LOOK = 0.5
"""Seconds between two looks at the workers and at the load."""
LOAD_WINDOW = 10.0
"""Seconds over which the load is averaged for /load."""
RESPAWN = 2.0
"""Seconds after the death of the last worker for which a replica counts as ready: connections wait for the next one, which is
mostly there by then; were the replica unready at once, they would be refused.
"""
_COUNTED = 300.0
"""Seconds before the last end of a worker for which others are counted with it."""


@dataclass(frozen=True)
class Options:
    """The command line of `serve`.

    packed: folder of a ConfigMap that holds the project as an archive. drain_delay: seconds for which new connections are still
    taken after SIGTERM.
    """

    config: Path
    project: Path
    models: Path
    host: str
    port: int
    admin_port: int
    termination_log: Path
    packed: Path | None = None
    drain_delay: float = 1.0
    reload: bool = False


class Supervisor:
    """One replica. `run` returns the exit status. watches_workers: whether a worker that hangs is ended."""

    watches_workers = True

    def __init__(self, options: Options, document: Document) -> None:
        self._options = options
        self._document = document
        self._processes = document.spec.handler.processes_per_replica
        # Twice the rows: during a reload two generations of workers serve side by side.
        self._shared_metrics = SharedMetrics.create(2 * self._processes)
        self._free = list(range(self._shared_metrics.slots))
        self._mailboxes = Mailboxes.create(self._shared_metrics.slots if self._processes > 1 else 0)
        self._listener = _listen(options.host, options.port)
        self._admin_listener = _listen(options.host, options.admin_port)
        self._seats: list[WorkerSlot] = []
        self._restarts = 0
        self._stopping: asyncio.Event = asyncio.Event()
        self._doing = ("starting", time.time())
        self._at_once = False
        self._loads: deque[int] = deque(maxlen=round(LOAD_WINDOW / LOOK))
        self._source = ProjectSource(document.spec.handler, options.project, options.models, options.packed)
        project = self._source.folder
        self._watched = {project, options.config}
        self._before: dict[str, tuple[int, int]] = {}
        self._lifeline = Lifeline()
        self._arguments = WorkerArguments(
            str(options.config), str(project), str(options.models), self._lifeline.name
        )
        self._installer: Installer | None = None
        self._load_failures: Counter[str] = Counter()
        self._sync: Sync | None = None
        if document.spec.handler.models is not None:
            self._sync = Sync(document, options.models, project)

    async def run(self) -> int:
        """Serve until a signal. Raises StartError when the API can't start."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        admin = self._admin_server()
        serving = asyncio.create_task(admin.serve(sockets=[self._admin_listener]))
        try:
            await self._get_ready()
            self._seats = await self._generation()
            if not self._stopping.is_set():
                log.info("ready: serving %s on port %d", self._document.name, self._listener.getsockname()[1])
                await self._watch()
            await self._drain()
        except (InstallStopped, Stopped):
            log.info("told to stop before the workers were started")
        finally:
            self._stop()
            for seat in self._seats:
                seat.kill()
            await asyncio.gather(*(seat.task for seat in self._seats), return_exceptions=True)
            admin.should_exit = True
            await serving
            self._listener.close()
            if self._installer is not None:
                self._installer.close()
        return 0

    async def _get_ready(self) -> None:
        """What the workers find when they start. Raises StartError, InstallStopped and Stopped."""
        self._do("fetching the project")
        await asyncio.to_thread(self._source.fetch)
        self._installer = Installer(self._document.spec.handler, self._source.folder, self._lifeline)
        if self._stopping.is_set():
            raise Stopped
        if self._document.spec.handler.dependencies is not None:
            self._do("installing dependencies")
        await asyncio.to_thread(self._installer.prepare)
        if self._sync is not None:
            self._do("looking for models")
            await asyncio.to_thread(self._sync.start)
        if self._options.reload:
            from cortex_runtime.replica.reload import snapshot

            # From before the first worker reads them.
            self._before = await asyncio.to_thread(snapshot, self._watched)

    def _do(self, what: str) -> None:
        """Note what the replica begins to do, for readiness."""
        if what != self._doing[0]:
            self._doing = (what, time.time())
            log.debug("%s", what)

    async def _watch(self) -> None:
        """Return when told to stop. Raises StartError when no worker is left and none can start."""
        stop = asyncio.create_task(self._stopping.wait())
        others = [asyncio.create_task(self._reload_on_change())] if self._options.reload else []
        if self._sync is not None and self._sync.interval:
            others.append(asyncio.create_task(self._follow_models(self._sync)))
        try:
            looked = asyncio.get_running_loop().time()
            while not stop.done():
                await asyncio.wait((stop,), timeout=LOOK)
                now = asyncio.get_running_loop().time()
                for seat in self._seats:
                    # Longer ones are those in which this process was suspended, and the workers with it.
                    seat.watch(min(now - looked, 2 * LOOK))
                looked = now
                self._loads.append(self._shared_metrics.in_flight())
                down = [seat for seat in self._seats if not seat.ready and seat.problem]
                stuck = [seat.problem for seat in down if seat.stuck and seat.problem]
                if stuck and len(down) == len(self._seats):
                    raise stuck[0]
        finally:
            stop.cancel()
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    async def _generation(self) -> list[WorkerSlot]:
        """Workers on all seats, once all are ready. Raises StartError, with none of them left, when one can't start."""
        if not self._seats:
            self._do("starting the worker processes")
        patience = None
        if self.watches_workers:
            patience = units.seconds(self._document.spec.handler.request_timeout)
        seats = [WorkerSlot(self._launch, self._vacate, patience) for _ in range(self._processes)]
        started = asyncio.gather(*(seat.first for seat in seats))
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((started, stop), return_when=asyncio.FIRST_COMPLETED)
            if started.done():
                started.result()
        except StartError:
            await self._end(seats)
            raise
        finally:
            stop.cancel()
            started.cancel()
        return seats

    async def _end(self, seats: Iterable[WorkerSlot]) -> None:
        for seat in seats:
            seat.kill()
        await asyncio.gather(*(seat.task for seat in seats), return_exceptions=True)

    def _launch(self) -> "asyncio.Future[Worker]":
        slot = self._free.pop(0)
        return asyncio.ensure_future(
            start(
                self._arguments, self._listener, self._shared_metrics, self._mailboxes, slot, self._on_report
            )
        )

    def _on_report(self, report: dict[str, Any]) -> None:
        if report["event"] == "model_failed":
            self._load_failures[report["model"]] += 1
        elif report["event"] == "doing":
            self._do(report["what"])

    def _model_failures(self) -> dict[str, int]:
        """How often a model could not be fetched or loaded, by model."""
        return dict(self._load_failures + (self._sync.failures if self._sync is not None else Counter()))

    def _vacate(self, slot: int) -> None:
        self._shared_metrics.reset_gauges(slot)
        self._free.append(slot)
        if self._processes > 1:
            live = [other for other, value in enumerate(self._shared_metrics.live) if value]
            self._mailboxes.pass_on(slot, live[0] if live else None)

    async def _reload_on_change(self) -> None:
        from cortex_runtime.replica.reload import changes

        async for _ in changes(self._watched, self._before, self._stopping):
            log.info("the project changed; loading it again")
            try:
                seats = await self._generation()
            except StartError as error:
                log.error("the change is not served, what ran before goes on: %s", error)
                continue
            self._seats, before = seats, self._seats
            for seat in seats:
                # It may have changed while they started.
                seat.tell("models")
            self._restarts += sum(seat.restarts for seat in before)
            for seat in before:
                seat.tell("stop")
            await asyncio.gather(*(seat.task for seat in before))
            log.info("the change is served")

    async def _follow_models(self, sync: Sync) -> None:
        """Ask the models' locations for changes; tell the workers when something is to be served differently."""
        while True:
            await asyncio.sleep(sync.interval)
            try:
                changed = await asyncio.to_thread(sync.poll)
            except Stopped:
                return
            except Exception:
                log.exception("the models could not be asked for changes; what is served stays")
                continue
            if changed:
                for seat in self._seats:
                    seat.tell("models")

    async def _drain(self) -> None:
        """Let what runs end: first new requests are still taken, each on its last connection; then no more."""
        log.info("draining: %d requests in flight", self._shared_metrics.in_flight())
        for seat in self._seats:
            seat.tell("drain")
        if not self._at_once:
            await asyncio.sleep(self._options.drain_delay)
        for seat in self._seats:
            seat.tell("stop")
        # Once the workers have closed theirs too, whoever still comes is refused at once, and doesn't wait for nobody.
        self._listener.close()
        limit = units.seconds(self._document.spec.handler.request_timeout)
        await asyncio.wait([seat.task for seat in self._seats], timeout=limit)

    def _stop(self) -> None:
        self._stopping.set()
        self._source.stop()
        if self._installer is not None:
            self._installer.stop()
        if self._sync is not None:
            self._sync.stop()

    def _interrupt(self) -> None:
        self._at_once = True
        self._stop()

    def _problem(self) -> Unready | None:
        if self._stopping.is_set():
            return Unready("Draining", "the replica is shutting down")
        answering = sum(seat.answers for seat in self._seats)
        now = asyncio.get_running_loop().time()
        if answering or any(now - seat.lost_at < RESPAWN for seat in self._seats):
            return None
        for seat in self._seats:
            if (problem := seat.hung or seat.problem) is not None and not seat.answers:
                return Unready(problem.reason, problem.message)
        if self._sync is not None and (downloading := self._sync.status()):
            return Unready("Starting", f"downloading {downloading}", _rfc3339(self._doing[1]))
        return Unready("Starting", self._doing[0], _rfc3339(self._doing[1]))

    def _last_failure(self) -> dict[str, str] | None:
        """Why a worker died or hung last, though another serves by now."""
        lost = [seat.lost for seat in self._seats if seat.lost is not None]
        if not lost:
            return None
        error, seconds = max(lost, key=lambda each: each[1])
        ends = sum(seconds - when <= _COUNTED for seat in self._seats for when in seat.ends)
        often = f" ({ends} times within {_COUNTED / 60:g} minutes)" if ends > 1 else ""
        return {"reason": error.reason, "message": f"{error.message}{often}", "time": _rfc3339(seconds)}

    def _average_load(self) -> float:
        return sum(self._loads) / len(self._loads) if self._loads else 0.0

    def _workers(self) -> tuple[int, int]:
        return (
            sum(seat.ready for seat in self._seats),
            self._restarts + sum(seat.restarts for seat in self._seats),
        )

    def _admin_server(self) -> Server:
        metrics = Metrics(self._document, self._shared_metrics, self._workers, self._model_failures)
        admin = Admin(
            self._problem,
            metrics.text,
            self._shared_metrics.in_flight,
            self._average_load,
            self._last_failure,
        )
        config = plain(admin, loop="asyncio", http="httptools", timeout_graceful_shutdown=1)
        return Server(config, lambda: None)


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def serve(options: Options) -> int:
    """Serve an API until SIGTERM or SIGINT. Returns the exit status: 0, or 1 with the cause in the termination log."""
    records.configure("info")
    try:
        try:
            document = Document.read(options.config)
        except (OSError, ValueError) as error:
            raise StartError("InvalidSpec", str(error)) from error
        records.configure(document.spec.handler.log_level)
        require_supported(document)
        return asyncio.run(_run(options, document))
    except StartError as error:
        log.error("the API can't start: %s", error, extra={"reason": error.reason})
        record_termination(options.termination_log, error)
        return 1


async def _run(options: Options, document: Document) -> int:
    return await Supervisor(options, document).run()


def _listen(host: str, port: int) -> socket.socket:
    try:
        return listen(host, port)
    except OSError as error:
        raise StartError("PortInUse", f"can't listen on {host}:{port}: {error.strerror}") from error


def record_termination(path: Path, error: StartError) -> None:
    """Write the cause of death where Kubernetes takes it from: JSON of at most 4,096 bytes.

    Of a longer message, the first line and the last ones, each whole.
    """
    first, _, rest = error.message.partition("\n")
    message, limit = error.message, 4096
    while len(content := json.dumps({"reason": error.reason, "message": message}).encode()) > 4096:
        limit = limit * 7 // 8
        head = last_lines(first, limit // 4 if rest else limit)
        message = head + (f"\n{last_lines(rest, limit - len(head))}" if rest else "")
    try:
        path.write_bytes(content)
    except OSError as problem:
        log.warning("the termination log %s can't be written: %s", path, problem)
