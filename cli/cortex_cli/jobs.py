"""A job of an AsyncAPI, followed until it has ended: what `cortex predict` waits for. On a terminal a bar says how far it is."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from cortex_cli.connection import Answer, Cluster, ClusterError

_RUNNING = ("in_queue", "in_progress")
_AWAY = 503
"""What a gateway answers while its queue can't be reached."""
_PAUSE = 1.0


@dataclass(frozen=True)
class Ended:
    """The last answer about a job."""

    answer: Answer
    completed: bool


def follow(cluster: Cluster, gateway: str, job: str, key: dict[str, str], seconds: float) -> Ended:
    """What became of a job. gateway: its path through the API server. Raises ClusterError when it takes too long."""
    end = time.monotonic() + seconds
    with _bar() as show:
        # The gateway answers when the job has ended, or after that time.
        query = {"wait": "1s" if sys.stderr.isatty() else "20s"}
        while time.monotonic() < end:
            answer = ask(cluster, gateway, job, key, query)
            if answer.status == _AWAY:
                time.sleep(_PAUSE)
                continue
            view = json.loads(answer.body) if answer.status == 200 else {}
            if view.get("status") not in _RUNNING:
                return Ended(answer, view.get("status") == "completed")
            show(view)
    raise ClusterError(
        f"job {job} has not ended after {seconds:.0f} s; it goes on: ask again with --job {job}"
    )


def ask(
    cluster: Cluster, gateway: str, job: str, key: dict[str, str], query: dict[str, str] | None = None
) -> Answer:
    """What the gateway says of a job."""
    return cluster.request("GET", f"{gateway}{quote(job, safe='')}", query, headers=key)


@contextmanager
def _bar() -> Iterator[Callable[[dict[str, Any]], None]]:
    """Takes what the gateway says of a job; shows it on a terminal alone."""
    if not sys.stderr.isatty():
        yield lambda view: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("in_queue", total=None)

        def show(view: dict[str, Any]) -> None:
            done = view.get("progress")
            words = str(view.get("note") or view["status"])
            progress.update(
                task, description=words, total=None if done is None else 1.0, completed=done or 0.0
            )

        yield show
