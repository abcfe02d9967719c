"""Runs the dev cluster: API server, controllers and node on one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
from collections.abc import Awaitable, Collection
from pathlib import Path

import uvicorn
import yaml

from cortex_devcluster import addresses
from cortex_devcluster.apiserver.api import APIServer
from cortex_devcluster.apiserver.registry import Registry
from cortex_devcluster.client import Client
from cortex_devcluster.controllers.autoscaler_controller import AutoscalerController
from cortex_devcluster.controllers.deployment_controller import DeploymentController
from cortex_devcluster.controllers.endpoint_slices import EndpointSliceController
from cortex_devcluster.controllers.garbage_collector import GarbageCollector
from cortex_devcluster.controllers.scheduler import Scheduler
from cortex_devcluster.node.node import Node
from cortex_devcluster.node.services import ServiceProxy

NODE_NAME = "dev"
DRAIN = 1
"""Seconds that open requests have to complete when the API server stops."""


def kubeconfig(url: str) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "dev", "cluster": {"server": url}}],
            "users": [{"name": "dev", "user": {}}],
            "contexts": [
                {"name": "dev", "context": {"cluster": "dev", "user": "dev", "namespace": "default"}}
            ],
            "current-context": "dev",
        }
    )


async def serve(state_dir: Path, port: int, images: Collection[str], stop: asyncio.Event) -> None:
    """Run until `stop` is set. Write the kubeconfig to `state_dir` once the cluster is usable."""
    block, lock = addresses.reserve_block()
    services = addresses.AddressBlock(addresses.SERVICES, block)
    count = itertools.count()
    registry = Registry(lambda: services.allocate(str(next(count))))
    listener = socket.create_server(("127.0.0.1", port))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    control, kubelet = Client(url, "kube-controller-manager"), Client(url, "kubelet")
    config = uvicorn.Config(
        APIServer(registry).app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="websockets-sansio",
        timeout_graceful_shutdown=DRAIN,
    )
    api = uvicorn.Server(config)
    node = Node(kubelet, NODE_NAME, images, state_dir, addresses.AddressBlock(addresses.PODS, block))
    parts = (
        DeploymentController(control).run(),
        AutoscalerController(control, node.container_pids).run(),
        EndpointSliceController(control).run(),
        GarbageCollector(control).run(),
        Scheduler(control).run(),
        ServiceProxy(kubelet).run(),
        node.run(),
    )
    serving = asyncio.create_task(api._serve([listener]))
    while not api.started and not serving.done():  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    tasks = [asyncio.create_task(part) for part in parts]
    ended = asyncio.create_task(stop.wait())
    try:
        await _wait_for(_node_registered(control), *tasks)
        _write_atomically(state_dir / "kubeconfig", kubeconfig(url))
        done, _ = await asyncio.wait([ended, serving, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {ended}:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await control.close()
        await kubelet.close()
        registry.store.close()
        api.should_exit = True
        ended.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving
        lock.close()


async def _wait_for(wait: Awaitable[None], *tasks: asyncio.Task[None]) -> None:
    """Wait for `wait`. If a task fails first, raise its exception."""
    waiting = asyncio.ensure_future(wait)
    await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        if task.done():
            waiting.cancel()
            task.result()
    await waiting


async def _node_registered(client: Client) -> None:
    while await client.get("v1/nodes", "", NODE_NAME) is None:  # noqa: ASYNC110 - a request, not a flag
        await asyncio.sleep(0.02)


def _write_atomically(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)
