"""What the page of one API shows: why it is or isn't ready, its numbers, replicas, models and predictions."""

import json
import time
from dataclasses import dataclass
from typing import Any

from cortex_api import units
from cortex_api.contract import COMPONENT_LABEL, PORT
from cortex_cli import apis, number_text
from cortex_cli.apis import API
from cortex_cli.commands.doctor import observe
from cortex_cli.connection import Cluster, ClusterError, Object, path
from cortex_cli.diagnosis import Finding, diagnose, remedy
from cortex_cli.number_text import NO_DATA, latency_text
from cortex_cli.replica_metrics import Totals, summarize
from cortex_cli.ui.history import Decision, Recent
from cortex_cli.ui.lookups import Lookup, Lookups
from cortex_cli.ui.overview import error_share, latency_of, queue_of, rate_of
from cortex_cli.ui.sampler import Sampler
from cortex_cli.ui.states import Condition, degraded_condition
from cortex_cli.ui.store import Key, Store, key_of

_POD_METRICS = "metrics.k8s.io/v1beta1/pods"
_MAX_CLASSES = 12
_DECISIONS = 8


@dataclass(frozen=True)
class Tile:
    """A number with its name. hint: what it counts."""

    name: str
    value: str
    hint: str = ""
    is_bad: bool = False


@dataclass(frozen=True)
class Replica:
    """A pod. in_flight, cpu and memory are texts."""

    name: str
    component: str
    is_ready: bool
    state: str
    restarts: int
    node: str
    age: str
    in_flight: str
    cpu: str
    memory: str
    problem: str


@dataclass(frozen=True)
class Bar:
    """A class of a classification. share: of all predictions, as a number and as text."""

    name: str
    count: str
    share: float
    share_text: str


@dataclass(frozen=True)
class Predictions:
    """What the tracker has counted since the start of the replicas. more: number of classes that are not shown."""

    bars: list[Bar]
    more: int
    tiles: list[Tile]
    skipped: dict[str, int]


@dataclass(frozen=True)
class Scaling:
    """The autoscaler of an API. sentence: its last decision in words."""

    bounds: str
    metric: str
    provider: str
    sentence: str
    decisions: list[Decision]


class Details:
    """Reads the details of APIs."""

    def __init__(self, cluster: Cluster, store: Store, sampler: Sampler, lookups: Lookups) -> None:
        self._cluster = cluster
        self._store = store
        self._sampler = sampler
        self._lookups = lookups

    def findings(self, api: API) -> Lookup:
        """Return the findings of `cortex doctor`; none for an API of `cortex run`, which has no objects to check."""
        if self._cluster.is_local:
            return Lookup()
        key = ("findings", key_of(api), api.live["metadata"].get("resourceVersion"))
        return self._lookups.get(key, lambda: self._diagnose(api), 10.0, 0.5)

    def _diagnose(self, api: API) -> list[Finding]:
        return diagnose(observe(self._cluster, api, None))

    def models(self, api: API) -> Lookup | None:
        """Return what a replica reports of its models; None for an API without models."""
        if "models" not in api.live["spec"]["handler"]:
            return None
        return self._lookups.get(("info", key_of(api)), lambda: self._info(key_of(api)), 5.0, 0.3)

    def _info(self, key: Key) -> Object | None:
        """Return the response of the first ready replica to GET /info; None without a ready replica."""
        error: ClusterError | None = None
        for pod in apis.stable_replicas(self._store.pods(key)):
            try:
                return dict(json.loads(apis.proxy_get(self._cluster, pod, PORT, "info", timeout=3)))
            except ClusterError as failure:
                error = ClusterError(apis.NO_KEY, status=401) if failure.status == 401 else failure
        if error is not None:
            raise error
        return None

    def replicas(self, api: API) -> list[Replica]:
        """Return the pods of an API."""
        key = key_of(api)
        usage = self._usage(api)
        return [self._replica(key, pod, usage) for pod in self._store.pods(key)]

    def _usage(self, api: API) -> dict[str, tuple[float, float]]:
        """Return CPU cores and bytes of memory by pod, from the resource metrics API; empty if it is not served."""

        def read() -> dict[str, tuple[float, float]]:
            listed = self._cluster.get(path(_POD_METRICS, api.namespace), labelSelector=api.selector)
            return {item["metadata"]["name"]: usage_of(item) for item in listed.get("items") or ()}

        found = self._lookups.get(("usage", key_of(api)), read, 15.0, 0.2)
        return {} if found.error else found.value or {}

    def _replica(self, key: Key, pod: Object, usage: dict[str, tuple[float, float]]) -> Replica:
        status, name = pod.get("status") or {}, pod["metadata"]["name"]
        totals, problem = self._sampler.replica(key, pod["metadata"]["uid"])
        is_ready = apis.is_ready(pod)
        cpu, memory = usage.get(name, (None, None))
        return Replica(
            name,
            str((pod["metadata"].get("labels") or {}).get(COMPONENT_LABEL, "")),
            is_ready,
            pod_state(pod),
            sum(each.get("restartCount", 0) for each in status.get("containerStatuses") or ()),
            str(pod["spec"].get("nodeName") or NO_DATA),
            apis.age(pod["metadata"].get("creationTimestamp")),
            f"{totals.in_flight:,}" if totals and not problem and is_ready else NO_DATA,
            NO_DATA if cpu is None else f"{cpu:.2f}",
            NO_DATA if memory is None else number_text.size(memory),
            problem if is_ready else "",
        )

    def recent(self, api: API) -> Recent:
        """Return the requests of the last minute."""
        return self._sampler.history(key_of(api)).recent(time.time())

    def tiles(self, api: API) -> list[Tile]:
        """Return the numbers of the last minute."""
        history, recent = self._sampler.history(key_of(api)), self.recent(api)
        found, errors = latency_of(api, recent), error_share(api, recent)
        p50, p95, p99 = (
            (latency_text(v, found) for v in (found.p50, found.p95, found.p99)) if found else [NO_DATA] * 3
        )
        _, queue, hint = queue_of(api, history, recent)
        desired = apis.desired_replicas(api)
        ready = int(api.status.get("readyReplicas") or 0)
        is_async = api.kind == "AsyncAPI"
        latency_hint = "submission to end" if is_async else "latency"
        error_hint = "failed jobs" if is_async else "5XX responses"
        return [
            Tile("Jobs" if is_async else "Requests", number_text.rate(rate_of(api, recent)), "last minute"),
            Tile("Failed" if is_async else "Errors", number_text.share(errors), error_hint, bool(errors)),
            *(Tile(name, value, latency_hint) for name, value in (("p50", p50), ("p95", p95), ("p99", p99))),
            Tile("Waiting + running" if is_async else "In flight", queue, hint),
            Tile("Replicas", f"{ready}" if desired is None else f"{ready} / {desired}", "ready / desired"),
        ]

    def predictions(self, api: API) -> Predictions | None:
        """Return what the tracker counted; None without a tracker."""
        if not api.live["spec"].get("tracker"):
            return None
        return predictions_of(self._sampler.totals(key_of(api)) or Totals())

    def scaling(self, api: API, since: float) -> Scaling | None:
        """Return the state of the autoscaler; None without one."""
        spec, status = api.live["spec"].get("autoscaling"), api.status.get("autoscaling") or {}
        if spec is None:
            return None
        return Scaling(
            f"{spec.get('minReplicas', 1)} to {spec.get('maxReplicas', 100)} replicas",
            _target(spec, api.kind),
            str(status.get("provider") or ""),
            str(status.get("reason") or ""),
            self._sampler.history(key_of(api)).decisions(since)[: -_DECISIONS - 1 : -1],
        )


