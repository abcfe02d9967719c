"""Check the platform for `cortex doctor`: CustomResourceDefinitions, operator, its settings, permissions, metrics and gateway.

`read_platform` reads the cluster. `check_platform` is a pure function of the result.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import yaml

from cortex_api import GROUP, KINDS, VERSION, __version__
from cortex_cli import apis
from cortex_cli.apis import API
from cortex_cli.connection import Cluster, ClusterError, Object, path
from cortex_cli.diagnosis import Finding

OPERATOR = "app.kubernetes.io/name=cortex-operator"
"""Label selector of the objects of the Helm chart."""
_VERSION_LABEL = "app.kubernetes.io/version"
_SETTINGS = "platform.yaml"
_GATEWAYS = "gateway.networking.k8s.io/v1/gateways"
_INSTALL = "install Cortex: `helm install cortex charts/cortex`"
Permission = tuple[str, str, str, str, str]
"""Verb, API group, resource, subresource, and what needs them."""
_PERMISSIONS: tuple[Permission, ...] = (
    ("get", GROUP, KINDS["RealtimeAPI"].plural, "", "cortex get and doctor"),
    ("patch", GROUP, KINDS["RealtimeAPI"].plural, "", "kubectl apply"),
    ("list", "", "pods", "", "cortex get, logs and doctor"),
    ("get", "", "pods", "log", "cortex logs"),
    ("get", "", "pods", "proxy", "the metrics of cortex get"),
    ("create", "", "services", "proxy", "cortex predict"),
    ("list", "", "events", "", "the events of cortex doctor"),
)


@dataclass(frozen=True)
class PlatformState:
    """The state of the platform, as far as the user may read it.

    plurals: the resources of our API group that the API server has. crds: our CustomResourceDefinitions that are readable.
    operators: pods of the operator, or None if the user may not list them. settings: the content of the operator's platform
    file, or None if it is not readable. denied: what needs a permission that the user lacks, by permission.
    has_metrics: whether the resource metrics API is served. gateway: the Gateway of the settings; {} if it does not exist,
    None if the user may not read it. namespace: the namespace of the commands.
    """

    plurals: list[str]
    crds: list[Object]
    operators: list[Object] | None
    settings: Object | None
    denied: dict[str, str]
    has_metrics: bool
    gateway: Object | None
    namespace: str


def read_platform(cluster: Cluster) -> PlatformState:
    """Read the state of the platform. Raises ClusterError if the cluster is unreachable or rejects the credentials."""
    try:
        group = cluster.get(f"/apis/{GROUP}/{VERSION}")
    except ClusterError as error:
        if error.status != 404:
            raise
        group = {}
    definitions = "apiextensions.k8s.io/v1/customresourcedefinitions"
    crds = [_get(cluster, path(definitions, "", f"{kind.plural}.{GROUP}")) for kind in KINDS.values()]
    operators = _list(cluster, "v1/pods", "")
    settings = _settings(cluster, {pod["metadata"]["namespace"] for pod in operators or ()})
    return PlatformState(
        [resource["name"] for resource in group.get("resources") or ()],
        [crd for crd in crds if crd],
        operators,
        settings,
        denied(cluster, _PERMISSIONS),
        bool(_get(cluster, "/apis/metrics.k8s.io/v1beta1")),
        _gateway(cluster, settings),
        cluster.namespace,
    )


def check_platform(state: PlatformState, found: list[API]) -> list[Finding]:
    """Return the findings about the platform, good ones included.

    found: the APIs of the cluster, which decide what of the platform is needed.
    """
    return [
        _check_crds(state),
        _check_operator(state, found),
        *_check_queue(state, found),
        *_check_metrics(state, found),
        *_check_gateway(state),
        _check_permissions(state),
    ]


def _check_crds(state: PlatformState) -> Finding:
    expected = {kind.plural for kind in KINDS.values()}
    missing = sorted(expected - set(state.plurals))
    if missing:
        return Finding("bad", "CustomResourceDefinitions", f"missing: {', '.join(missing)}", _INSTALL)
    versions = {_version(crd) for crd in state.crds} - {None, __version__}
    if versions:
        return Finding(
            "note",
            "CustomResourceDefinitions",
            f"are of version {', '.join(sorted(map(str, versions)))}; this command is of version {__version__}",
            f"use one version: `pip install cortex-serving=={min(map(str, versions))}`, or upgrade the chart",
        )
    return Finding("good", "CustomResourceDefinitions", "exist")


def _check_operator(state: PlatformState, found: list[API]) -> Finding:
    if state.operators is None:
        return Finding("note", "Operator", "not checked: you may not list pods in all namespaces")
    ready = [pod for pod in state.operators if apis.is_ready(pod)]
    if not state.operators and any(api.status and not api.is_outdated for api in found):
        return Finding(
            "note", "Operator", "no pod exists, but the APIs are reconciled: it runs outside of this cluster"
        )
    if not state.operators:
        return Finding("bad", "Operator", "no pod exists, so no change is reconciled", _INSTALL)
    namespace = state.operators[0]["metadata"]["namespace"]
    where = f"of {len(state.operators)} pods are ready in namespace {namespace}"
    if not ready:
        return Finding(
            "bad",
            "Operator",
            f"0 {where}, so no change is reconciled",
            f"`kubectl -n {namespace} describe pods -l {OPERATOR}`",
        )
    versions = sorted({str(_version(pod)) for pod in ready if _version(pod)})
    text = f"{len(ready)} {where}" + (f", version {', '.join(versions)}" if versions else "")
    watched = (state.settings or {}).get("watchNamespaces") or []
    if watched and state.namespace not in watched:
        return Finding(
            "bad",
            "Operator",
            f"{text}; it does not watch namespace {state.namespace}, only {', '.join(watched)}",
            "add the namespace to watchNamespaces of the chart, or use another namespace",
        )
    return Finding("good", "Operator", text)


def _check_queue(state: PlatformState, found: list[API]) -> list[Finding]:
    if state.settings is None:
        return []
    url = (state.settings.get("queue") or {}).get("url")
    if url:
        return [Finding("good", "Queue", str(url))]
    if any(api.kind == "AsyncAPI" for api in found):
        return [
            Finding(
                "bad",
                "Queue",
                "not configured, so AsyncAPIs do not run",
                "set queue.url, or nats.enabled, of the chart",
            )
        ]
    return [Finding("note", "Queue", "not configured; only AsyncAPIs need one (queue.url of the chart)")]


def _check_metrics(state: PlatformState, found: list[API]) -> list[Finding]:
    if state.has_metrics:
        return [Finding("good", "Resource metrics", "are served (metrics.k8s.io)")]
    by_cpu = [api.name for api in found if _scales_by_cpu(api)]
    if by_cpu:
        return [
            Finding(
                "bad",
                "Resource metrics",
                f"are not served, so autoscaling by CPU does not work: {', '.join(by_cpu[:5])}",
                "install metrics-server, or scale by targetInFlight",
            )
        ]
    return [
        Finding("note", "Resource metrics", "are not served; only autoscaling by CPU needs metrics-server")
    ]


def _check_gateway(state: PlatformState) -> list[Finding]:
    settings = (state.settings or {}).get("gateway")
    if not settings:
        return []
    subject = f"Gateway {settings.get('namespace')}/{settings.get('name')}"
    if state.gateway is None:
        return [Finding("note", subject, "not checked: you may not read it")]
    if not state.gateway:
        return [
            Finding(
                "bad", subject, "does not exist", "create it, or change gateway in the values of the chart"
            )
        ]
    for condition in (state.gateway.get("status") or {}).get("conditions") or ():
        if condition["type"] == "Programmed" and condition["status"] != "True":
            return [
                Finding(
                    "bad",
                    subject,
                    f"is not programmed: {condition.get('reason')}: {condition.get('message', '')}",
                    "check the controller of the GatewayClass",
                )
            ]
    return [Finding("good", subject, "exists")]


def _check_permissions(state: PlatformState) -> Finding:
    if not state.denied:
        return Finding("good", "Permissions", f"all commands are permitted in namespace {state.namespace}")
    lines = [f"{permission} (needed by {purpose})" for permission, purpose in state.denied.items()]
    return Finding(
        "note",
        "Permissions",
        f"you may not {'; '.join(lines)} in namespace {state.namespace}",
        "ask an administrator for a Role with these permissions",
    )


def _get(cluster: Cluster, url_path: str) -> Object | None:
    """Return an object, {} if it does not exist, or None if the user may not read it."""
    try:
        return cluster.get(url_path)
    except ClusterError as error:
        if error.status in (403, 404):
            return {} if error.status == 404 else None
        raise


def _list(cluster: Cluster, resource: str, namespace: str) -> list[Object] | None:
    """Return the objects of the operator, or None if the user may not list them."""
    try:
        return cluster.list(resource, namespace, labelSelector=OPERATOR)
    except ClusterError as error:
        if error.status == 403:
            return None
        raise


def _settings(cluster: Cluster, namespaces: set[str]) -> Object | None:
    """Return the content of the operator's platform file, or None if it does not exist or the user may not read it."""
    for namespace in sorted(namespaces):
        for config_map in _list(cluster, "v1/configmaps", namespace) or ():
            text = (config_map.get("data") or {}).get(_SETTINGS)
            if text is not None:
                return dict(yaml.safe_load(text) or {})
    return None


