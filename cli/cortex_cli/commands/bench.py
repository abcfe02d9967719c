"""`cortex bench`: measure the capacity of an API at a latency goal, and derive its autoscaling settings."""

import asyncio
import math
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Self

import click
from rich.console import Console
from rich.live import Live

from cortex_cli.api_keys import HEADER, api_key_options
from cortex_cli.bench_target import Endpoint, endpoint_of
from cortex_cli.commands.predict import read
from cortex_cli.connection import Cluster, cluster_selection_options
from cortex_cli.load_generator import Result, Target, generate
from cortex_cli.tables import grid

_HEADROOM = 0.8
"""Share of the capacity at which replicas are run: the rest absorbs peaks while a new replica starts."""
_MAX_ERRORS = 0.001
_MAX_LATE = 0.25
"""Share of the latency goal that the delays of the generator may reach."""
_REFINEMENTS = 3
_TITLES = ("REQUESTED/s", "SERVED/s", "P50", "P99", "ERRORS", "GOAL")


@dataclass(frozen=True)
class Goal:
    """latency: seconds that 99 % of the responses must not exceed. At most 0.1 % of the requests may fail."""

    latency: float

    def is_met(self, result: Result) -> bool:
        """Return whether a load meets the goal and was served at the requested rate."""
        p99 = result.percentile(0.99)
        if p99 is None or result.errors.total() > _MAX_ERRORS * result.requests:
            return False
        return p99 <= self.latency


@click.command(short_help="Measure the capacity of an API.")
@click.argument("target", metavar="NAME | URL")
@click.argument("payload", required=False, metavar="[JSON | @FILE | -]")
@click.option("--payload", "payload_file", metavar="FILE", help="File with the payload, like @FILE.")
@click.option("-X", "--method", help="HTTP method.  [default: POST with a payload, otherwise GET]")
@click.option(
    "--goal", default=100.0, show_default=True, metavar="MS", help="Latency goal of 99 % of the responses."
)
@click.option("--step", default=3.0, show_default=True, metavar="SECONDS", help="Duration of each load.")
@click.option(
    "--max-time", default=60.0, show_default=True, metavar="SECONDS", help="Maximum total duration."
)
@click.option("--replicas", default=1, show_default=True, help="Number of replicas behind a URL.")
@click.option(
    "--rate", type=float, metavar="N", help="Requests per second for which to compute the replicas."
)
@api_key_options
@cluster_selection_options
def bench(
    open_cluster: Callable[[], Cluster],
    target: str,
    payload: str | None,
    payload_file: str | None,
    method: str | None,
    goal: float,
    step: float,
    max_time: float,
    replicas: int,
    rate: float | None,
    api_key: str | None,
) -> None:
    """Send requests at increasing rates, and report the highest rate that meets the latency goal.

    The requests start at random times and do not wait for each other, like those of independent clients.

    NAME is a RealtimeAPI of the cluster: requests go to its URL, or to one of its pods if this machine does not reach the URL.
    The load is real: it takes capacity from other clients of the API, and an autoscaler follows it.
    """
    if payload_file is not None:
        if payload is not None:
            raise click.UsageError("the payload and --payload are mutually exclusive")
        payload = f"@{payload_file}"
    body, content_type = read(payload)
    headers = {"content-type": content_type} if body is not None else {}
    verb = (method or ("GET" if body is None else "POST")).upper()
    endpoint: AbstractContextManager[Endpoint]
    if "://" in target:
        endpoint = nullcontext(Endpoint(target, replicas, {HEADER: api_key} if api_key else {}))
    else:
        endpoint = endpoint_of(open_cluster, target, api_key)
    with endpoint as where:
        try:
            request = Target.of(where.url, verb, headers | where.headers, body)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        if where.note:
            click.echo(where.note, err=True)
        measured = asyncio.run(_measure(request, Goal(goal / 1000), step, max_time))
    click.echo()
    for line in summary(measured, Goal(goal / 1000), where.replicas, rate):
        click.echo(line)
    sys.exit(0 if any(Goal(goal / 1000).is_met(result) for result in measured) else 1)


async def _measure(target: Target, goal: Goal, step: float, max_time: float) -> list[Result]:
    """Return the results of all loads. Raises ClickException if the first requests fail."""
    timeout = max(10.0, goal.latency * 10)
    search = rates(await _first_rate(target, timeout), goal)
    measured: list[Result] = []
    end = time.monotonic() + max_time
    rate = next(search)
    with _View(goal) as view:
        while time.monotonic() + step <= end:
            result = await generate(target, rate, step, timeout, view.show)
            measured.append(result)
            view.add(result)
            if is_limited_by_generator(result, goal):
                break
            try:
                rate = search.send(result)
            except StopIteration:
                break
    return measured


