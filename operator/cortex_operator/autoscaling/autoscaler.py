"""The in-flight algorithm of Cortex as a pure function: a sample of the load in, a number of replicas and the new state out.

    average the load over the window → divide by the target → tolerate small changes → bound the step → stabilise

The steps and their order are those of Cortex 0.42; what differs: after a start nothing waits for a history before scaling out
(only scaling in does), and from zero the first job is enough.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from cortex_api.scaling import Autoscaling
from cortex_api.units import seconds


@dataclass(frozen=True)
class Rules:
    """`spec.autoscaling` in numbers; durations in seconds. target: load for each replica."""

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
        """The rules of a spec that has a targetInFlight."""
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
    """What has been seen: (time, load) and (time, recommendation), oldest first, and since when. Times are monotonic seconds."""

    since: float
    loads: tuple[tuple[float, float], ...] = ()
    recommendations: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True)
class Decision:
    """replicas: how many there are to be. load: its average over the window. why: what kept it from moving, or None."""

    replicas: int
    load: float
    why: str | None = None


@dataclass
class Queue:
    """An AsyncAPI's queue. oldest: when its oldest waiting job came, in seconds since 1970; None when none waits."""

    queued: int
    in_flight: int
    oldest: float | None


@dataclass
class ObservedScaling:
    """What the loop knows of one API.

    told: the last decision in words, as it is in the status. last: each pod's last load, by name. queue_problem: why the queue
    of an AsyncAPI does not answer, as its gateway reports it. no_metrics_since: since when too few pods report their load.
    """

    state: State
    told: str = ""
    desired: int | None = None
    queue: Queue | None = None
    queue_problem: str = ""
    no_metrics_since: datetime | None = None
    last: dict[str, float] = field(default_factory=dict)


def decide(
    rules: Rules, state: State, now: float, current: int, load: float, scale_in: bool = True
) -> tuple[State, Decision]:
    """One look at an API.

    current: replicas that are wanted now. load: requests in flight in all replicas together (jobs queued and running for an
    AsyncAPI). scale_in: whether there may be fewer replicas than now.
    """
    loads = (*(entry for entry in state.loads if entry[0] > now - rules.window), (now, load))
    average = sum(value for _, value in loads) / len(loads)
    wanted = _recommend(rules, average, current)
    longest = max(rules.downscale_period, rules.upscale_period)
    kept = tuple(entry for entry in state.recommendations if entry[0] >= now - longest)
    recommendations = (*kept, (now, wanted))
    after = State(state.since, loads, recommendations)
    replicas, why = current, None
    if not rules.lowest <= current <= rules.highest:
        replicas = min(max(current, rules.lowest), rules.highest)
    elif wanted < current:
        if not scale_in:
            why = "a wanted pod can't be scheduled"
        elif now - state.since >= rules.downscale_period:
            replicas = min(current, _extreme(max, recommendations, now - rules.downscale_period))
    elif wanted > current:
        lowest = _extreme(min, recommendations, now - rules.upscale_period)
        replicas = max(current, wanted if current == 0 else lowest)
    return after, Decision(replicas, average, why)


def _recommend(rules: Rules, average: float, current: int) -> int:
    """The number of replicas for an average load, one bounded step from the current one."""
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