def advice(api: API, condition: Condition) -> str:
    """Return what to do about the state of an API, or ""."""
    if condition.state == "ready":
        return ""
    if condition.state == "degraded":
        degraded = degraded_condition(api)
        return remedy(degraded["reason"], api.name, condition.message) if degraded else ""
    return remedy(str(api.ready.get("reason") or ""), api.name, condition.message)


def predictions_of(totals: Totals) -> Predictions:
    """Return the counts of a tracker as bars, or as numbers for a regression."""
    total = sum(totals.predictions.values())
    bars = [
        Bar(name, f"{count:,}", count / total, number_text.share(count / total))
        for name, count in totals.predictions.most_common(_MAX_CLASSES)
        if count
    ]
    tiles = []
    if (values := summarize(totals).values) is not None:
        tiles = [
            Tile("Average", f"{values.average:.4g}"),
            Tile("Minimum", f"{values.minimum:.4g}"),
            Tile("Maximum", f"{values.maximum:.4g}"),
            Tile("Predictions", f"{values.count:,}"),
        ]
    return Predictions(bars, max(0, len(totals.predictions) - _MAX_CLASSES), tiles, dict(totals.skipped))


def pod_state(pod: Object) -> str:
    """Return the state of a pod in words."""
    if pod["metadata"].get("deletionTimestamp"):
        return "Terminating"
    if apis.is_ready(pod):
        return "Ready"
    status = pod.get("status") or {}
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        state = container.get("state") or {}
        waiting = (state.get("waiting") or {}).get("reason")
        if waiting and waiting not in ("ContainerCreating", "PodInitializing"):
            return str(waiting)
        if (state.get("terminated") or {}).get("exitCode"):
            return f"Exited with {state['terminated']['exitCode']}"
    return "Starting" if status.get("phase") in (None, "Pending", "Running") else str(status["phase"])


def usage_of(item: Object) -> tuple[float, float]:
    """Return CPU cores and bytes of memory of a PodMetrics object."""
    cpu = sum(_cores(container["usage"].get("cpu", "0")) for container in item.get("containers") or ())
    memory = sum(
        float(units.parse_bytes(container["usage"].get("memory", "0")))
        for container in item.get("containers") or ()
    )
    return cpu, memory


def _cores(quantity: str) -> float:
    for suffix, factor in (("n", 1e-9), ("u", 1e-6), ("m", 1e-3)):
        if quantity.endswith(suffix):
            return float(quantity[:-1]) * factor
    return float(quantity)


def _target(spec: dict[str, Any], kind: str) -> str:
    if "targetCpuUtilization" in spec:
        return f"target: {spec['targetCpuUtilization']}% CPU"
    unit = "jobs" if kind == "AsyncAPI" else "requests in flight"
    return f"target: {spec['targetInFlight']} {unit} for each replica" if "targetInFlight" in spec else ""
