"""The node: registers itself, runs the pods that are bound to it, and serves their logs."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import aiohttp
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from cortex_devcluster.addresses import AddressBlock
from cortex_devcluster.client import Client, Informer, StatusError
from cortex_devcluster.events import Recorder
from cortex_devcluster.node.container import Container
from cortex_devcluster.node.pod import PodWorker
from cortex_devcluster.node.processes import Processes
from cortex_devcluster.objects import Object, nested, now

log = logging.getLogger(__name__)
SYNC_PERIOD = 60.0
"""Seconds between two updates of the volumes of a pod that does not change."""
POLL = 0.1
"""Seconds between two reads of a log that is followed."""


class Node:
    """Runs pods. images: image names that are available. state_dir: folder for the files of pods."""

    def __init__(
        self, client: Client, name: str, images: Collection[str], state_dir: Path, addresses: AddressBlock
    ) -> None:
        self._client = client
        self._name = name
        self._images = frozenset(images)
        self._directory = state_dir / "pods"
        self._addresses = addresses
        self._processes = Processes()
        self._events = Recorder(client, "kubelet")
        self._pods = Informer(client, "v1/pods")
        self._configmaps = Informer(client, "v1/configmaps")
        self._secrets = Informer(client, "v1/secrets")
        self._workers: dict[str, tuple[PodWorker, asyncio.Task[None]]] = {}
        self._ending: dict[str, asyncio.Task[None]] = {}
        self._pods.listen(self._pod_changed)

    async def run(self) -> None:
        """Register the node and run pods until cancelled. Then stop every process."""
        server = uvicorn.Server(uvicorn.Config(_logs_app(self), log_level="error", lifespan="off"))
        listener = socket.create_server(("127.0.0.1", 0))
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(server._serve([listener]))
                await self._register(listener.getsockname()[1])
                for informer in (self._configmaps, self._secrets):
                    tasks.create_task(informer.run())
                    await informer.synced.wait()
                tasks.create_task(self._pods.run())
                tasks.create_task(self._refresh_volumes())
        finally:
            listener.close()
            self._processes.close()
            for _, task in self._workers.values():
                task.cancel()
            for task in self._ending.values():
                task.cancel()
            shutil.rmtree(self._directory, ignore_errors=True)

    async def _register(self, port: int) -> None:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024
        capacity = {
            "cpu": str(os.cpu_count() or 1),
            "memory": f"{memory}Ki",
            "pods": str(self._addresses.size),
        }
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "message": "the dev cluster's node is ready",
        }
        labels = {
            "kubernetes.io/hostname": self._name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
        }
        node = {"metadata": {"name": self._name, "labels": labels}, "spec": {}}
        status = {
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": [{**ready, "lastHeartbeatTime": now(), "lastTransitionTime": now()}],
            "addresses": [
                {"type": "InternalIP", "address": "127.0.0.1"},
                {"type": "Hostname", "address": self._name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
            "nodeInfo": {
                "kubeletVersion": "v1.37.0+cortex-dev",
                "operatingSystem": "linux",
                "architecture": "amd64",
            },
        }
        try:
            await self._client.create("v1/nodes", "", node)
        except StatusError as error:
            if error.code != 409:
                raise
        await self._client.patch("v1/nodes", "", self._name, {"status": status}, "status")

    def lookup(self, resource: str, namespace: str, name: str) -> Object | None:
        """Return a ConfigMap or Secret (resource "configmaps" or "secrets"), or None."""
        found = (self._configmaps if resource == "configmaps" else self._secrets).get(namespace, name)
        kind = "ConfigMap" if resource == "configmaps" else "Secret"
        return {**found, "kind": kind} if found else None

    async def _refresh_volumes(self) -> None:
        """Update the files of all pods periodically, as the kubelet does; a changed pod is updated at once."""
        while True:
            await asyncio.sleep(SYNC_PERIOD)
            for worker, _ in self._workers.values():
                worker.refresh_if_mounted()

    def _pod_changed(self, before: Object | None, after: Object | None) -> None:
        pod = after or before or {}
        uid = pod["metadata"]["uid"]
        if nested(pod, "spec.nodeName") != self._name:
            return
        if before and before["metadata"]["uid"] != uid:
            self._stop_pod(before, 0)
        if after is None:
            self._stop_pod(pod, 0)
        elif pod["metadata"].get("deletionTimestamp"):
            if uid in self._workers:
                self._workers[uid][0].update(pod)
            self._stop_pod(pod, pod["metadata"].get("deletionGracePeriodSeconds", 0))
        elif uid in self._workers:
            self._workers[uid][0].update(pod)
        elif nested(pod, "status.phase") not in ("Succeeded", "Failed"):
            self._start_pod(pod)

    def _start_pod(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        address = self._addresses.allocate(uid)
        directory = self._directory / uid
        directory.mkdir(parents=True, exist_ok=True)
        worker = PodWorker(
            pod, self._client, self._events, self._processes, self._images, directory, address, self.lookup
        )
        running = asyncio.create_task(worker.run(), name=f"pod {pod['metadata']['name']}")
        running.add_done_callback(_report_failure)
        self._workers[uid] = (worker, running)

    def _stop_pod(self, pod: Object, grace: float) -> None:
        uid = pod["metadata"]["uid"]
        if uid in self._ending:
            if grace == 0 and uid in self._workers:
                for container in [*self._workers[uid][0].init, *self._workers[uid][0].main]:
                    if container.process:
                        container._kill(container.process)
            return
        self._ending[uid] = asyncio.create_task(self._stop_and_remove(pod, grace))

    async def _stop_and_remove(self, pod: Object, grace: float) -> None:
        uid = pod["metadata"]["uid"]
        try:
            if uid in self._workers:
                worker, running = self._workers[uid]
                await worker.stop(running, grace)
            elif pod["metadata"].get("deletionTimestamp"):
                await self._client.delete("v1/pods", pod, gracePeriodSeconds=0)
        except (StatusError, aiohttp.ClientError) as error:
            log.warning("pod %s: %s", pod["metadata"]["name"], error)
        finally:
            self._workers.pop(uid, None)
            self._ending.pop(uid, None)
            self._addresses.release(uid)

    def container_pids(self, namespace: str, name: str) -> dict[str, int]:
        """Return the process id of each running container of a pod, by container name."""
        for worker, _ in self._workers.values():
            meta = worker.pod["metadata"]
            if (meta["namespace"], meta["name"]) == (namespace, name):
                containers = [*worker.init, *worker.main]
                return {
                    c.name: c.process.pid for c in containers if c.process and c.process.returncode is None
                }
        return {}

    def find(self, namespace: str, name: str, container: str) -> Container | None:
        """Return a container of a pod on this node, or None."""
        for worker, _ in self._workers.values():
            meta = worker.pod["metadata"]
            if (meta["namespace"], meta["name"]) == (namespace, name):
                return worker.container(container)
        return None


def _report_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.error("%s: unexpected error in the node", task.get_name(), exc_info=error)


def _logs_app(node: Node) -> Starlette:
    """Return the log server of the node, with the path of the kubelet."""

    async def logs(request: Request) -> Response:
        path, query = request.path_params, request.query_params
        container = node.find(path["namespace"], path["pod"], path["container"])
        if container is None:
            return PlainTextResponse(f"pod {path['pod']} is not on this node", 404)
        previous = query.get("previous") == "true"
        where = f'container "{container.name}" in pod "{path["pod"]}"'
        if previous and container.attempt < 1:
            return PlainTextResponse(f"previous terminated {where} not found", 400)
        if container.attempt < 0:
            reason = (container.state.get("waiting") or {}).get("reason", "ContainerCreating")
            return PlainTextResponse(f"{where} is waiting to start: {reason}", 400)
        tail = int(query["tailLines"]) if "tailLines" in query else None
        follow = query.get("follow") == "true" and not previous
        return StreamingResponse(_stream_log(container, previous, tail, follow), media_type="text/plain")

    return Starlette(routes=[Route("/containerLogs/{namespace}/{pod}/{container}", logs)])


async def _stream_log(
    container: Container, previous: bool, tail: int | None, follow: bool
) -> AsyncIterator[bytes]:
    path, process = container.log(previous), container.process
    with path.open("rb") as log_file:
        content = log_file.read()
        if tail is not None:
            kept = content.splitlines(keepends=True)
            content = b"".join(kept[len(kept) - min(tail, len(kept)) :])
        yield content
        while follow:
            over = process is None or process.returncode is not None
            if more := log_file.read():
                yield more
            elif over:
                return
            else:
                await asyncio.sleep(POLL)