async def _first_rate(target: Target, timeout: float) -> float:
    """Return a rate that one replica serves easily: a quarter of what it serves to one client that waits for each response."""
    durations = []
    for seed in range(5):
        probe = await generate(target, 1000.0, 0.001, timeout, seed=seed)
        if probe.errors:
            cause = next(iter(probe.errors))
            status = "status " if cause.isdigit() else ""
            raise click.ClickException(f"the request fails: {status}{cause}; try it with curl first")
        durations += probe.latencies
    return max(1.0, 0.25 / (sum(durations) / len(durations)) if durations else 1.0)


def rates(first: float, goal: Goal) -> Generator[float, Result, None]:
    """Yield the rates to measure: doubled until the goal is missed, then between the last two, then the rate to run at.

    Receives each result.
    """
    met, rate = 0.0, first
    while goal.is_met((yield rate)):
        met, rate = rate, rate * 2
    missed = rate
    for _ in range(_REFINEMENTS):
        rate = (met + missed) / 2
        if goal.is_met((yield rate)):
            met = rate
        else:
            missed = rate
    if met:
        yield met * _HEADROOM


def is_limited_by_generator(result: Result, goal: Goal) -> bool:
    """Return whether the generator was too slow for the rate, so that the result is not that of the API."""
    return result.late > goal.latency * _MAX_LATE


def summary(measured: list[Result], goal: Goal, replicas: int, rate: float | None) -> Iterator[str]:
    """Yield the lines that state the capacity and the settings that follow from it.

    replicas: number of replicas that served the load. rate: expected requests per second, or None.
    """
    met = [result for result in measured if goal.is_met(result) and not is_limited_by_generator(result, goal)]
    if not measured:
        yield "No load was measured: --max-time must be at least --step."
        return
    if not met and is_limited_by_generator(measured[-1], goal):
        yield f"The capacity is unknown: this machine was too busy to send {_rate(measured[-1].rate)} requests/s on time."
        yield "Run the command on an idle or faster machine, or with a larger --goal."
        return
    if not met:
        yield f"The API does not meet the goal (p99 of {goal.latency * 1000:g} ms) at any measured rate."
        return
    best = max(met, key=lambda result: result.rate)
    capacity = best.throughput / replicas
    yield f"Capacity: {_rate(capacity)} requests/s for each replica with a p99 of at most {goal.latency * 1000:g} ms"
    if is_limited_by_generator(measured[-1], goal):
        yield "This command was the limit, not the API: the capacity is at least this. Run it on a faster machine."
    elif all(goal.is_met(result) for result in measured):
        yield "The time ended before the goal was missed: the capacity is at least this (--max-time)."
    steady = max((r for r in met if r.rate <= best.rate * _HEADROOM), key=lambda r: r.rate, default=best)
    in_flight = max(0.1, steady.in_flight / replicas)
    yield f"Settings for {_rate(steady.rate / replicas)} requests/s for each replica, which leaves room for peaks:"
    yield ""
    yield "  autoscaling:"
    yield f"    targetInFlight: {in_flight:.1f}"
    if rate is not None:
        yield f"    minReplicas: {math.ceil(rate / (capacity * _HEADROOM))}    # for {_rate(rate)} requests/s"


class _View:
    """Show the results as a table: live on a terminal, otherwise a line for each result."""

    def __init__(self, goal: Goal) -> None:
        self._goal = goal
        self._live = Live(console=Console(), auto_refresh=False) if sys.stdout.isatty() else None
        self._rows: list[tuple[str, ...]] = []

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        else:
            click.echo("  ".join(f"{title:>11}" for title in _TITLES))
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, result: Result) -> None:
        """Show the state of a load that is running."""
        if self._live:
            self._update([*self._rows, self._row(result, is_complete=False)])

    def add(self, result: Result) -> None:
        """Show a result."""
        self._rows.append(self._row(result, is_complete=True))
        if self._live:
            self._update(self._rows)
        else:
            click.echo("  ".join(f"{cell:>11}" for cell in self._rows[-1]))

    def _update(self, rows: list[tuple[str, ...]]) -> None:
        assert self._live is not None
        table = grid(*_TITLES)
        for row in rows:
            table.add_row(*row)
        self._live.update(table, refresh=True)

    def _row(self, result: Result, is_complete: bool) -> tuple[str, ...]:
        ordered = Result(result.rate, sorted(result.latencies), result.errors, result.seconds)
        state = "..." if not is_complete else "met" if self._goal.is_met(result) else "missed"
        if is_complete and is_limited_by_generator(result, self._goal):
            state = "not measurable"
        errors = ", ".join(f"{count} x {cause}" for cause, count in result.errors.most_common(3)) or "0"
        return (
            _rate(result.rate),
            _rate(result.throughput),
            _milliseconds(ordered.percentile(0.5)),
            _milliseconds(ordered.percentile(0.99)),
            errors,
            state,
        )


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.3g} ms"
