"""Resource to Kubernetes objects: pure functions, one file for each Kubernetes kind."""

from typing import Any

from cortex_api import RealtimeAPI
from cortex_operator.platform import Platform
from cortex_operator.render import configmap, deployment, hpa, service
from cortex_operator.render.names import finish

Object = dict[str, Any]


def render(api: RealtimeAPI, platform: Platform, source: Object | None) -> list[Object]:
    """Every child of an API, in the order in which they are applied.

    source: the ConfigMap that `handler.source.configMap` names, as it is in the cluster: its content is part of
    what the pods are.
    """
    config = configmap.config(api)
    code = configmap.code(api)
    children = [config, *([code] if code else []), deployment.render(api, platform, config, code or source)]
    children.append(service.render(api))
    if autoscaler := hpa.render(api):
        children.append(autoscaler)
    return [finish(api, child) for child in children]


__all__ = ["Object", "render"]
