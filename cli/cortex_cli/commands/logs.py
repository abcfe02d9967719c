"""`cortex logs`: show the logs of all replicas of an API, merged by time."""

import heapq
import json
import queue
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click

from cortex_api.contract import COMPONENT_LABEL
from cortex_cli import apis
from cortex_cli.apis import API
from cortex_cli.connection import Cluster, ClusterError, cluster_options, path
from cortex_cli.log_lines import parse, readable

_COLORS = ("cyan", "magenta", "blue", "yellow", "green", "bright_cyan", "bright_magenta", "bright_blue")
_POD_INTERVAL = 1.0
"""Seconds between two checks for new pods."""
_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True)
class LogFilter:
    """Selects log lines.

    level: the minimum level. request: the id of a request.
    """

    level: str | None = None
    request: str | None = None

    def matches(self, line: str) -> bool:
        """Return whether a line is shown."""
        if self.level is None and self.request is None:
            return True
        content = parse(line)
        if content is None:
            return self.request is None
        if self.request is not None and content.get("requestId") != self.request:
            return False
        level = str(content["level"])
        return self.level is None or level not in _LEVELS or _LEVELS.index(level) >= _LEVELS.index(self.level)


@click.command(short_help="Show the merged logs of all replicas of an API.")
@click.argument("name")
@click.option(
    "-f", "--follow", is_flag=True, help="Stream new lines until Ctrl-C, including those of new replicas."
)
@click.option(
    "--tail", type=click.IntRange(min=0), help="Number of lines of each replica to show.  [default: all]"
)
@click.option(
    "-p", "--previous", is_flag=True, help="Show the logs of the containers before their last restart."
)
@click.option("-c", "--container", help="Container of the pods.  [default: the container of the API]")
@click.option("--level", type=click.Choice(_LEVELS), help="Show only this level and above.")
@click.option("--request", metavar="ID", help="Show only the lines of one request.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    help="Print lines for people, or JSON with the name of the pod.  [default: text on a terminal, otherwise json]",
)
@cluster_options
def logs(
    cluster: Cluster,
    name: str,
    follow: bool,
    tail: int | None,
    previous: bool,
    container: str | None,
    level: str | None,
    request: str | None,
    output: str | None,
) -> None:
    """Show the logs of all replicas of an API, merged."""
    api = apis.find(cluster, name)
    log_filter = LogFilter(level, request)
    show = _Printer(api, output == "json" if output else not sys.stdout.isatty())
    if follow:
        for pod, line in stream(cluster, api, tail, container):
            if log_filter.matches(line):
                show(pod, line)
        return
    pods = apis.pods(cluster, api)
    if not pods:
        raise ClusterError(f"{api.name} has no pods: {api.ready['reason']}: {api.ready['message']}")
    errors: list[str] = []
    for pod, line in merge(cluster, pods, tail, container, previous, errors):
        if log_filter.matches(line):
            show(pod, line)
    for message in errors:
        click.echo(message, err=True)


class _Printer:
    """Print log lines with the name of their pod, in a different color for each pod."""

    def __init__(self, api: API, as_json: bool) -> None:
        self._api = api
        self._json = as_json
        self._colors: dict[str, str] = {}

    def __call__(self, pod: dict[str, Any], line: str) -> None:
        if self._json:
            content = parse(line) or {"message": line}
            click.echo(json.dumps({"pod": pod["metadata"]["name"], **content}, ensure_ascii=False))
            return
        name = short_name(pod, self._api)
        color = self._colors.setdefault(name, _COLORS[len(self._colors) % len(_COLORS)])
        click.echo(readable(line, click.style(name, fg=color) + " "))


def merge(
    cluster: Cluster,
    pods: list[dict[str, Any]],
    tail: int | None,
    container: str | None,
    previous: bool,
    errors: list[str],
) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the existing log lines of pods, sorted by time.

    errors: receives a message for each pod whose log cannot be read.
    """

    def with_time(number: int, pod: dict[str, Any]) -> Iterator[tuple[str, int, dict[str, Any], str]]:
        timestamp = ""
        try:
            for line in lines(cluster, pod, tail, container, previous):
                # A line without a time keeps its position after the previous line.
                timestamp = str((parse(line) or {}).get("time", timestamp))
                yield timestamp, number, pod, line
        except ClusterError as error:
            if error.exit_code != 1:
                raise
            errors.append(f"{pod['metadata']['name']}: {error.message}")

    streams = [with_time(number, pod) for number, pod in enumerate(pods)]
    for _, _, pod, line in heapq.merge(*streams, key=lambda entry: entry[:2]):
        yield pod, line


def stream(
    cluster: Cluster, api: API, tail: int | None, container: str | None
) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield new log lines of all pods, including pods that are created later. Never ends."""
    entries: queue.Queue[tuple[dict[str, Any], str] | ClusterError] = queue.Queue()
    # A run of a container: the uid of its pod and its restart count.
    active: set[tuple[str, int]] = set()
    started: set[tuple[str, int]] = set()

    def read(pod: dict[str, Any], run: tuple[str, int], last: int | None) -> None:
        try:
            for line in lines(cluster, pod, last, container, follow=True):
                entries.put((pod, line))
        except ClusterError as error:
            if error.exit_code != 1:
                entries.put(error)
        finally:
            active.discard(run)

    while True:
        for pod in apis.pods(cluster, api):
            state = _state(pod, container)
            run = (str(pod["metadata"]["uid"]), int(state.get("restartCount", 0)))
            is_running = "running" in (state.get("state") or {})
            is_terminated = "terminated" in (state.get("state") or {})
            if run in active or not (is_running or (is_terminated and run not in started)):
                continue
            is_restart = any(uid == run[0] for uid, _ in started)
            # Read all lines of a restarted container, but only new lines after a broken connection.
            last = 0 if run in started else None if is_restart else tail
            active.add(run)
            started.add(run)
            threading.Thread(target=read, args=(pod, run, last), daemon=True).start()
        end = time.monotonic() + _POD_INTERVAL
        while (remaining := end - time.monotonic()) > 0:
            try:
                entry = entries.get(timeout=remaining)
            except queue.Empty:
                break
            if isinstance(entry, ClusterError):
                raise entry
            yield entry


def lines(
    cluster: Cluster,
    pod: dict[str, Any],
    tail: int | None = None,
    container: str | None = None,
    previous: bool = False,
    follow: bool = False,
) -> Iterator[str]:
    """Yield the log lines of a container of a pod, by default the container of the API. Raises ClusterError."""
    query = {"container": container or pod["spec"]["containers"][0]["name"]}
    query |= {"tailLines": str(tail)} if tail is not None else {}
    query |= {"previous": "true"} if previous else {}
    query |= {"follow": "true"} if follow else {}
    rest = b""
    url_path = path("v1/pods", pod["metadata"]["namespace"], pod["metadata"]["name"], "log")
    for chunk in cluster.stream(url_path, **query):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace") for line in whole)
    if rest:
        yield rest.decode(errors="replace")


def short_name(pod: dict[str, Any], api: API) -> str:
    """Return a pod's name without the prefix that all pods of the API share."""
    return str(pod["metadata"]["name"]).removeprefix(f"{api.service}-")


def component_name(pod: dict[str, Any]) -> str:
    """Return the component of a pod: gateway, worker or api."""
    return str((pod["metadata"].get("labels") or {}).get(COMPONENT_LABEL, ""))


def _state(pod: dict[str, Any], container: str | None) -> dict[str, Any]:
    name = container or pod["spec"]["containers"][0]["name"]
    status = pod.get("status") or {}
    every = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return next((entry for entry in every if entry["name"] == name), {})
