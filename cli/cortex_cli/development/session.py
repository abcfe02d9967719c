"""The loop of `cortex dev`: keep a development copy alive, and its replicas in step with the local project."""

import http.client
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from cortex_api.contract import (
    COMPONENT_LABEL,
    DEVELOPMENT_PORT,
    GATEWAY,
    HANDLER_CONTAINER,
)
from cortex_cli import apis
from cortex_cli.apis import API
from cortex_cli.connection import UNREACHABLE, Cluster, ClusterError, Object
from cortex_cli.development.copy_client import CopyClient
from cortex_cli.development.local_project import LocalProject, Version, changed_names
from cortex_cli.development.port_forward import PodPort, PortForwarder
from cortex_cli.development.replica_client import SUPERSEDED, Outcome, Refused, ReplicaClient
from cortex_cli.development.report import Report
from cortex_cli.project_files import PackError

_POLL_SECONDS = 1.0
"""Seconds between two looks at the copy and its pods."""
_RENEW_SECONDS = 60.0
_RETRY_SECONDS = 0.3
_REFUSED_SECONDS = 2.0
_SETTLE_SECONDS = 0.05
"""Seconds until a file that is being replaced is read again."""


@dataclass(eq=False)
class Replica:
    """A pod that runs the code. version: the last version that is sent to it. outcome: the result of that version, if known."""

    pod: str
    uid: str
    client: ReplicaClient
    version: Version | None = None
    outcome: Outcome | None = None
    is_gone: bool = False


