"""The algorithm of a HorizontalPodAutoscaler: pure functions from metrics to a number of replicas. Times are monotonic seconds.

As documented by Kubernetes ("Horizontal Pod Autoscaling"): ratio of metric and target, tolerance, stabilization window, policies,
bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from cortex_devcluster.objects import Object

TOLERANCE = 0.1
"""Change of the ratio that is ignored, unless `behavior` has another value."""
_DEFAULTS: dict[str, Object] = {
    "scaleUp": {
        "stabilizationWindowSeconds": 0,
        "policies": [
            {"type": "Pods", "value": 4, "periodSeconds": 15},
            {"type": "Percent", "value": 100, "periodSeconds": 15},
        ],
    },
    "scaleDown": {
        "stabilizationWindowSeconds": 300,
        "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
    },
}


@dataclass
class History:
    """Past recommendations (time, replicas) and changes (time, difference) of one autoscaler."""

    recommendations: list[tuple[float, int]] = field(default_factory=list)
    changes: list[tuple[float, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Decision:
    """The desired replicas, and the conditions AbleToScale and ScalingLimited as (status, reason, message)."""

    replicas: int
    able: tuple[str, str, str]
    limited: tuple[str, str, str]


def recommend(
    spec: Object, current: int, usage: dict[str, float], request: float, target: float, unknown: int
) -> int:
    """Return the replicas that the usage of the ready pods requires.

    usage: CPUs used by each ready pod. request: CPUs that one pod requests. target: desired share of the request.
    unknown: number of pods without a metric. They count as idle when scaling up, and as fully used when scaling down.
    """
    if not usage:
        return current
    ratio = sum(usage.values()) / (len(usage) * request * target)
    if _is_tolerated(spec, ratio):
        return current
    if unknown:
        assumed = 0.0 if ratio > 1 else request
        total = sum(usage.values()) + unknown * assumed
        after = total / ((len(usage) + unknown) * request * target)
        if _is_tolerated(spec, after) or (after > 1) != (ratio > 1):
            return current
        ratio = after
    return math.ceil(ratio * (len(usage) + unknown))


def decide(spec: Object, history: History, now: float, current: int, recommended: int) -> Decision:
    """Apply stabilization, policies and bounds to a recommendation, which is added to the history."""
    up, down = scaling_rules(spec, "scaleUp"), scaling_rules(spec, "scaleDown")
    history.recommendations.append((now, recommended))
    longest = max(up["stabilizationWindowSeconds"], down["stabilizationWindowSeconds"])
    history.recommendations = [entry for entry in history.recommendations if entry[0] > now - longest - 1]
    least = min(_within(history, now - up["stabilizationWindowSeconds"], recommended))
    most = max(_within(history, now - down["stabilizationWindowSeconds"], recommended))
    stable = min(max(current, least), most)
    able = ("True", "ReadyForNewScale", "recommended size matches current size")
    if stable != recommended:
        reason = "ScaleDownStabilized" if recommended < stable else "ScaleUpStabilized"
        able = (
            "True",
            reason,
            "recent recommendations were different from the current one, applying the stabilized one",
        )
    step = _step(up, down, history, now, current, stable)
    desired = min(max(step, spec.get("minReplicas", 1)), spec["maxReplicas"])
    limited = ("False", "DesiredWithinRange", "the desired count is within the acceptable range")
    if desired < step or (desired == spec["maxReplicas"] and stable > desired):
        limited = (
            "True",
            "TooManyReplicas",
            "the desired replica count is more than the maximum replica count",
        )
    elif desired > step:
        limited = (
            "True",
            "TooFewReplicas",
            "the desired replica count is less than the minimum replica count",
        )
    elif step != stable:
        reason = "ScaleUpLimit" if stable > step else "ScaleDownLimit"
        limited = ("True", reason, "the desired replica count is changing faster than the policies allow")
    return Decision(desired, able, limited)


def scaling_rules(spec: Object, direction: str) -> Object:
    """Return the scaling rules of a direction, with the defaults of Kubernetes."""
    given = (spec.get("behavior") or {}).get(direction) or {}
    return {**_DEFAULTS[direction], **{name: value for name, value in given.items() if value is not None}}


def _is_tolerated(spec: Object, ratio: float) -> bool:
    direction = scaling_rules(spec, "scaleUp" if ratio > 1 else "scaleDown")
    return abs(ratio - 1) <= float(direction.get("tolerance", TOLERANCE))


def _within(history: History, since: float, recommended: int) -> list[int]:
    return [replicas for time, replicas in history.recommendations if time >= since] or [recommended]


def _step(up: Object, down: Object, history: History, now: float, current: int, desired: int) -> int:
    """Return the number closest to the desired one that the policies allow."""
    if desired == current:
        return current
    direction, sign = (up, 1) if desired > current else (down, -1)
    choose = max if direction.get("selectPolicy", "Max") == "Max" else min
    if direction.get("selectPolicy") == "Disabled":
        return current
    allowed = []
    for policy in direction["policies"]:
        recent = [n for time, n in history.changes if time > now - policy["periodSeconds"] and n * sign > 0]
        before = current - sum(recent)
        if policy["type"] == "Pods":
            change = policy["value"]
        else:
            share = before * policy["value"] / 100
            change = math.ceil(share) if sign > 0 else before - math.floor(before - share)
        allowed.append(max(0, change - abs(sum(recent))))
    return current + sign * min(abs(desired - current), choose(allowed))
