"""Read the APIs of a cluster: the resource, its pods, and the metrics and models that its replicas report."""

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cortex_api import GROUP, KINDS, VERSION
from cortex_api.contract import (
    ADMIN_PORT,
    API_LABEL,
    CANDIDATE,
    COMPONENT_LABEL,
    KIND_LABEL,
    PORT,
    object_name,
    pod_selector,
)
from cortex_cli.connection import Cluster, ClusterError, Object, path
from cortex_cli.replica_metrics import Traffic, sum_metrics

NO_KEY = "it requires an API key, and no valid key was sent"
_MAX_THREADS = 16


@dataclass(frozen=True)
class API:
    """A RealtimeAPI or AsyncAPI in the cluster.

    live: the object, as returned by the API server.
    """

    live: Object

    @property
    def kind(self) -> str:
        return str(self.live["kind"])

    @property
    def name(self) -> str:
        return str(self.live["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.live["metadata"]["namespace"])

    @property
    def status(self) -> Object:
        return self.live.get("status") or {}

    @property
    def ready(self) -> Object:
        """The condition Ready, or a condition with status Unknown if the operator has not written one."""
        for condition in self.status.get("conditions") or ():
            if condition["type"] == "Ready":
                return dict(condition)
        return {"status": "Unknown", "reason": "", "message": "the operator has not reconciled the API yet"}

    @property
    def is_outdated(self) -> bool:
        """Whether the status refers to an older generation of the spec."""
        return bool(self.status.get("observedGeneration", 0) < self.live["metadata"].get("generation", 0))

    @property
    def service(self) -> str:
        """Name of the Service and of the Deployment."""
        return object_name(self.name)

    @property
    def selector(self) -> str:
        """Label selector of all pods of the API, including the gateway."""
        return pod_selector(self.name, self.kind)


@dataclass(frozen=True)
class Replicas:
    """Metrics and models that the ready pods of an API report.

    unreachable: error message by pod name, for each ready pod whose metrics could not be read.
    info_error: why no pod returned its models, or "".
    """

    traffic: Traffic = field(default_factory=Traffic)
    info: Object | None = None
    unreachable: dict[str, str] = field(default_factory=dict)
    info_error: str = ""


def resource(kind: str) -> str:
    """Return the resource of a kind in the format of `connection.path`."""
    return f"{GROUP}/{VERSION}/{KINDS[kind].plural}"


def list_all(cluster: Cluster, namespace: str | None = None) -> list[API]:
    """Return all APIs of a namespace ("" for all namespaces), sorted by name. Raises ClusterError."""
    found: list[API] = []
    for kind in KINDS:
        try:
            listed = cluster.list(resource(kind), namespace)
        except ClusterError as error:
            if error.status == 404:
                raise ClusterError(_NO_CRDS) from error
            raise
        # The API server may omit the kind of list items.
        found += [API({**live, "kind": kind}) for live in listed]
    return sorted(found, key=lambda api: (api.namespace, api.name, api.kind))


def find(cluster: Cluster, name: str) -> API:
    """Return an API by NAME, or by KIND/NAME if both kinds have an API with the name. Raises ClusterError."""
    kind, _, plain = name.rpartition("/")
    kinds = [
        k for k in KINDS if not kind or kind.lower() in (k.lower(), KINDS[k].plural, KINDS[k].short_name)
    ]
    if not kinds:
        raise ClusterError(f"unknown kind {kind}; expected one of {', '.join(KINDS)}")
    found = []
    for one in kinds:
        try:
            found.append(API(cluster.get(path(resource(one), cluster.namespace, plain))))
        except ClusterError as error:
            if error.status != 404:
                raise
    if len(found) > 1:
        raise ClusterError(
            f"both kinds have an API {plain}; use {' or '.join(f'{api.kind}/{plain}' for api in found)}"
        )
    if found:
        return found[0]
    existing = ", ".join(api.name for api in list_all(cluster)) or "none"
    raise ClusterError(f"no API {plain} in namespace {cluster.namespace} (existing: {existing})")


def pods(cluster: Cluster, api: API) -> list[Object]:
    """Return the pods of an API, sorted by name."""
    found = cluster.list("v1/pods", api.namespace, labelSelector=api.selector)
    return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))


