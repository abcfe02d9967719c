"""The gateway of an AsyncAPI, which accepts jobs and returns results: its Deployment and HPA."""

from typing import Any

from cortex_api import AsyncAPI
from cortex_api.contract import GATEWAY, GATEWAY_CONTAINER
from cortex_operator.platform import Platform
from cortex_operator.render import pod
from cortex_operator.render.deployment import of_component
from cortex_operator.render.names import child_name

Object = dict[str, Any]

CPU_TARGET = 80  # percent of the request


def deployment(api: AsyncAPI, platform: Platform, config: Object) -> Object:
    """Return the Deployment. Pods are replaced one by one, and each new pod is ready before an old one stops."""
    template = pod.template(api, platform, GATEWAY, config, None)
    one_by_one = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    return of_component(api, GATEWAY, template, one_by_one, fixed_replicas(api))


def fixed_replicas(api: AsyncAPI) -> int | None:
    """Return the number of replicas; None while the HPA owns the field. A paused API still accepts jobs and returns results."""
    bounds = api.spec.gateway
    return bounds.min_replicas if bounds.min_replicas == bounds.max_replicas else None


def hpa(api: AsyncAPI) -> Object | None:
    """Return the HPA on CPU; None where the number of replicas is fixed."""
    if fixed_replicas(api) is not None:
        return None
    name = child_name(api, GATEWAY)
    target = {"type": "Utilization", "averageUtilization": CPU_TARGET}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": api.spec.gateway.min_replicas,
            "maxReplicas": api.spec.gateway.max_replicas,
            "metrics": [
                {
                    "type": "ContainerResource",
                    "containerResource": {"name": "cpu", "container": GATEWAY_CONTAINER, "target": target},
                }
            ],
        },
    }


def initial_replicas(api: AsyncAPI) -> int:
    """Return the number of replicas that an autoscaled gateway is created with."""
    return api.spec.gateway.min_replicas
