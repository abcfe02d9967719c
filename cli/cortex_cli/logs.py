"""`cortex logs`: what all replicas of an API say, in the order in which they said it, and as they say it."""

import heapq
import json
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click

from cortex_cli import apis
from cortex_cli.apis import API
from cortex_cli.connection import Cluster, ClusterError, asks_a_cluster, path
from cortex_cli.loglines import parsed, readable

_COLOURS = ("cyan", "magenta", "blue", "yellow", "green", "bright_cyan", "bright_magenta", "bright_blue")
_LOOK_AGAIN = 1.0
"""Seconds between two looks for pods that are new."""
_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True)
class Wanted:
    """Which lines are shown. level: the least; request: the only request's id."""

    level: str | None = None
    request: str | None = None

    def has(self, line: str) -> bool:
        """Whether a line is wanted."""
        if self.level is None and self.request is None:
            return True
        content = parsed(line)
        if content is None:
            return self.request is None
        if self.request is not None and content.get("requestId") != self.request:
            return False
        level = str(content["level"])
        return self.level is None or level not in _LEVELS or _LEVELS.index(level) >= _LEVELS.index(self.level)


@click.command()
@click.argument("name")
@click.option(
    "-f", "--follow", is_flag=True, help="Go on as they say more, of new replicas too, until Ctrl-C."
)
@click.option(
    "--tail", type=click.IntRange(min=0), help="So many of the last lines of each replica; all when absent."
)
@click.option("-p", "--previous", is_flag=True, help="Of the containers that ran before the last restart.")
@click.option("-c", "--container", help="Another container of the pods than that of the API.")
@click.option("--level", type=click.Choice(_LEVELS), help="Only this level and above.")
@click.option("--request", metavar="ID", help="Only lines of one request.")
@click.option("-o", "--output", type=click.Choice(["json"]), help="JSON lines, each with its pod.")
@asks_a_cluster
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
    wanted = Wanted(level, request)
    show = _Printer(api, output == "json")
    if follow:
        for pod, line in followed(cluster, api, tail, container):
            if wanted.has(line):
                show(pod, line)
        return
    pods = apis.pods(cluster, api)
    if not pods:
        raise ClusterError(f"{api.name} has no pods: {api.ready['reason']}: {api.ready['message']}")
    silent: list[str] = []
    for pod, line in merged(cluster, pods, tail, container, previous, silent):
        if wanted.has(line):
            show(pod, line)
    for why in silent:
        click.echo(why, err=True)


class _Printer:
    """Prints lines with their pod before them: a colour for each."""

    def __init__(self, api: API, as_json: bool) -> None:
        self._api = api
        self._json = as_json
        self._colours: dict[str, str] = {}

    def __call__(self, pod: dict[str, Any], line: str) -> None:
        if self._json:
            content = parsed(line) or {"message": line}
            click.echo(json.dumps({"pod": pod["metadata"]["name"], **content}, ensure_ascii=False))
            return
        name = short(pod, self._api)
        colour = self._colours.setdefault(name, _COLOURS[len(self._colours) % len(_COLOURS)])
        click.echo(readable(line, click.style(name, fg=colour) + " "))


def merged(
    cluster: Cluster,
    pods: list[dict[str, Any]],
    tail: int | None,
    container: str | None,
    previous: bool,
    silent: list[str],
) -> Iterator[tuple[dict[str, Any], str]]:
    """The lines of these pods so far, by time. silent: takes a sentence for each pod that has no log."""

    def timed(number: int, pod: dict[str, Any]) -> Iterator[tuple[str, int, dict[str, Any], str]]:
        moment = ""
        try:
            for line in lines(cluster, pod, tail, container, previous):
                # What isn't of the runtime's own has no time, and stands after what came before it.
                moment = str((parsed(line) or {}).get("time", moment))
                yield moment, number, pod, line
        except ClusterError as error:
            if error.exit_code != 1:
                raise
            silent.append(f"{pod['metadata']['name']}: {error.message}")

    streams = [timed(number, pod) for number, pod in enumerate(pods)]
    for _, _, pod, line in heapq.merge(*streams, key=lambda entry: entry[:2]):
        yield pod, line


def followed(
    cluster: Cluster, api: API, tail: int | None, container: str | None
) -> Iterator[tuple[dict[str, Any], str]]:
    """Lines of all pods as they come, those of pods that come later too; ends never."""
    said: queue.Queue[tuple[dict[str, Any], str] | ClusterError] = queue.Queue()
    # A container's life: its pod, and how often it was started again.
    reading: set[tuple[str, int]] = set()
    begun: set[tuple[str, int]] = set()

    def read(pod: dict[str, Any], life: tuple[str, int], last: int | None) -> None:
        try:
            for line in lines(cluster, pod, last, container, follow=True):
                said.put((pod, line))
        except ClusterError as error:
            if error.exit_code != 1:
                said.put(error)
        finally:
            reading.discard(life)

    while True:
        for pod in apis.pods(cluster, api):
            state = _state(pod, container)
            life = (str(pod["metadata"]["uid"]), int(state.get("restartCount", 0)))
            running = "running" in (state.get("state") or {})
            over = "terminated" in (state.get("state") or {})
            if life in reading or not (running or (over and life not in begun)):
                continue
            known = any(uid == life[0] for uid, _ in begun)
            # All of a new life; where a connection broke, only what comes now.
            last = 0 if life in begun else None if known else tail
            reading.add(life)
            begun.add(life)
            threading.Thread(target=read, args=(pod, life, last), daemon=True).start()
        end = time.monotonic() + _LOOK_AGAIN
        while (left := end - time.monotonic()) > 0:
            try:
                entry = said.get(timeout=left)
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
    """The lines of one pod's container; the API's own when none is named. Raises ClusterError."""
    query = {"container": container or pod["spec"]["containers"][0]["name"]}
    query |= {"tailLines": str(tail)} if tail is not None else {}
    query |= {"previous": "true"} if previous else {}
    query |= {"follow": "true"} if follow else {}
    rest = b""
    where = path("v1/pods", pod["metadata"]["namespace"], pod["metadata"]["name"], "log")
    for chunk in cluster.stream(where, **query):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace") for line in whole)
    if rest:
        yield rest.decode(errors="replace")


def short(pod: dict[str, Any], api: API) -> str:
    """A pod's name without what all pods of the API have in common."""
    return str(pod["metadata"]["name"]).removeprefix(f"{api.service}-")


def _state(pod: dict[str, Any], container: str | None) -> dict[str, Any]:
    name = container or pod["spec"]["containers"][0]["name"]
    status = pod.get("status") or {}
    every = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return next((entry for entry in every if entry["name"] == name), {})