def denied(cluster: Cluster, permissions: Iterable[Permission]) -> dict[str, str]:
    """Return the permissions that the user lacks in the default namespace, each with what needs it.

    Empty if the API server does not review access.
    """
    lacking = {}
    for verb, group, resource, sub, purpose in permissions:
        attributes = {"namespace": cluster.namespace, "verb": verb, "group": group, "resource": resource}
        is_allowed = review_access(cluster, attributes | ({"subresource": sub} if sub else {}))
        if is_allowed is None:
            return {}
        if not is_allowed:
            lacking[f"{verb} {resource}{'/' + sub if sub else ''}"] = purpose
    return lacking


def review_access(cluster: Cluster, attributes: dict[str, str]) -> bool | None:
    """Return whether the user has a permission; None if the API server does not review access. Raises ClusterError.

    attributes: resourceAttributes of a SelfSubjectAccessReview.
    """
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    try:
        response = cluster.request(
            "POST",
            path("authorization.k8s.io/v1/selfsubjectaccessreviews"),
            body=json.dumps(review).encode(),
            headers={"content-type": "application/json"},
        )
    except ClusterError as error:
        if error.status in (403, 404):
            return None
        raise
    return bool((json.loads(response.body).get("status") or {}).get("allowed"))


def _gateway(cluster: Cluster, settings: Object | None) -> Object | None:
    reference = (settings or {}).get("gateway")
    if not reference:
        return {}
    return _get(cluster, path(_GATEWAYS, reference["namespace"], reference["name"]))


def _scales_by_cpu(api: API) -> bool:
    autoscaling: Any = api.live["spec"].get("autoscaling") or {}
    return "targetCpuUtilization" in autoscaling


def _version(live: Object) -> str | None:
    return (live["metadata"].get("labels") or {}).get(_VERSION_LABEL)
