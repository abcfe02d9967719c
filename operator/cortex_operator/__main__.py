"""`python -m cortex_operator [--config FILE] [--health-port PORT]`: the operator's process."""

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

import kopf

from cortex_operator import handlers, health, platform
from cortex_operator.cache import Cache, Key
from cortex_operator.cluster import Cluster
from cortex_operator.platform import Platform
from cortex_operator.reconcile import Reconciler
from cortex_operator.render.names import API_LABEL
from cortex_operator.workqueue import WorkQueue

log = logging.getLogger("cortex.operator")


def main() -> int:
    """Exit status: 0 after SIGTERM, 1 when the operator can't go on, 2 for a bad platform file."""
    parser = argparse.ArgumentParser(prog="python -m cortex_operator", description=__doc__)
    parser.add_argument(
        "--config", type=Path, default=Path("/etc/cortex/platform.yaml"), help="the platform file"
    )
    parser.add_argument("--health-port", type=int, default=8080, help="port of /healthz and /metrics")
    arguments = parser.parse_args()
    try:
        settings = platform.read(arguments.config)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    kopf.configure(log_format=kopf.LogFormat.JSON)
    logging.getLogger().setLevel(settings.log_level.upper())
    logging.getLogger("kopf").setLevel(logging.WARNING)  # It tells of every event.
    return asyncio.run(run(settings, arguments.health_port))


async def run(settings: Platform, health_port: int) -> int:
    """Watch and reconcile until SIGTERM or SIGINT, or until one of the two ends by itself."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    cluster = await Cluster.connect()
    cache = Cache()
    await _prime(cache, cluster, settings)
    reconciler = Reconciler(cache, cluster, settings)
    queue: WorkQueue[Key] = WorkQueue(reconciler.reconcile)
    registry = kopf.get_default_registry()
    handlers.register(registry, cache, queue)
    tasks = [
        asyncio.create_task(queue.run(), name="queue"),
        asyncio.create_task(_watch(registry, settings), name="watch"),
        asyncio.create_task(stop.wait(), name="stop"),
    ]
    runner = await health.serve(health_port, cache, queue, lambda: not any(task.done() for task in tasks))
    log.info("watching %s", ", ".join(settings.watch_namespaces) or "all namespaces")
    done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await runner.cleanup()
    await cluster.close()
    # kopf answers the signals too, so that its watch may be the first to end.
    failures = [task for task in done if task.exception() is not None]
    for task in failures:
        log.error("%s failed: %s", task.get_name(), task.exception())
    return 1 if failures else 0


async def _prime(cache: Cache, cluster: Cluster, settings: Platform) -> None:
    """Know every child before the first API is judged: the watches begin in no order, and an API whose pods were not seen yet
    would be told to be down.
    """
    kinds = [
        (f"{group}/{version}" if group else version, kind) for group, version, _, kind in handlers.CHILDREN
    ]
    for namespace in settings.watch_namespaces or (None,):
        for api_version, kind in [*kinds, ("v1", "ConfigMap")]:
            for child in await cluster.list_labelled(api_version, kind, namespace, API_LABEL):
                cache.put_child(child)


async def _watch(registry: kopf.OperatorRegistry, settings: Platform) -> None:
    options = kopf.OperatorSettings()
    options.posting.enabled = False
    options.scanning.disabled = bool(settings.watch_namespaces)
    await kopf.operator(
        registry=registry,
        settings=options,
        standalone=True,
        clusterwide=not settings.watch_namespaces,
        namespaces=settings.watch_namespaces,
    )


if __name__ == "__main__":
    sys.exit(main())
