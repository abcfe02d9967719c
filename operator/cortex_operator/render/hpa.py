"""The HorizontalPodAutoscaler of an API that scales on CPU."""

from typing import Any

from cortex_api import AsyncAPI, RealtimeAPI
from cortex_api.contract import API, HANDLER_CONTAINER
from cortex_api.units import seconds
from cortex_operator.capabilities import Capabilities
from cortex_operator.render.names import child_name

SYNC_PERIOD = 15  # seconds between two decisions of the HPA controller; one step of Cortex's factors


def render(
    api: RealtimeAPI | AsyncAPI, capabilities: Capabilities, component: str = API
) -> dict[str, Any] | None:
    """Return the HPA; None when the API does not scale on CPU.

    Each scaling factor becomes a Percent policy for one sync period: 1.5 allows 50 % more, rounded up; 0.75 allows 25 % less, at
    least one replica. Tolerances are set where the API server supports the field.
    """
    scaling = api.spec.autoscaling
    if scaling is None or scaling.target_cpu_utilization is None or api.spec.paused:
        return None
    up = _rules(scaling.upscale_stabilization_period, scaling.max_upscale_factor - 1)
    down = _rules(scaling.downscale_stabilization_period, 1 - scaling.max_downscale_factor)
    if capabilities.hpa_tolerance:
        up["tolerance"] = f"{scaling.upscale_tolerance:g}"
        down["tolerance"] = f"{scaling.downscale_tolerance:g}"
    target = {"type": "Utilization", "averageUtilization": scaling.target_cpu_utilization}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": child_name(api, component)},
        "spec": {
            "scaleTargetRef": {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "name": child_name(api, component),
            },
            "minReplicas": max(1, scaling.min_replicas),
            "maxReplicas": scaling.max_replicas,
            "metrics": [
                {
                    "type": "ContainerResource",
                    "containerResource": {"name": "cpu", "container": HANDLER_CONTAINER, "target": target},
                }
            ],
            "behavior": {"scaleUp": up, "scaleDown": down},
        },
    }


def _rules(stabilization: str, share: float) -> dict[str, Any]:
    return {
        "stabilizationWindowSeconds": min(3600, round(seconds(stabilization))),
        "policies": [{"type": "Percent", "value": max(1, round(share * 100)), "periodSeconds": SYNC_PERIOD}],
    }
