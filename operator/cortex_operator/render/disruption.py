"""The PodDisruptionBudgets of an API: a drain evicts its pods one by one."""

from typing import Any

from cortex_api import AsyncAPI, RealtimeAPI
from cortex_api.contract import GATEWAY
from cortex_operator.render.names import child_name, main_component, selector

Object = dict[str, Any]


def render(api: RealtimeAPI | AsyncAPI, component: str | None = None) -> list[Object]:
    """Return a budget for each component that always has two or more replicas. component: the one that runs the handler.

    With a single replica a budget would either have no effect or block drains forever. Pods that are not ready never
    block a drain.
    """
    budgets = []
    if min_available_replicas(api) >= 2:
        budgets.append(_budget(api, component or main_component(api)))
    if isinstance(api, AsyncAPI) and api.spec.gateway.min_replicas >= 2:
        budgets.append(_budget(api, GATEWAY))
    return budgets


def min_available_replicas(api: RealtimeAPI | AsyncAPI) -> int:
    """Return the number of replicas that an API always has."""
    if api.spec.paused:
        return 0
    if api.spec.autoscaling is not None:
        return api.spec.autoscaling.min_replicas
    return 1 if api.spec.replicas is None else api.spec.replicas


def _budget(api: RealtimeAPI | AsyncAPI, component: str) -> Object:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": child_name(api, component)},
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": selector(api, component)},
        },
    }