def belongs_to(pod: Object, api: API) -> bool:
    """Return whether a pod belongs to an API."""
    labels = pod["metadata"].get("labels") or {}
    has_labels = (labels.get(API_LABEL), labels.get(KIND_LABEL)) == (api.name, api.kind)
    return has_labels and bool(pod["metadata"].get("namespace") == api.namespace)


def is_candidate(pod: Object) -> bool:
    """Return whether a pod belongs to the candidate of its API. Stable pods forward requests to it, and count them."""
    return bool((pod["metadata"].get("labels") or {}).get(COMPONENT_LABEL) == CANDIDATE)


def stable_replicas(pods: Iterable[Object]) -> list[Object]:
    """Return the ready pods, except those of a candidate."""
    return [pod for pod in pods if is_ready(pod) and not is_candidate(pod)]


def is_ready(pod: Object) -> bool:
    """Return whether a pod is ready."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def query_replicas(
    cluster: Cluster, pods: Iterable[Object], info: bool = True, headers: dict[str, str] | None = None
) -> Replicas:
    """Read the metrics, and with `info` the models, of all ready pods concurrently, except those of a candidate.

    headers: additional headers for the request for models, such as an API key.
    """
    ready = stable_replicas(pods)
    texts: list[str] = []
    unreachable: dict[str, str] = {}

    def metrics(pod: Object) -> str:
        return proxy_get(cluster, pod, ADMIN_PORT, "metrics").decode(errors="replace")

    with ThreadPoolExecutor(_MAX_THREADS) as threads:
        futures = [(pod["metadata"]["name"], threads.submit(metrics, pod)) for pod in ready]
        info_future = threads.submit(_query_info, cluster, ready, headers or {}) if info else None
        for name, future in futures:
            try:
                texts.append(future.result())
            except ClusterError as error:
                unreachable[name] = error.message
        content, info_error = info_future.result() if info_future else (None, "")
        return Replicas(sum_metrics(texts), content, unreachable, info_error)


def proxy_get(
    cluster: Cluster,
    pod: Object,
    port: int,
    url_path: str,
    headers: dict[str, str] | None = None,
    timeout: float = 10,
) -> bytes:
    """Send GET to a port of a pod through the API server. Raises ClusterError if the status is not 200. timeout: in seconds."""
    meta = pod["metadata"]
    proxy_path = path("v1/pods", meta["namespace"], f"{meta['name']}:{port}", f"proxy/{url_path}")
    response = cluster.request("GET", proxy_path, headers=headers, timeout=timeout)
    if response.status != 200:
        raise ClusterError(f"status {response.status} from port {port}", status=response.status)
    return response.body


def _query_info(cluster: Cluster, ready: list[Object], headers: dict[str, str]) -> tuple[Object | None, str]:
    """Return the models that the first responding pod reports, or None and the last error message."""
    error_text = ""
    for pod in ready:
        try:
            content = json.loads(proxy_get(cluster, pod, PORT, "info", headers))
        except ClusterError as error:
            error_text = NO_KEY if error.status == 401 else error.message
        except ValueError:
            error_text = f"the response from port {PORT} is not valid JSON"
        else:
            if isinstance(content, dict):
                return content, ""
    return None, error_text


def age(timestamp: str | None) -> str:
    """Format the time since a timestamp like kubectl."""
    if not timestamp:
        return ""
    seconds = max(0, int((datetime.now(UTC) - datetime.fromisoformat(timestamp)).total_seconds()))
    for size, unit, limit in ((1, "s", 120), (60, "m", 120), (3600, "h", 48), (86400, "d", 10**9)):
        if seconds < size * limit:
            return f"{seconds // size}{unit}"
    return ""


_NO_CRDS = (
    "Cortex is not installed in this cluster; install it with `helm install cortex charts/cortex`, or select another"
    " cluster with --context"
)


def desired_replicas(api: API) -> Any:
    """Return the desired number of replicas, or None if it is not known yet."""
    scaling = api.status.get("autoscaling") or {}
    if scaling.get("desired") is not None:
        return scaling["desired"]
    spec = api.live["spec"]
    if spec.get("paused"):
        return 0
    if spec.get("autoscaling") is not None:
        return api.status.get("replicas")
    return spec.get("replicas", 1)
