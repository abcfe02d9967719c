"""HorizontalPodAutoscalers: replicas follow the CPU usage of pods."""

from __future__ import annotations

import math
from typing import Any

import pytest

from cortex_devcluster.controllers.autoscaler_algorithm import Decision, History, decide, recommend

SPEC: dict[str, Any] = {"minReplicas": 1, "maxReplicas": 10}
STEPS = {
    "behavior": {
        "scaleUp": {
            "stabilizationWindowSeconds": 60,
            "policies": [{"type": "Percent", "value": 50, "periodSeconds": 15}],
        },
        "scaleDown": {
            "stabilizationWindowSeconds": 0,
            "policies": [{"type": "Percent", "value": 25, "periodSeconds": 15}],
        },
    }
}


@pytest.mark.parametrize(
    ("used", "unknown", "replicas"),
    [
        ([0.2, 0.2], 0, 4),  # Twice the target.
        ([0.104, 0.108], 0, 2),  # Within the tolerance of 10 %.
        ([0.12, 0.12], 0, 3),
        ([0.02, 0.02], 0, 1),
        ([], 2, 2),  # No metrics.
        ([0.2], 1, 2),  # The pod without a metric counts as idle: 0.2 of 0.2 is used.
        ([0.4], 1, 4),
        ([0.05], 1, 2),  # The pod without a metric counts as fully used (0.2).
    ],
)
def test_recommendation_is_usage_divided_by_target(used: list[float], unknown: int, replicas: int) -> None:
    usage = {str(number): cpus for number, cpus in enumerate(used)}
    assert recommend(SPEC, 2, usage, request=0.2, target=0.5, unknown=unknown) == replicas


def step(history: History, now: float, current: int, recommended: int, **spec: Any) -> Decision:
    decision = decide({**SPEC, **spec}, history, now, current, recommended)
    if decision.replicas != current:
        history.changes.append((now, decision.replicas - current))
    return decision


def test_scale_up_is_immediate_and_scale_down_waits_five_minutes() -> None:
    history = History()
    assert step(history, 0, 2, 4).replicas == 4
    for now in range(15, 300, 15):
        decision = step(history, now, 4, 1)
        assert (decision.replicas, decision.able[1]) == (4, "ScaleDownStabilized")
    assert step(history, 301, 4, 1).replicas == 1


def test_policies_limit_the_change_within_their_period() -> None:
    spec = {
        "behavior": {
            **STEPS["behavior"],
            "scaleUp": {**STEPS["behavior"]["scaleUp"], "stabilizationWindowSeconds": 0},
        }
    }
    history = History()
    first = step(history, 0, 4, 10, **spec)
    assert (first.replicas, first.limited[1]) == (6, "ScaleUpLimit")
    assert step(history, 5, 6, 10, **spec).replicas == 6
    assert step(history, 15, 6, 10, **spec).replicas == math.ceil(6 * 1.5)
    down = History()
    assert step(down, 0, 8, 1, **spec).replicas == 6
    assert step(down, 5, 6, 1, **spec).replicas == 6


def test_short_peak_is_ignored_within_the_stabilization_window() -> None:
    history = History()
    assert step(history, 0, 2, 2, **STEPS).replicas == 2
    decision = step(history, 15, 2, 8, **STEPS)
    assert (decision.replicas, decision.able[1]) == (2, "ScaleUpStabilized")
    assert step(history, 61, 2, 8, **STEPS).replicas == 3


def test_bounds_are_applied_and_reported() -> None:
    assert step(History(), 0, 8, 30).limited[1] == "TooManyReplicas"
    low = step(History(), 0, 1, 1, minReplicas=3)
    assert (low.replicas, low.limited[1]) == (3, "TooFewReplicas")


BUSY = """
import http.server, os, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *words): pass
threading.Thread(target=lambda: [None for _ in iter(int, 1)], daemon=True).start()
http.server.ThreadingHTTPServer((os.environ['CORTEX_HOST'], 8080), Handler).serve_forever()
"""


def test_busy_deployment_is_scaled_up_and_status_has_the_reason(kubectl: Any, make: Any) -> None:
    busy = make.deployment("busy")
    container = busy["spec"]["template"]["spec"]["containers"][0]
    container |= {"command": ["python", "-c", BUSY], "resources": {"requests": {"cpu": "100m"}}}
    target = {"type": "Utilization", "averageUtilization": 50}
    hpa = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "busy"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "busy"},
            "minReplicas": 1,
            "maxReplicas": 2,
            "metrics": [
                {
                    "type": "ContainerResource",
                    "containerResource": {"name": "cpu", "container": "main", "target": target},
                }
            ],
        },
    }
    kubectl("apply", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": [busy, hpa]})
    kubectl.until(lambda: kubectl.get("deployment", "busy")["spec"]["replicas"] == 2, timeout=60)

    def is_explained() -> bool:
        status = kubectl.get("hpa", "busy")["status"]
        conditions = {condition["type"]: condition["status"] for condition in status.get("conditions", ())}
        (metric,) = status.get("currentMetrics") or [None]
        return bool(
            status.get("lastScaleTime")
            and (conditions["AbleToScale"], conditions["ScalingActive"]) == ("True", "True")
            # While the second pod starts, or on a busy machine, the average may be lower for a moment.
            and metric
            and metric["containerResource"]["current"]["averageUtilization"] > 50
        )

    kubectl.until(is_explained)
    assert "/50%" in kubectl("get", "hpa", "busy")
    kubectl.until(lambda: "New size: 2" in kubectl("describe", "hpa", "busy"))
