"""`python -m cortex_operator [--config FILE] [--health-port PORT]`: the operator's process."""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import kopf

from cortex_api.contract import HEALTH_PATH, METRICS_PATH, PLATFORM_PATH, PORT
from cortex_operator import health, platform
from cortex_operator.autoscaling.scaling_loop import Scaler
from cortex_operator.candidate.monitor import CandidateMonitor
from cortex_operator.capabilities import Capabilities
from cortex_operator.cluster import API_ERRORS, Cluster, error_text
from cortex_operator.leadership.lease import Lease
from cortex_operator.platform import Platform
from cortex_operator.reconcile import Reconciler
from cortex_operator.replicas.pod_client import PodClient
from cortex_operator.replicas.poller import ReplicaPoller
from cortex_operator.watch.cache import Cache, Key
from cortex_operator.watch.handlers import EventHandler
from cortex_operator.watch.watches import Watches
from cortex_operator.workqueue import WorkQueue

log = logging.getLogger("cortex.operator")

MAX_RECONCILE_SECONDS = 300.0
"""Seconds after which a reconciliation counts as hung, and the operator as unhealthy."""


def main() -> int:
    """Run the operator. Returns the exit status: 0 after SIGTERM, 1 after a failure, 2 for an invalid platform file."""
    parser = argparse.ArgumentParser(prog="python -m cortex_operator", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path(PLATFORM_PATH), help="path of the platform file")
    parser.add_argument(
        "--health-port", type=int, default=PORT, help=f"port of {HEALTH_PATH} and {METRICS_PATH}"
    )
    arguments = parser.parse_args()
    try:
        settings = platform.read(arguments.config)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    kopf.configure(log_format=kopf.LogFormat.JSON)
    logging.getLogger().setLevel(settings.log_level.upper())
    logging.getLogger("kopf").setLevel(logging.WARNING)  # It logs every event.
    return asyncio.run(Operator(settings, arguments.health_port).run())


class Operator:
    """The process: waits for leadership, then watches and reconciles until SIGTERM, SIGINT, or the loss of the Lease."""

    def __init__(self, settings: Platform, health_port: int) -> None:
        self._settings = settings
        self._health_port = health_port
        self._tasks: list[asyncio.Task[None]] = []
        self._watches: Watches
        self._queue: WorkQueue[Key]

    async def run(self) -> int:
        """Run until stopped. Returns the exit status."""
        stop = asyncio.Event()
        _on_signals(stop.set)
        cluster = await Cluster.connect()
        cache = Cache()
        self._queue = WorkQueue(lambda key: reconciler.reconcile(key), describe=error_text)
        self._watches = Watches(self._settings, EventHandler(cache, self._queue))
        pods = PodClient()
        replicas = ReplicaPoller(cache, self._queue.add, pods)
        scaler = Scaler(cache, cluster, self._queue.add, replicas, pods)
        candidates = CandidateMonitor(cache, self._queue.add, pods)
        lease = self._lease(cluster)
        collector = health.OperatorCollector(
            cache, self._queue, cluster, replicas, lambda: lease is None or lease.held
        )
        runner = await health.serve(self._health_port, collector, self._health_problem)
        self._start("stop", stop.wait())
        try:
            if lease is not None and not await self._become_leader(lease):
                return 0
            capabilities = await self._discover(cluster)
            reconciler = Reconciler(
                cache,
                cluster,
                self._settings,
                scaler,
                capabilities,
                replicas,
                self._queue.add_after,
                candidates,
            )
            self._start("queue", self._process_queue())
            self._start("watch", self._watches.run(lambda: _on_signals(stop.set)))
            self._start("replicas", replicas.run())
            self._start("scaler", scaler.run())
            self._start("candidates", candidates.run())
            self._start("standby", reconciler.other_operators.run(self._queue.add))
            if lease is not None:
                self._start("lease", lease.renew_until_lost())
            log.info("watching %s", ", ".join(self._settings.watch_namespaces) or "all namespaces")
            return await self._until_one_ends(stop)
        finally:
            if lease is not None:
                await lease.release()
            await runner.cleanup()
            await cluster.close()

    async def _process_queue(self) -> None:
        """Reconcile once all objects are cached: an API without its pods would be reported as not ready."""
        await self._watches.listed.wait()
        await self._queue.run()

    @staticmethod
    async def _discover(cluster: Cluster) -> Capabilities:
        """Return the capabilities of the API server. Retries until it responds."""
        while True:
            try:
                return Capabilities.of(await cluster.version())
            except API_ERRORS as error:
                log.warning("the API server cannot be reached, retrying in 1 s: %s", error_text(error))
                await asyncio.sleep(1)

    def _lease(self, cluster: Cluster) -> Lease | None:
        if self._settings.lease_namespace is None:
            return None
        return Lease(cluster, self._settings.lease_namespace, f"{socket.gethostname()}-{os.getpid()}")

    async def _become_leader(self, lease: Lease) -> bool:
        """Wait for the Lease. Returns False when the process must stop before."""
        self._start("candidate", lease.acquire())
        await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        candidate = self._tasks.pop()
        if not candidate.done():
            candidate.cancel()
            await asyncio.gather(candidate, return_exceptions=True)
        return lease.held

    def _start(self, name: str, work: Coroutine[Any, Any, Any]) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))

    def _health_problem(self) -> str | None:
        for task in self._tasks:
            if task.done():
                return f"task {task.get_name()} has ended"
        if self._queue.longest_running() > MAX_RECONCILE_SECONDS:
            return f"a reconciliation has been running for {self._queue.longest_running():.0f} s"
        if missing := self._watches.missing():
            return f"the watch of {missing} has ended"
        return None

    async def _until_one_ends(self, stop: asyncio.Event) -> int:
        done, waiting = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        # When its watch ends first, kopf cancels the tasks that were started after it.
        failures = [task for task in done if not task.cancelled() and task.exception() is not None]
        for task in failures:
            log.error("%s failed: %s", task.get_name(), task.exception())
        lost = any(task.get_name() == "lease" for task in done)
        return 1 if failures or (lost and not stop.is_set()) else 0


def _on_signals(stop: Callable[[], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)


if __name__ == "__main__":
    sys.exit(main())
