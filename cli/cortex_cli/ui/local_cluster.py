"""`cortex run` as a cluster of one API, so that it has the same page as `cortex ui`.

The programs of the runtime are its pods: requests to the proxy of a pod go to the port of its program, and their logs come from
the output that `cortex run` reads. Only what the page uses is implemented.
"""

import json
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx

from cortex_api import GROUP, KINDS, VERSION
from cortex_api.contract import (
    ADMIN_PORT,
    API_LABEL,
    COMMANDS,
    COMPONENT_LABEL,
    GATEWAY_COMMAND,
    KIND_LABEL,
    PORT,
    QUEUE_PATH,
    READINESS_PATH,
)
from cortex_cli.connection import Cluster, ClusterError, Object, Query, Response
from cortex_cli.local.log_lines import LogLines
from cortex_cli.local.ports import HOST
from cortex_cli.local.runtime import Program

NAMESPACE = "local"
_POLL = 1.0
_TARGET = re.compile(r"/(?P<kind>pods|services)/(?P<name>[^/:]+):(?P<port>\d+)/proxy(?P<path>/.*)$")
_LOG = re.compile(r"/pods/(?P<name>[^/]+)/log$")
# A candidate has the command of the stable version, which comes first.
_COMPONENTS = {command: component for component, command in reversed(COMMANDS.items())}


class _LocalStream:
    """Has the interface of connection.Stream."""

    def __init__(self, chunks: Iterator[bytes], closed: threading.Event) -> None:
        self._chunks = chunks
        self._closed = closed

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        self._closed.set()


