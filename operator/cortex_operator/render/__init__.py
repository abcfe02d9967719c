"""Resource to Kubernetes objects: pure functions, one file for each Kubernetes kind."""

from typing import Any

from cortex_api import AsyncAPI, RealtimeAPI
from cortex_operator.capabilities import Capabilities
from cortex_operator.platform import Platform
from cortex_operator.render import (
    configmap,
    deployment,
    disruption,
    gateway,
    hpa,
    networkpolicy,
    route,
    service,
)
from cortex_operator.render.names import finish

Object = dict[str, Any]


def render(
    api: RealtimeAPI | AsyncAPI,
    platform: Platform,
    source: Object | None,
    capabilities: Capabilities | None = None,
    routed: bool = True,
) -> list[Object]:
    """Every child of an API, in the order in which they are applied.

    source: the ConfigMap that `handler.source.configMap` names, as it is in the cluster: its content is part of
    what the pods are. routed: whether the endpoint is this API's to have.
    """
    config = configmap.config(api)
    code = configmap.code(api)
    children: list[Object | None] = [config, code, deployment.render(api, platform, config, code or source)]
    if isinstance(api, AsyncAPI):
        children += [gateway.deployment(api, platform, config), gateway.hpa(api)]
    children += [service.render(api), hpa.render(api, capabilities or Capabilities())]
    children += disruption.render(api)
    children.append(networkpolicy.render(api, platform))
    children.append(route.render(api, platform) if routed else None)
    return [finish(api, child, platform.lease_namespace) for child in children if child is not None]


__all__ = ["Object", "render"]
