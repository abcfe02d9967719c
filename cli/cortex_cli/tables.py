"""Tables of `cortex get`, with rich: in color on a terminal, as plain text in a pipe."""

import copy
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import click
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from cortex_cli import apis
from cortex_cli.apis import API, Replicas
from cortex_cli.number_text import latency_text
from cortex_cli.replica_metrics import Latency, Traffic

PERCENTILES = ("p50", "p95", "p99")
_BAR = 40
_PIPE_WIDTH = 1000
_MAX_CLASSES = 20
_READY = {"True": "green", "False": "red"}


def show(content: RenderableType) -> None:
    """Print to stdout; in a pipe without colors and without line wrapping."""
    if sys.stdout.isatty():
        Console(highlight=False).print(content)
        return
    console = Console(width=_PIPE_WIDTH, highlight=False, color_system=None)
    with console.capture() as captured:
        console.print(content)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


class FittingTable(Table):
    """A table that omits optional columns on a narrow terminal, instead of truncating all of them.

    optional: titles of the columns to omit, the least important first. If the others are still too wide, the widest is wrapped.
    """

    optional: tuple[str, ...] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        fitted = copy.copy(self)
        for title in self.optional:
            if fitted._fits(console, options):
                break
            kept = [column for column in fitted.columns if column.header != title]
            fitted.columns = [replace(column, _index=index) for index, column in enumerate(kept)]
        if not fitted._fits(console, options):
            widest = max(fitted.columns, key=lambda column: max(map(len, map(str, column.cells)), default=0))
            fitted.columns = [
                replace(column, no_wrap=False, overflow="fold") if column is widest else column
                for column in fitted.columns
            ]
        yield from Table.__rich_console__(fitted, console, options)

    def _fits(self, console: Console, options: ConsoleOptions) -> bool:
        """Return whether no cell is truncated. Columns that wrap their text fit always."""
        if any(not column.no_wrap for column in self.columns):
            return True
        return self.__rich_measure__(console, options.update_width(_PIPE_WIDTH)).maximum <= options.max_width


