"""Render the Kubernetes objects of an API. Pure functions, one module for each kind."""

from typing import Any

from cortex_api import AsyncAPI, RealtimeAPI
from cortex_operator.capabilities import Capabilities
from cortex_operator.platform import Platform
from cortex_operator.render import (
    configmap,
    deployment,
    disruption,
    gateway,
    grpc_route,
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
    """Return the objects of an API in the order in which they are applied: no pod runs before the Service has its name.

    source: the live ConfigMap that `handler.source.configMap` names; a change of its content replaces the pods. routed: whether
    the API has a route for HTTP, which it does not while an older API uses its endpoint.
    """
    config = configmap.config(api, platform)
    code = configmap.code(api, source)
    children: list[Object | None] = [service.render(api), config, code]
    children.append(deployment.render(api, platform, config, code))
    if isinstance(api, AsyncAPI):
        children += [gateway.deployment(api, platform, config), gateway.hpa(api)]
    children.append(hpa.render(api, capabilities or Capabilities()))
    children += disruption.render(api)
    children.append(networkpolicy.render(api, platform))
    children.append(route.render(api, platform) if routed else None)
    children.append(grpc_route.render(api, platform))
    return [finish(api, child, platform.lease_namespace) for child in children if child is not None]


__all__ = ["Object", "render"]
