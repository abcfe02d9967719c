"""The APIs of a cluster as the commands see them: the resource, its pods, and what its replicas say of themselves."""

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cortex_api import GROUP, KINDS, VERSION
from cortex_api.contract import ADMIN_PORT, API_LABEL, KIND_LABEL, PORT, object_name, pod_selector
from cortex_cli.connection import Cluster, ClusterError, Object, path
from cortex_cli.traffic import Traffic, add_up

NO_KEY = "it asks for a key, and was shown no valid one"
_AT_ONCE = 16


@dataclass(frozen=True)
class API:
    """A RealtimeAPI or AsyncAPI as the cluster has it."""

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
        """The condition; with status Unknown while the operator has written none."""
        for condition in self.status.get("conditions") or ():
            if condition["type"] == "Ready":
                return dict(condition)
        return {"status": "Unknown", "reason": "", "message": "no operator has looked at it yet"}

    @property
    def outdated(self) -> bool:
        """Whether the status speaks of an older spec."""
        return bool(self.status.get("observedGeneration", 0) < self.live["metadata"].get("generation", 0))

    @property
    def service(self) -> str:
        """Name of its Service, and of its Deployment."""
        return object_name(self.name)

    @property
    def selector(self) -> str:
        """The labels of its pods, workers and gateway alike."""
        return pod_selector(self.name, self.kind)


@dataclass(frozen=True)
class Replicas:
    """What the pods of an API say.

    silent: pods that are ready and gave no numbers, with the reason. untold: why none told of its models, or "".
    """

    traffic: Traffic = field(default_factory=Traffic)
    info: Object | None = None
    silent: dict[str, str] = field(default_factory=dict)
    untold: str = ""


def resource(kind: str) -> str:
    """As `connection.path` wants it."""
    return f"{GROUP}/{VERSION}/{KINDS[kind].plural}"


def every(cluster: Cluster, namespace: str | None = None) -> list[API]:
    """All APIs of a namespace (of all, when ""), by name. Raises ClusterError."""
    found: list[API] = []
    for kind in KINDS:
        try:
            listed = cluster.list(resource(kind), namespace)
        except ClusterError as error:
            if error.status == 404:
                raise ClusterError(_NO_CRDS) from error
            raise
        # The items of a list need not say their kind.
        found += [API({**live, "kind": kind}) for live in listed]
    return sorted(found, key=lambda api: (api.namespace, api.name, api.kind))


def find(cluster: Cluster, name: str) -> API:
    """One API by its name, or by KIND/NAME when both kinds have it. Raises ClusterError."""
    kind, _, plain = name.rpartition("/")
    kinds = [
        k for k in KINDS if not kind or kind.lower() in (k.lower(), KINDS[k].plural, KINDS[k].short_name)
    ]
    if not kinds:
        raise ClusterError(f"there is no kind {kind}: {' and '.join(KINDS)} are what there is")
    found = []
    for one in kinds:
        try:
            found.append(API(cluster.get(path(resource(one), cluster.namespace, plain))))
        except ClusterError as error:
            if error.status != 404:
                raise
    if len(found) > 1:
        raise ClusterError(
            f"both kinds have a {plain}: say {' or '.join(f'{api.kind}/{plain}' for api in found)}"
        )
    if found:
        return found[0]
    there = every(cluster)
    known = ", ".join(api.name for api in there) or "none"
    raise ClusterError(f"there is no API {plain} in namespace {cluster.namespace} (there are: {known})")


def pods(cluster: Cluster, api: API) -> list[Object]:
    """Its pods, by name."""
    found = cluster.list("v1/pods", api.namespace, labelSelector=api.selector)
    return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))


def belongs(pod: Object, api: API) -> bool:
    """Whether a pod is one of an API's."""
    labels = pod["metadata"].get("labels") or {}
    mine = (labels.get(API_LABEL), labels.get(KIND_LABEL)) == (api.name, api.kind)
    return mine and bool(pod["metadata"].get("namespace") == api.namespace)


def is_ready(pod: Object) -> bool:
    """Whether a pod answers."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def ask(
    cluster: Cluster, found: Iterable[Object], info: bool = True, headers: dict[str, str] | None = None
) -> Replicas:
    """What the ready ones of these pods say of their requests, and with info of their models; asked at the same time.

    headers: what they are shown besides by who asks for their models, as a key.
    """
    ready = [pod for pod in found if is_ready(pod)]
    texts: list[str] = []
    silent: dict[str, str] = {}

    def metrics(pod: Object) -> str:
        return through(cluster, pod, ADMIN_PORT, "metrics").decode(errors="replace")

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        asked = [(pod["metadata"]["name"], threads.submit(metrics, pod)) for pod in ready]
        models = threads.submit(_info, cluster, ready, headers or {}) if info else None
        for name, answer in asked:
            try:
                texts.append(answer.result())
            except ClusterError as error:
                silent[name] = error.message
        told, untold = models.result() if models else (None, "")
        return Replicas(add_up(texts), told, silent, untold)


def through(
    cluster: Cluster, pod: Object, port: int, where: str, headers: dict[str, str] | None = None
) -> bytes:
    """What a pod answers with success on a port. Raises ClusterError, with the status of another answer."""
    meta = pod["metadata"]
    place = path("v1/pods", meta["namespace"], f"{meta['name']}:{port}", f"proxy/{where}")
    answer = cluster.request("GET", place, headers=headers, timeout=10)
    if answer.status != 200:
        raise ClusterError(f"it answered {answer.status} on port {port}", status=answer.status)
    return answer.body


def _info(cluster: Cluster, ready: list[Object], headers: dict[str, str]) -> tuple[Object | None, str]:
    """What one of the pods that serve says of its models, or None and why the last of them doesn't."""
    why = ""
    for pod in ready:
        try:
            found = json.loads(through(cluster, pod, PORT, "info", headers))
        except ClusterError as error:
            why = NO_KEY if error.status == 401 else error.message
        except ValueError:
            why = f"what it answered on port {PORT} is no JSON"
        else:
            if isinstance(found, dict):
                return found, ""
    return None, why


def age(moment: str | None) -> str:
    """How long ago, as kubectl writes it."""
    if not moment:
        return ""
    seconds = max(0, int((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()))
    for size, unit, next_up in ((1, "s", 120), (60, "m", 120), (3600, "h", 48), (86400, "d", 10**9)):
        if seconds < size * next_up:
            return f"{seconds // size}{unit}"
    return ""


_NO_CRDS = (
    "this cluster knows no RealtimeAPIs and AsyncAPIs: Cortex isn't installed on it, or it is the wrong cluster"
    " (helm install cortex charts/cortex installs it)"
)


def wanted(api: API) -> Any:
    """The number of replicas that there should be, or None when nobody has said yet."""
    scaling = api.status.get("autoscaling") or {}
    if scaling.get("desired") is not None:
        return scaling["desired"]
    spec = api.live["spec"]
    if spec.get("paused"):
        return 0
    if spec.get("autoscaling") is not None:
        return api.status.get("replicas")
    return spec.get("replicas", 1)