@dataclass
class Session:
    """The state of one `cortex dev`.

    changes: receives an item when a file may have changed. manifest_changed: applies a changed manifest.
    """

    cluster: Cluster
    copy: CopyClient
    project: LocalProject
    forwarder: PortForwarder
    report: Report
    changes: "queue.Queue[None]" = field(default_factory=queue.Queue)
    manifest_changed: Callable[[], None] = lambda: None
    api: API | None = None

    def __post_init__(self) -> None:
        self._version: Version = {}
        self._replicas: dict[str, Replica] = {}
        self._pods: list[Object] = []
        self._renewed = time.monotonic()
        self._is_connected = True

    def run(self) -> None:
        """Run until an exception: KeyboardInterrupt, or ClusterError if the copy cannot be used any more."""
        self._scan(is_first=True)
        next_poll = 0.0
        while True:
            if time.monotonic() >= next_poll:
                self._poll()
                next_poll = time.monotonic() + _POLL_SECONDS
            try:
                self.changes.get(timeout=max(0.0, next_poll - time.monotonic()))
            except queue.Empty:
                continue
            self._on_change()

    def serving_pod(self, port: int) -> PodPort | None:
        """Return where a connection to the API is forwarded to: its newest ready pod, or the newest one."""
        is_async = self.api is not None and self.api.kind == "AsyncAPI"
        pods = [
            pod
            for pod in self._pods
            if (pod["metadata"]["labels"].get(COMPONENT_LABEL) == GATEWAY) == is_async and _is_running(pod)
        ]
        ordered = sorted(pods, key=lambda pod: (apis.is_ready(pod), pod["metadata"]["creationTimestamp"]))
        if not ordered:
            return None
        return PodPort(self.cluster.namespace, ordered[-1]["metadata"]["name"], port)

    def _poll(self) -> None:
        """Look at the copy and its pods, renew the copy, and send the project to new pods."""
        try:
            self._read()
            if time.monotonic() - self._renewed > _RENEW_SECONDS:
                self.copy.renew()
                self._renewed = time.monotonic()
        except ClusterError as error:
            if error.exit_code != UNREACHABLE and error.status < 500:
                raise
            if self._is_connected:
                self.report.warning(f"{error.message}; trying again")
            self._is_connected = False
            return
        if not self._is_connected:
            self.report.note("connected to the cluster again")
            self._is_connected = True

    def _read(self) -> None:
        try:
            self.api = self.copy.read()
        except ClusterError as error:
            if error.status != 404:
                raise
            # It has expired while the cluster was unreachable or this machine was suspended, or the user has deleted it.
            self.report.note(f"{self.copy.name} was deleted; creating it again")
            self.copy.create(take_over=False)
            self._renewed = time.monotonic()
            self.api = self.copy.read()
        self._pods = [
            pod for pod in apis.pods(self.cluster, self.api) if not pod["metadata"].get("deletionTimestamp")
        ]
        running = {
            pod["metadata"]["uid"]: pod["metadata"]["name"]
            for pod in self._pods
            if _is_running(pod) and pod["metadata"]["labels"].get(COMPONENT_LABEL) != GATEWAY
        }
        for pod in self._pods:
            _require_development(pod)
        for uid in self._replicas.keys() - running.keys():
            self._replicas.pop(uid).is_gone = True
        for uid in running.keys() - self._replicas.keys():
            target = PodPort(self.cluster.namespace, running[uid], DEVELOPMENT_PORT)
            client = ReplicaClient(partial(self.forwarder.connect, target))
            self._replicas[uid] = replica = Replica(running[uid], uid, client)
            self._send(replica, [])
        if not any(replica.outcome is not None for replica in self._replicas.values()):
            self.report.waiting(self.api)
        elif self._pods and all(map(apis.is_ready, self._pods)):
            self.report.ready(self.api)

    def _on_change(self) -> None:
        while not self.changes.empty():
            self.changes.get()
        self.manifest_changed()
        before = self._version
        if self._scan():
            names = changed_names(before, self._version)
            if names:
                for replica in self._replicas.values():
                    self._send(replica, names)

    def _scan(self, is_first: bool = False) -> bool:
        """Read the files of the project. Return False if that is not possible now."""
        try:
            self._version = self.project.scan()
        except PackError as error:
            if is_first:
                raise ClusterError(str(error)) from error
            self.report.warning(f"the change is ignored: {error}")
        except OSError:
            # A file is being replaced.
            timer = threading.Timer(_SETTLE_SECONDS, self.changes.put, (None,))
            timer.daemon = True
            timer.start()
        else:
            return True
        return False

    def _send(self, replica: Replica, names: list[str]) -> None:
        """Send the current version to a replica, in a thread. names: of the changed files, for the report."""
        replica.version, began = self._version, time.monotonic()
        thread = threading.Thread(target=self._load, args=(replica, self._version, names, began), daemon=True)
        thread.start()

    def _load(self, replica: Replica, version: Version, names: list[str], began: float) -> None:
        while not replica.is_gone and replica.version is version:
            try:
                outcome = replica.client.load(version, self.report.sending, self.report.step)
            except (OSError, http.client.HTTPException):
                # The connection is broken, or the container has not started yet.
                time.sleep(_RETRY_SECONDS)
                continue
            except Refused as refused:
                self.report.step(str(refused))
                # The files may have changed while they were sent.
                self.changes.put(None)
                time.sleep(_REFUSED_SECONDS)
                continue
            if outcome.reason != SUPERSEDED and replica.version is version:
                replica.outcome = outcome
                self.report.outcome(outcome, names, time.monotonic() - began)
            return


def watch(folder: Path, manifest: Path, changes: "queue.Queue[None]", stop: threading.Event) -> None:
    """Add an item to the queue when a file in the folder, or the manifest, may have changed. Runs until `stop` is set."""
    from watchfiles import watch as watch_files

    for _ in watch_files(
        folder, manifest, stop_event=stop, debounce=200, step=20, rust_timeout=1000, raise_interrupt=False
    ):
        changes.put(None)


def _is_running(pod: Object) -> bool:
    return bool((pod.get("status") or {}).get("phase") == "Running")


def _require_development(pod: Object) -> None:
    """Raise ClusterError if the operator has created the pod without development mode."""
    for container in pod["spec"]["containers"]:
        if container["name"] == HANDLER_CONTAINER and "--development" not in (container.get("args") or ()):
            raise ClusterError(
                "the operator of this cluster does not support `cortex dev`; upgrade the chart to the version of this command"
            )
