"""`cortex diff`: show how the responses of the candidate of an API differ from those of the stable version."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from cortex_api.contract import CANDIDATE_PATH, DIFFERENCES_PATH
from cortex_cli import apis, tables
from cortex_cli.candidate_reports import read_reports, value_text
from cortex_cli.connection import Cluster, ClusterError, Object, cluster_options


@dataclass
class Report:
    """What all stable replicas report. classes: count by stable and candidate class. unreachable: error by pod."""

    active: int = 0
    compared: int = 0
    differing: int = 0
    classes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    pairs: list[Object] = field(default_factory=list)
    unreachable: dict[str, str] = field(default_factory=dict)


@click.command(short_help="Show responses of the candidate that differ.")
@click.argument("name")
@click.option(
    "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Pairs to show, newest first."
)
@click.option("--request", metavar="ID", help="Show one pair in full.")
@click.option(
    "-o", "--output", type=click.Choice(["json"]), help="Print all pairs, with request and responses."
)
@cluster_options
def diff(cluster: Cluster, name: str, limit: int, request: str | None, output: str | None) -> None:
    """Show the last responses of the candidate that differ from those of the stable version.

    The replicas keep them in memory, for mirrored requests (spec.candidate.mirror).
    """
    api = apis.find(cluster, name)
    report = read(cluster, apis.pods(cluster, api))
    for pod, error in report.unreachable.items():
        click.echo(f"no report from pod {pod}: {error}", err=True)
    if request is not None:
        pairs = [pair for pair in report.pairs if pair["requestId"] == request]
        if not pairs:
            raise ClusterError(f"no replica has a differing pair of request {request}")
        click.echo(json.dumps(pairs if output else pairs[0], indent=2, ensure_ascii=False))
        return
    if output:
        click.echo(json.dumps(report.pairs, indent=2, ensure_ascii=False))
        return
    if not report.active:
        if api.live["spec"].get("candidate") is None:
            raise ClusterError(f"{api.kind} {api.name} has no candidate")
        state = api.status.get("candidate") or {}
        why = ": ".join(filter(None, [state.get("phase", "Starting"), state.get("message")]))
        raise ClusterError(f"no replica of {api.name} uses the candidate: it is {why}")
    tables.show(Group(*_view(report, limit)))


def read(cluster: Cluster, pods: list[Object]) -> Report:
    """Return the reports of all ready stable pods."""
    reports, unreachable = read_reports(cluster, apis.stable_replicas(pods), CANDIDATE_PATH, DIFFERENCES_PATH)
    report = Report(unreachable=unreachable)
    for pod, (state, pairs) in reports.items():
        report.active += 1
        report.compared += state.get("compared", 0)
        report.differing += state.get("differing", 0)
        for mine, row in (state.get("classes") or {}).items():
            report.classes[mine].update(row)
        report.pairs += [{"pod": pod, **pair} for pair in pairs]
    report.pairs.sort(key=lambda pair: float(pair["time"]), reverse=True)
    return report


def _view(report: Report, limit: int) -> Iterator[RenderableType]:
    share = f" ({report.differing / report.compared:.2%})" if report.compared else ""
    yield Text(f"{report.compared} responses compared, {report.differing} differ{share}")
    if report.pairs:
        yield Text("")
        table = tables.grid("TIME", "REQUEST", "PATH", "AT", "STABLE", "CANDIDATE")
        for pair in report.pairs[:limit]:
            first = [_time(pair["time"]), str(pair["requestId"]), str(pair["path"])]
            for difference in pair["differences"]:
                at = difference["path"] or "(the whole response)"
                cells = [*first, at, value_text(difference, "stable"), value_text(difference, "candidate")]
                table.add_row(*map(_plain, cells))
                first = ["", "", ""]
        yield table
        if len(report.pairs) > limit:
            yield Text(f"{len(report.pairs) - limit} older pairs are not shown; see --limit")
        yield Text("`cortex diff NAME --request ID` shows the request and both responses")
    if report.classes:
        yield Text(
            "\nclasses: rows are those of the stable version, columns those of the candidate", style="bold"
        )
        yield matrix(report.classes)


def matrix(classes: dict[str, Counter[str]]) -> RenderableType:
    """Return a table of the confusion matrix."""
    names = sorted({*classes, *(name for row in classes.values() for name in row)})
    table = tables.grid("", *(escape(name) for name in names))
    for stable in names:
        row = classes.get(stable, Counter())
        cells: list[Any] = [
            Text(str(row[name]), style="" if name == stable or not row[name] else "yellow") for name in names
        ]
        table.add_row(_plain(stable), *cells)
    return table


def _plain(text: str) -> Text:
    """Return text of a response for a cell: without markup and control characters, on one line."""
    words = " ".join(text.split())[:80]
    return Text("".join(char if char.isprintable() else "\ufffd" for char in words))


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%H:%M:%S")