def grid(*titles: str, optional: tuple[str, ...] = ()) -> FittingTable:
    """Return an empty table without borders, like the tables of kubectl.

    optional: titles of the columns that a narrow terminal omits, the least important first.
    """
    table = FittingTable(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    table.optional = optional
    for title in titles:
        table.add_column(title, no_wrap=title not in ("", "MESSAGE"))
    return table


def table(found: list[tuple[API, Replicas]], with_namespace: bool) -> Table:
    """Return a table with one row for each API."""
    has_errors = any(replicas.traffic.classes.get(kind) for _, replicas in found for kind in ("4XX", "5XX"))
    has_candidates = any("candidate" in api.status for api, _ in found)
    titles = ["NAMESPACE"] if with_namespace else []
    titles += [
        "NAME",
        "KIND",
        "READY",
        "REASON",
        "REPLICAS",
        *(["CANDIDATE"] if has_candidates else []),
        "P50",
        "P95",
        "P99",
        "2XX",
        *(["4XX", "5XX"] if has_errors else []),
        "AGE",
    ]
    result = grid(
        *titles, optional=("P50", "P95", "KIND", "2XX", "AGE", "P99", "4XX", "5XX", "CANDIDATE", "REPLICAS")
    )
    for api, replicas in found:
        traffic = replicas.traffic
        numbers = [_number(traffic, kind) for kind in (("2XX", "4XX", "5XX") if has_errors else ("2XX",))]
        result.add_row(
            *([api.namespace] if with_namespace else []),
            api.name,
            api.kind,
            Text(api.ready["status"], style=_READY.get(api.ready["status"], "yellow")),
            api.ready["reason"],
            replicas_of(api),
            *([(api.status.get("candidate") or {}).get("phase", "")] if has_candidates else []),
            *percentiles(api, traffic),
            *numbers,
            apis.age(api.live["metadata"].get("creationTimestamp")),
        )
    return result


def detail(api: API, pods: list[dict[str, Any]], replicas: Replicas) -> Iterator[RenderableType]:
    """Yield the details of an API: state, requests, predictions, models and pods."""
    ready = api.ready
    head = grid("", "")
    head.show_header = False
    head.add_row("name", f"{api.name} ({api.kind}, namespace {api.namespace})")
    head.add_row(
        "ready", Text(f"{ready['status']} ({ready['reason']})", style=_READY.get(ready["status"], "yellow"))
    )
    head.add_row("", str(ready["message"]))
    if api.is_outdated:
        head.add_row("", "the operator has not reconciled the latest change yet")
    head.add_row("replicas", replicas_of(api))
    if scaling := _scaling(api):
        head.add_row("scaling", scaling)
    head.add_row("endpoint", str(api.status.get("url", "-")))
    for title, value in _candidate(api):
        head.add_row(title, value)
    traffic = replicas.traffic
    if api.kind == "AsyncAPI":
        head.add_row("jobs", jobs(api, traffic))
        suffix = ", from submission to end"
    else:
        head.add_row("requests", requests(traffic))
        suffix = ""
    shown = [f"{name} {value}" for name, value in zip(PERCENTILES, percentiles(api, traffic), strict=True)]
    head.add_row("latency", "-" if latency_of(api, traffic) is None else ", ".join(shown) + suffix)
    if (failure := api.status.get("lastFailure")) and not failure.get("recoveredAt"):
        cause = (
            "as above"
            if failure["message"] == ready["message"]
            else f"{failure['reason']}: {failure['message']}"
        )
        when = f" at {failure['time']}" if failure.get("time") else ""
        head.add_row("last failure", f"{cause}, in pod {failure['pod']}{when}")
    for pod, error in replicas.unreachable.items():
        head.add_row("", Text(f"no metrics from pod {pod}: {error}", style="yellow"))
    yield head
    if api.live["spec"].get("tracker"):
        yield Text("\npredictions", style="bold")
        yield from predictions(traffic)
    info = replicas.info or {}
    if models := info.get("models"):
        yield Text("")
        yield _models(models)
        for model, problem in (info.get("problems") or {}).items():
            yield Text(f"{model}: {problem}", style="yellow")
    elif replicas.info_error:
        yield Text(f"\nno models reported: {replicas.info_error}", style="yellow")
    if pods:
        yield Text("")
        yield _pods(pods)


def _candidate(api: API) -> Iterator[tuple[str, str]]:
    """Yield rows with the state of a candidate; none without one."""
    if api.live["spec"].get("candidate") is None:
        return
    state = api.status.get("candidate")
    if state is None:
        yield "candidate", "the operator has not reconciled it yet"
        return
    yield "candidate", f"{state['phase']}, weight {state['weight']}%, mirror {state['mirror']}%"
    if state["message"]:
        yield "", state["message"]
    counts = []
    if "requests" in state:
        counts.append(f"{state['requests']} requests, {state.get('errorRate', '0%')} failed")
    if "latencyP95" in state:
        stable = f" (stable {state['stableLatencyP95']})" if "stableLatencyP95" in state else ""
        counts.append(f"p95 {state['latencyP95']}{stable}")
    if state.get("compared"):
        counts.append(f"{state['compared']} compared, {state.get('disagreement', '0%')} differ")
    if counts:
        yield "", "; ".join(counts)


def predictions(traffic: Traffic) -> Iterator[RenderableType]:
    """Yield the predictions that the tracker counted: a bar for each class, or the range of a regression."""
    if traffic.predictions:
        bars = grid("", "", "")
        bars.show_header = False
        total = sum(traffic.predictions.values())
        maximum = max(traffic.predictions.values())
        shown = list(traffic.predictions.items())[:_MAX_CLASSES]
        for name, count in shown:
            bars.add_row(
                name,
                Text("█" * max(1, round(_BAR * count / maximum)), style="cyan"),
                f"{count} ({count / total:.0%})",
            )
        yield bars
        if len(traffic.predictions) > len(shown):
            yield Text(f"... and {len(traffic.predictions) - len(shown)} more classes")
    elif (values := traffic.values) is not None:
        numbers = grid("MIN", "MAX", "AVERAGE", "COUNT")
        numbers.add_row(
            f"{values.minimum:g}", f"{values.maximum:g}", f"{values.average:g}", str(values.count)
        )
        yield numbers
    else:
        yield Text("none yet")
    for reason, count in traffic.skipped.items():
        yield Text(f"{count} responses not counted: {reason}", style="yellow")


def plain(api: API, replicas: Replicas) -> dict[str, Any]:
    """Return the resource and the data of its replicas, for JSON and YAML output."""
    traffic = asdict(replicas.traffic)
    return {
        "resource": {
            **api.live,
            "metadata": {k: v for k, v in api.live["metadata"].items() if k != "managedFields"},
        },
        "replicas": {
            "traffic": traffic,
            "info": replicas.info,
            "unreachable": replicas.unreachable,
            "infoError": replicas.info_error,
        },
    }


def replicas_of(api: API) -> str:
    """Return the number of ready replicas and, if known, of desired replicas."""
    ready, desired = api.status.get("readyReplicas", 0), apis.desired_replicas(api)
    return str(ready) if desired is None else f"{ready}/{desired}"


def latency_of(api: API, traffic: Traffic) -> Latency | None:
    """Return the latency of the requests, or of the jobs of an AsyncAPI."""
    return traffic.job_latency if api.kind == "AsyncAPI" else traffic.latency


def percentiles(api: API, traffic: Traffic) -> list[str]:
    """Format the latency at each of PERCENTILES; "-" without requests."""
    latency = latency_of(api, traffic)
    if latency is None:
        return ["-"] * len(PERCENTILES)
    return [latency_text(value, latency) for value in (latency.p50, latency.p95, latency.p99)]


def jobs(api: API, traffic: Traffic) -> str:
    """Format the number of queued and running jobs (from the status), and of ended jobs (from the metrics)."""
    queue = api.status.get("queue") or {}
    ended = ", ".join(f"{count} {status}" for status, count in traffic.jobs.items()) or "none ended"
    return f"{queue.get('queued', 0)} queued, {queue.get('inFlight', 0)} in progress; {ended}"


def requests(traffic: Traffic) -> str:
    """Format the number of requests by status class."""
    counted = ", ".join(f"{count} {kind}" for kind, count in traffic.classes.items()) or "none"
    return f"{counted}; {traffic.in_flight} in flight" if traffic.in_flight else counted


def _number(traffic: Traffic, kind: str) -> str:
    return str(traffic.classes[kind]) if traffic.classes.get(kind) else "-"


def _scaling(api: API) -> str:
    scaling = api.status.get("autoscaling")
    if not scaling:
        return ""
    spec = api.live["spec"].get("autoscaling") or {}
    bounds = f"{spec.get('minReplicas', 1)} to {spec.get('maxReplicas', 100)}"
    summary = f"{bounds} by {scaling.get('metric', 'load')} ({scaling.get('provider')})"
    return "; ".join([summary, *([str(scaling["reason"])] if scaling.get("reason") else [])])


def _models(models: Any) -> Table:
    result = grid("MODEL", "VERSIONS", "LOADED")
    for model in models:
        versions = [str(version) for version in model.get("versions") or ()]
        latest = [*versions[:-1], f"{versions[-1]} (latest)"] if versions else ["-"]
        loaded = model.get("loaded")
        names = ", ".join(map(str, loaded)) if isinstance(loaded, list) else str(loaded or "-")
        result.add_row(str(model.get("name") or "(default)"), ", ".join(latest), names)
    return result


def _pods(pods: list[dict[str, Any]]) -> Table:
    result = grid("POD", "READY", "RESTARTS", "NODE", "AGE", optional=("NODE", "AGE"))
    for pod in pods:
        statuses = (pod.get("status") or {}).get("containerStatuses") or ()
        ready = apis.is_ready(pod)
        suffix = " (terminating)" if pod["metadata"].get("deletionTimestamp") else ""
        result.add_row(
            pod["metadata"]["name"],
            Text(("yes" if ready else "no") + suffix, style="green" if ready else "yellow"),
            str(sum(status.get("restartCount", 0) for status in statuses)),
            str(pod["spec"].get("nodeName", "-")),
            apis.age(pod["metadata"].get("creationTimestamp")),
        )
    return result