class LocalCluster(Cluster):
    """The programs of one API. port: of the API. project: folder of the code. lines: the logs by the name of the program."""

    is_local = True

    def __init__(
        self,
        manifest: Object,
        programs: Sequence[Program],
        port: int,
        project: Path,
        lines: Mapping[str, LogLines],
    ) -> None:
        self.namespace = NAMESPACE
        self.context = "cortex run"
        self.project = project
        self._lines = lines
        self._kind, self._name = manifest["kind"], manifest["metadata"]["name"]
        self._spec = manifest["spec"]
        self._programs = {program.name: program for program in programs}
        self._port = port
        self._created = _stamp()
        self._reports: dict[str, Object] = {program.name: {} for program in programs}
        self._version = 1
        self._changed = threading.Condition()
        self._client = httpx.Client(trust_env=False)
        threading.Thread(target=self._poll, daemon=True).start()

    @property
    def server(self) -> str:
        """The URL of the API."""
        return f"http://{HOST}:{self._port}"

    def get(self, path: str, **query: str) -> Object:
        """Return the list of a resource. Everything but the API and its pods is empty."""
        return {"metadata": {"resourceVersion": str(self._version)}, "items": self._objects(path)}

    def request(
        self,
        method: str,
        url_path: str,
        query: Query | None = None,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = 30.0,
    ) -> Response:
        """Send a request to a program. Raises ClusterError if it does not respond."""
        found = _TARGET.search(url_path)
        if found is None:
            raise ClusterError("an API of cortex run cannot be changed on its page", status=404)
        port = int(found["port"])
        if found["kind"] == "pods" and port == ADMIN_PORT:
            port = self._programs[found["name"]].admin_port
        elif port == PORT:
            port = self._port
        url = f"http://{HOST}:{port}{found['path']}" + (f"?{urlencode(query)}" if query else "")
        try:
            response = self._client.request(method, url, content=body, headers=headers, timeout=timeout)
        except httpx.HTTPError as error:
            raise ClusterError(f"the runtime does not respond: {error}") from error
        return Response(response.status_code, dict(response.headers), response.content)

    def open_stream(self, url_path: str, query: Query, timeout: float | None = None) -> Any:
        """Return a watch of a resource, or the log of a program."""
        closed = threading.Event()
        if (found := _LOG.search(url_path)) is not None:
            return _LocalStream(self._lines[found["name"]].follow(closed), closed)
        return _LocalStream(self._watch(url_path, closed), closed)

    def _watch(self, url_path: str, closed: threading.Event) -> Iterator[bytes]:
        seen = self._version
        while not closed.is_set():
            with self._changed:
                if self._version == seen:
                    self._changed.wait(_POLL)
                    continue
                seen = self._version
            for live in self._objects(url_path):
                yield json.dumps({"type": "MODIFIED", "object": live}).encode() + b"\n"

    def _poll(self) -> None:
        """Ask the programs whether they are ready, until this process exits."""
        while True:
            reports = {name: self._report(program) for name, program in self._programs.items()}
            if reports != self._reports:
                with self._changed:
                    self._reports = reports
                    self._version += 1
                    self._changed.notify_all()
            time.sleep(_POLL)

    def _report(self, program: Program) -> Object:
        """Return whether a program is ready, why not, and the length of the queue of a gateway."""
        base = f"http://{HOST}:{program.admin_port}"
        try:
            response = self._client.get(base + READINESS_PATH, timeout=3)
            content = {} if response.is_success else response.json()
            report = {
                "ready": response.is_success,
                "reason": content.get("reason"),
                "message": content.get("message"),
            }
            if program.name == GATEWAY_COMMAND and response.is_success:
                report["queue"] = self._client.get(base + QUEUE_PATH, timeout=3).json()
        except (httpx.HTTPError, ValueError, AttributeError):
            return {"ready": False, "reason": "Starting", "message": "the runtime does not respond yet"}
        return report

    def _objects(self, url_path: str) -> list[Object]:
        if url_path.startswith(f"/apis/{GROUP}/{VERSION}/"):
            return [self._api()] if url_path.endswith(f"/{KINDS[self._kind].plural}") else []
        return (
            [self._pod(name) for name in self._programs] if re.fullmatch(r"/api/v1/.*pods", url_path) else []
        )

    def _metadata(self, name: str) -> Object:
        return {
            "name": name,
            "namespace": NAMESPACE,
            "uid": name,
            "generation": 1,
            "creationTimestamp": self._created,
            "resourceVersion": str(self._version),
        }

    def _api(self) -> Object:
        reports = list(self._reports.values())
        waiting = next((report for report in reports if not report.get("ready")), None)
        condition = {
            "type": "Ready",
            "status": str(waiting is None),
            "reason": str((waiting or {}).get("reason") or "Starting") if waiting is not None else "Ready",
            "message": str((waiting or {}).get("message") or "")
            if waiting is not None
            else f"serves at {self.server}",
        }
        status: Object = {
            "observedGeneration": 1,
            "url": self.server,
            "replicas": 1,
            "readyReplicas": int(waiting is None),
            "conditions": [condition],
        }
        queue: Object = next((report["queue"] for report in reports if "queue" in report), {})
        if "queued" in queue:
            status["queue"] = {"queued": queue["queued"], "inFlight": queue.get("in_flight", 0)}
        meta = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": self._kind,
            "metadata": self._metadata(self._name),
        }
        # Autoscaling has no effect here.
        spec = {key: value for key, value in self._spec.items() if key != "autoscaling"}
        return {**meta, "spec": {**spec, "replicas": 1}, "status": status}

    def _pod(self, name: str) -> Object:
        ready = str(bool(self._reports[name].get("ready")))
        labels = {API_LABEL: self._name, KIND_LABEL: self._kind, COMPONENT_LABEL: _COMPONENTS[name]}
        return {
            "metadata": {**self._metadata(name), "labels": labels},
            "spec": {"nodeName": HOST, "containers": [{"name": name}]},
            "status": {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": ready}],
                "containerStatuses": [
                    {"name": name, "restartCount": 0, "state": {"running": {"startedAt": self._created}}}
                ],
            },
        }


def _stamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
