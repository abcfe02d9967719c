"""The in-flight algorithm of Cortex as a pure function from a sample of the load to a number of replicas and a new state.

    average the load over the window → divide by the target → tolerate small changes → bound the step → stabilize

The steps and their order are those of Cortex 0.42, with two differences: only scaling in waits for a history after a start, and
one job is enough to scale out from zero.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from cortex_api.deployment import Autoscaling
from cortex_api.units import seconds


@dataclass(frozen=True)
class Rules:
    """`spec.autoscaling` in numbers; durations in seconds. target: load of each replica."""

    target: float
    lowest: int
    highest: int
    window: float
    downscale_period: float
    upscale_period: float
    downscale_factor: float
    upscale_factor: float
    downscale_tolerance: float
    upscale_tolerance: float

    @classmethod
    def of(cls, spec: Autoscaling) -> "Rules":
        """Return the rules of a spec with targetInFlight."""
        assert spec.target_in_flight is not None
        return cls(
            target=spec.target_in_flight,
            lowest=spec.min_replicas,
            highest=spec.max_replicas,
            window=seconds(spec.window),
            downscale_period=seconds(spec.downscale_stabilization_period),
            upscale_period=seconds(spec.upscale_stabilization_period),
            downscale_factor=spec.max_downscale_factor,
            upscale_factor=spec.max_upscale_factor,
            downscale_tolerance=spec.downscale_tolerance,
            upscale_tolerance=spec.upscale_tolerance,
        )


@dataclass(frozen=True)
class State:
    """The history: (time, load) and (time, recommendation), oldest first, and its start. Times are monotonic seconds."""

    since: float
    loads: tuple[tuple[float, float], ...] = ()
    recommendations: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True)
class Decision:
    """replicas: the new number. load: the average over the window. hold_reason: why the number does not change although it
    should."""

    replicas: int
    load: float
    hold_reason: str | None = None


@dataclass
class ObservedQueue:
    """The queue of an AsyncAPI. oldest: when its oldest queued job was submitted, in seconds since 1970; None when it is
    empty."""

    queued: int
    in_flight: int
    oldest: float | None


@dataclass
class ObservedScaling:
    """The state of the autoscaler of one API.

    explanation: the last decision in words, for the status. queue_problem: why the queue of an AsyncAPI cannot be reached, as
    its gateway reports it. no_metrics_since: since when too few pods report their load. last_loads: the last load of each pod,
    by name.
    """

    state: State
    explanation: str = ""
    desired: int | None = None
    queue: ObservedQueue | None = None
    queue_problem: str = ""
    no_metrics_since: datetime | None = None
    last_loads: dict[str, float] = field(default_factory=dict)


def decide(
    rules: Rules, state: State, now: float, current: int, load: float, scale_in: bool = True
) -> tuple[State, Decision]:
    """Decide on the number of replicas of an API.

    current: the present value of spec.replicas. load: in-flight requests of all replicas, or the queued and running jobs of an
    AsyncAPI. scale_in: whether the number may decrease.
    """
    loads = (*(entry for entry in state.loads if entry[0] > now - rules.window), (now, load))
    average = sum(value for _, value in loads) / len(loads)
    wanted = _recommend(rules, average, current)
    longest = max(rules.downscale_period, rules.upscale_period)
    kept = tuple(entry for entry in state.recommendations if entry[0] >= now - longest)
    recommendations = (*kept, (now, wanted))
    after = State(state.since, loads, recommendations)
    replicas, hold_reason = current, None
    if not rules.lowest <= current <= rules.highest:
        replicas = min(max(current, rules.lowest), rules.highest)
    elif wanted < current:
        if not scale_in:
            hold_reason = "a pod cannot be scheduled"
        elif now - state.since >= rules.downscale_period:
            replicas = min(current, _extreme(max, recommendations, now - rules.downscale_period))
    elif wanted > current:
        lowest = _extreme(min, recommendations, now - rules.upscale_period)
        replicas = max(current, wanted if current == 0 else lowest)
    return after, Decision(replicas, average, hold_reason)


def _recommend(rules: Rules, average: float, current: int) -> int:
    """Return the number of replicas for an average load, at most one bounded step from the current one."""
    raw = average / rules.target
    wanted = math.ceil(raw)
    if current * (1 - rules.downscale_tolerance) < raw < current * (1 + rules.upscale_tolerance):
        wanted = current
    floor = min(current - 1, math.ceil(current * rules.downscale_factor))
    ceiling = max(current + 1, math.ceil(current * rules.upscale_factor))
    wanted = min(max(wanted, floor), ceiling)
    return min(max(wanted, rules.lowest), rules.highest)


def _extreme(
    choose: Callable[[Iterable[int]], int], entries: tuple[tuple[float, int], ...], since: float
) -> int:
    return choose(value for time, value in entries if time >= since)
