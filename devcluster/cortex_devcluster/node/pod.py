"""The lifecycle of a pod on the node: volumes, init containers, containers, status and termination."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import aiohttp

from cortex_devcluster.client import Client, StatusError
from cortex_devcluster.events import Recorder
from cortex_devcluster.node import volumes
from cortex_devcluster.node.container import Container, ContainerContext
from cortex_devcluster.node.processes import Processes
from cortex_devcluster.objects import Object, nested, now, updated_condition

REFRESH_DELAY = 0.1
"""Seconds from a change of a pod to the update of its files: the period of the kubelet's volume manager."""


class PodWorker:
    """Runs a pod until it completes or is deleted; then removes the pod object."""

    def __init__(
        self,
        pod: Object,
        client: Client,
        events: Recorder,
        processes: Processes,
        images: frozenset[str],
        directory: Path,
        address: str,
        lookup: Callable[[str, str, str], Object | None],
    ) -> None:
        self.pod = {**pod, "status": {**(pod.get("status") or {}), "podIP": address}}
        self._client = client
        self._events = events
        self._directory = directory
        self._address = address
        self._begun = now()
        self._dirty = asyncio.Event()
        self._volumes_ready = False
        self._initialized = not pod["spec"].get("initContainers")
        namespace = pod["metadata"]["namespace"]
        self._lookup: volumes.Lookup = lambda resource, name: lookup(resource, namespace, name)
        self.init = [
            self._container(spec, processes, images) for spec in pod["spec"].get("initContainers") or ()
        ]
        self.main = [self._container(spec, processes, images) for spec in pod["spec"]["containers"]]
        self._codes: dict[str, int] = {}

    def _container(self, spec: Object, processes: Processes, images: frozenset[str]) -> Container:
        directory = self._directory / "containers" / spec["name"]
        directory.mkdir(parents=True, exist_ok=True)
        root = directory / "root"
        places = volumes.mount(root, self._directory / "volumes", spec)
        message_path = spec.get("terminationMessagePath") or "/dev/termination-log"
        places[message_path] = root / message_path.strip("/")

        async def event(kind: str, reason: str, message: str) -> None:
            field = (
                "initContainers"
                if any(c["name"] == spec["name"] for c in self.pod["spec"].get("initContainers") or ())
                else "containers"
            )
            await self._record(kind, reason, message, f"spec.{field}{{{spec['name']}}}")

        around = ContainerContext(
            directory,
            places,
            images,
            processes,
            self._lookup,
            lambda: self.pod,
            self._dirty.set,
            event,
            self.refresh_if_mounted,
        )
        return Container(spec, around)

    async def _record(self, kind: str, reason: str, message: str, field: str = "") -> None:
        try:
            await self._events.record(self.pod, kind, reason, message, field)
        except (StatusError, aiohttp.ClientError):
            return  # Events are best-effort; the status has the same information.

    def container(self, name: str) -> Container | None:
        """Return a container or init container by name."""
        return next((c for c in [*self.main, *self.init] if c.name == name), None)

    def update(self, pod: Object) -> None:
        """Replace the pod object after it changed. A change of more than its status updates its volumes, as in the kubelet."""
        before, after = self.pod["metadata"], pod["metadata"]
        if any((before.get(field) or {}) != (after.get(field) or {}) for field in ("labels", "annotations")):
            asyncio.get_running_loop().call_later(REFRESH_DELAY, self.refresh_if_mounted)
        self.pod = {**pod, "status": {**(pod.get("status") or {}), "podIP": self._address}}

    async def run(self) -> None:
        """Run the pod until its last container exits. Cancel it to stop the pod."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._report_changes())
            await self._mount()
            policy = self.pod["spec"].get("restartPolicy", "Always")
            for container in self.init:
                code = await container.run("Never" if policy == "Never" else "OnFailure")
                if code:
                    self._codes = {c.name: 1 for c in self.main}
                    break
                container.ready = True
            else:
                self._initialized = True
                self._dirty.set()
                await asyncio.gather(*(self._run_main(container, policy) for container in self.main))
            self._dirty.set()

    async def _run_main(self, container: Container, policy: str) -> None:
        self._codes[container.name] = await container.run(policy)

    async def _mount(self) -> None:
        self._dirty.set()
        while True:
            try:
                self.refresh()
                break
            except volumes.MountFailed as error:
                await self._record("Warning", "FailedMount", str(error))
                await asyncio.sleep(1)
        self._volumes_ready = True

    def refresh(self) -> None:
        """Write the files of all volumes. Raises MountFailed."""
        for volume in self.pod["spec"].get("volumes") or ():
            content = volumes.files(volume, self._lookup)
            directory = self._directory / "volumes" / volume["name"]
            directory.mkdir(parents=True, exist_ok=True)
            if content is not None:
                volumes.write(directory, content)

    def refresh_if_mounted(self) -> None:
        """Update the files of ConfigMaps and Secrets. Those of a deleted one remain, unless it is optional, as in Kubernetes."""
        if self._volumes_ready and self._directory.exists():
            try:
                self.refresh()
            except volumes.MountFailed:
                return

    async def stop(self, running: asyncio.Task[None], grace: float) -> None:
        """Stop the containers within `grace` seconds, then remove the pod object if it is marked for deletion."""
        for container in [*self.init, *self.main]:
            container.stopping = True
        await self._send_status()
        await asyncio.gather(*(container.stop(grace) for container in [*self.init, *self.main]))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        if self.pod["metadata"].get("deletionTimestamp"):
            await self._send_status()
            await self._client.delete("v1/pods", self.pod, gracePeriodSeconds=0)
        shutil.rmtree(self._directory, ignore_errors=True)

    async def _report_changes(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            try:
                await self._send_status()
            except aiohttp.ClientError:
                await asyncio.sleep(0.5)
                self._dirty.set()

    async def _send_status(self) -> None:
        meta = self.pod["metadata"]
        status = self.status()
        try:
            await self._client.patch(
                "v1/pods",
                meta["namespace"],
                meta["name"],
                {"metadata": {"uid": meta["uid"]}, "status": status},
                "status",
            )
        except StatusError as error:
            if error.code not in (404, 409):
                raise

    def status(self) -> Object:
        """Return the status of the pod."""
        before = {c["type"]: c for c in nested(self.pod, "status.conditions") or ()}
        unready = [c.name for c in self.main if not c.ready]
        phase = self._phase()
        because = (
            ("ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]")
            if unready
            else ("", "")
        )
        if phase == "Succeeded":
            because = ("PodCompleted", "")
        ready = "False" if unready else "True"
        started = (
            ("True", "", "")
            if self._initialized
            else (
                "False",
                "ContainersNotInitialized",
                "containers with incomplete status: ["
                + " ".join(c.name for c in self.init if not c.ready)
                + "]",
            )
        )
        conditions = [
            updated_condition(before.get("Initialized"), "Initialized", *started),
            updated_condition(before.get("Ready"), "Ready", ready, *because),
            updated_condition(before.get("ContainersReady"), "ContainersReady", ready, *because),
            updated_condition(before.get("PodScheduled"), "PodScheduled", "True", "", ""),
        ]
        for entry in conditions:
            entry.pop("lastUpdateTime")
        status: Object = {
            "phase": phase,
            "conditions": conditions,
            "hostIP": "127.0.0.1",
            "podIP": self._address,
            "podIPs": [{"ip": self._address}],
            "startTime": self._begun,
            "containerStatuses": [c.status() for c in self.main],
            "qosClass": "BestEffort",
        }
        if self.init:
            status["initContainerStatuses"] = [c.status() for c in self.init]
        if not self._initialized:
            for entry in status["containerStatuses"]:
                entry["state"] = {"waiting": {"reason": "PodInitializing"}}
        # The next status is computed from these conditions, so that their timestamps do not change.
        self.pod["status"] = {**self.pod.get("status", {}), "conditions": conditions}
        return status

    def _phase(self) -> str:
        if len(self._codes) == len(self.main):
            return "Failed" if any(self._codes.values()) else "Succeeded"
        if any("waiting" in c.state and c.attempt < 0 for c in self.main):
            return "Pending"
        return "Running"
