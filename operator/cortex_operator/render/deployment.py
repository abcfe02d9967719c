"""The Deployment of the pods that run the handler."""

from typing import Any

from cortex_api import AsyncAPI, RealtimeAPI
from cortex_operator.platform import Platform
from cortex_operator.render import pod
from cortex_operator.render.names import child_name, main_component, selector

Object = dict[str, Any]


def render(
    api: RealtimeAPI | AsyncAPI,
    platform: Platform,
    config: Object,
    code: Object | None,
    component: str | None = None,
) -> Object:
    """Return the Deployment. It has `spec.replicas` only while no autoscaler owns the field.

    config, code: the ConfigMaps that the pods read; a change of their content replaces the pods. component: by default the one
    that runs the handler.
    """
    component = component or main_component(api)
    template = pod.template(api, platform, component, config, code)
    return of_component(api, component, template, _strategy(api), fixed_replicas(api))


def of_component(
    api: RealtimeAPI | AsyncAPI, component: str, template: Object, strategy: Object, replicas: int | None
) -> Object:
    """Return the Deployment of one component. replicas: None while an autoscaler owns the field."""
    spec: Object = {
        "selector": {"matchLabels": selector(api, component)},
        "strategy": strategy,
        "progressDeadlineSeconds": 600,
        "revisionHistoryLimit": 3,
        "template": template,
    }
    if replicas is not None:
        spec["replicas"] = replicas
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": child_name(api, component)},
        "spec": spec,
    }


def fixed_replicas(api: RealtimeAPI | AsyncAPI) -> int | None:
    """Return the number of replicas of the spec; None while an autoscaler owns the field."""
    if api.spec.paused:
        return 0
    if api.spec.autoscaling is not None:
        return None
    return 1 if api.spec.replicas is None else api.spec.replicas


def initial_replicas(api: RealtimeAPI | AsyncAPI) -> int:
    """Return the number of replicas that an autoscaled API is created with."""
    scaling = api.spec.autoscaling
    if scaling is None:
        return fixed_replicas(api) or 0
    return scaling.min_replicas if scaling.init_replicas is None else scaling.init_replicas


def _strategy(api: RealtimeAPI | AsyncAPI) -> Object:
    update = api.spec.update_strategy
    if str(update.max_surge) in ("0", "0%") and str(update.max_unavailable) == "100%":
        return {"type": "Recreate"}
    return {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": update.max_surge, "maxUnavailable": update.max_unavailable},
    }
