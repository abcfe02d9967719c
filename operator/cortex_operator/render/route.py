"""The route to an API from outside of the cluster: an HTTPRoute or Ingress that strips the endpoint from the path."""

from typing import Any

from cortex_api import AsyncAPI, RealtimeAPI
from cortex_api.contract import PORT
from cortex_operator.platform import GatewayRef, IngressRef, Platform
from cortex_operator.render.names import child_name, url

Object = dict[str, Any]


def endpoint(api: RealtimeAPI | AsyncAPI) -> str:
    """Return the path prefix of an API, without a trailing slash."""
    return (api.spec.networking.endpoint or f"/{api.metadata.name}").rstrip("/")


def render(api: RealtimeAPI | AsyncAPI, platform: Platform) -> Object | None:
    """Return the route; None where the platform has neither a Gateway nor an ingress class."""
    if platform.gateway is not None:
        return _http_route(api, platform.gateway)
    if platform.ingress is not None:
        return _ingress(api, platform.ingress)
    return None


def best_url(api: RealtimeAPI | AsyncAPI, platform: Platform, routed: bool) -> str:
    """Return the URL for clients: the external one if the API has an accepted route and the host is known."""
    outside = platform.gateway or platform.ingress
    if routed and outside is not None and outside.hostname:
        return f"{outside.scheme}://{outside.hostname}{endpoint(api)}"
    return url(api)


def _http_route(api: RealtimeAPI | AsyncAPI, gateway: GatewayRef) -> Object:
    rewrite = {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}
    # For applications that write their URLs into responses, such as a FastAPI application that the handler mounts.
    prefix = {"set": [{"name": "X-Forwarded-Prefix", "value": endpoint(api)}]}
    spec: Object = {
        "parentRefs": [parent_ref(gateway, gateway.section_name)],
        "rules": [
            {
                "matches": [{"path": {"type": "PathPrefix", "value": endpoint(api)}}],
                "filters": [
                    {"type": "URLRewrite", "urlRewrite": rewrite},
                    {"type": "RequestHeaderModifier", "requestHeaderModifier": prefix},
                ],
                "backendRefs": [{"kind": "Service", "name": child_name(api), "port": PORT}],
            }
        ],
    }
    if gateway.hostname:
        spec["hostnames"] = [gateway.hostname]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": child_name(api)},
        "spec": spec,
    }


def parent_ref(gateway: GatewayRef, section_name: str | None) -> Object:
    """Return the reference from a route to a listener of the Gateway; section_name None: to all listeners."""
    section = {"sectionName": section_name} if section_name else {}
    return {
        "group": "gateway.networking.k8s.io",
        "kind": "Gateway",
        "name": gateway.name,
        **section,
        "namespace": gateway.namespace,
    }


def _ingress(api: RealtimeAPI | AsyncAPI, ingress: IngressRef) -> Object:
    """Return the Ingress. It cannot express prefix stripping, so the annotations of the controller do, with {endpoint}
    replaced."""
    backend = {"service": {"name": child_name(api), "port": {"number": PORT}}}
    path = ingress.path.replace("{endpoint}", endpoint(api))
    rule: Object = {"http": {"paths": [{"path": path, "pathType": ingress.path_type, "backend": backend}]}}
    if ingress.hostname:
        rule["host"] = ingress.hostname
    annotations = {
        key: value.replace("{endpoint}", endpoint(api)) for key, value in ingress.annotations.items()
    }
    spec: Object = {"ingressClassName": ingress.class_name, "rules": [rule]}
    if ingress.tls_secret_name:
        spec["tls"] = [
            {
                "secretName": ingress.tls_secret_name,
                **({"hosts": [ingress.hostname]} if ingress.hostname else {}),
            }
        ]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": child_name(api), "annotations": annotations},
        "spec": spec,
    }
