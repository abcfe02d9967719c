"""The jobs of an AsyncAPI: wait for one, with a progress bar on a terminal; retry one; list those of a gateway."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from cortex_api.contract import ADMIN_PORT, COMPONENT_LABEL, GATEWAY, JOBS_PATH
from cortex_cli import apis
from cortex_cli.connection import Cluster, ClusterError, Object, Response

_RUNNING = ("in_queue", "in_progress")
_QUEUE_UNREACHABLE = 503
"""Status of the gateway while its queue is unreachable."""
_RETRY_SECONDS = 1.0


@dataclass(frozen=True)
class JobResult:
    """The final response about a job."""

    response: Response
    is_completed: bool


def wait(cluster: Cluster, gateway: str, job: str, headers: dict[str, str], timeout: float) -> JobResult:
    """Wait until a job has completed or failed.

    gateway: the path of the gateway in the proxy of the API server.
    headers: headers with the API key, if any.
    timeout: in seconds.
    Raises ClusterError on timeout.
    """
    end = time.monotonic() + timeout
    with _progress_bar() as update:
        # Long polling: the gateway responds when the job has ended, or after this time.
        query = {"wait": "1s" if sys.stderr.isatty() else "20s"}
        while time.monotonic() < end:
            response = get(cluster, gateway, job, headers, query)
            if response.status == _QUEUE_UNREACHABLE:
                time.sleep(_RETRY_SECONDS)
                continue
            content = json.loads(response.body) if response.status == 200 else {}
            if content.get("status") not in _RUNNING:
                return JobResult(response, content.get("status") == "completed")
            update(content)
    raise ClusterError(f"job {job} is still running after {timeout:.0f} s; continue waiting with --job {job}")


def get(
    cluster: Cluster, gateway: str, job: str, headers: dict[str, str], query: dict[str, str] | None = None
) -> Response:
    """Return the gateway's response about a job."""
    return cluster.request("GET", f"{gateway}{quote(job, safe='')}", query, headers=headers)


def retry(cluster: Cluster, gateway: str, job: str, headers: dict[str, str]) -> str:
    """Queue a failed job again. Return why the gateway refuses it, or "". Raises ClusterError."""
    response = cluster.request("POST", f"{gateway}{quote(job, safe='')}/retry", headers=headers)
    if response.status == 200:
        return ""
    try:
        error = json.loads(response.body)["error"]
    except (ValueError, KeyError, TypeError):
        error = ""
    return f"job {job}: {error or f'the gateway sent status {response.status}'}"


def read_list(cluster: Cluster, pods: Iterable[Object]) -> Object | None:
    """Return the jobs that have not ended or have failed, from the first gateway that responds; None without a ready one.

    Raises ClusterError.
    """
    error: ClusterError | None = None
    for pod in apis.stable_replicas(pods):
        if (pod["metadata"].get("labels") or {}).get(COMPONENT_LABEL) != GATEWAY:
            continue
        try:
            return dict(json.loads(apis.proxy_get(cluster, pod, ADMIN_PORT, JOBS_PATH.lstrip("/"))))
        except ClusterError as failure:
            error = failure
            if failure.status == 404:
                error = ClusterError("the gateway runs an older version of Cortex, which does not list jobs")
    if error is not None:
        raise error
    return None


@contextmanager
def _progress_bar() -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield a function that shows the state of a job. It does nothing if stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield lambda content: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("in_queue", total=None)

        def update(content: dict[str, Any]) -> None:
            fraction = content.get("progress")
            description = str(content.get("note") or content["status"])
            progress.update(
                task,
                description=description,
                total=None if fraction is None else 1.0,
                completed=fraction or 0.0,
            )

        yield update
