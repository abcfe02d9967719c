"""Tables: the columns of `kubectl get`, of built-in kinds and from the printer columns of CRDs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cortex_devcluster.apiserver.resources import Resource
from cortex_devcluster.objects import Object, format_age, nested
from cortex_devcluster.selectors import jsonpath


@dataclass(frozen=True)
class Column:
    """A column. cell: returns the value for an object. wide: shown only with `-o wide`."""

    title: str
    cell: Callable[[Object], Any]
    wide: bool = False
    type: str = "string"


def _field(path: str, missing: Any = "<none>") -> Callable[[Object], Any]:
    def cell(obj: Object) -> Any:
        value = nested(obj, path)
        return missing if value in (None, "") else value

    return cell


def _age(obj: Object) -> str:
    return format_age(obj["metadata"].get("creationTimestamp"))


def _format_labels(labels: Object | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or "<none>"


def pod_status(pod: Object) -> str:
    """Return the STATUS of a pod in kubectl: its phase, or the reason why a container waits or exited."""
    status = pod.get("status") or {}
    reason = status.get("reason") or status.get("phase") or "Unknown"
    starting = status.get("initContainerStatuses") or ()
    for index, container in enumerate(starting):
        state = container.get("state") or {}
        ended = state.get("terminated")
        if ended and ended.get("exitCode") == 0:
            continue
        word = (ended or state.get("waiting") or {}).get("reason")
        if word and word != "PodInitializing":
            return f"Init:{word}"
        return f"Init:{index}/{len(starting)}"
    for container in status.get("containerStatuses") or ():
        state = container.get("state") or {}
        word = (state.get("waiting") or state.get("terminated") or {}).get("reason")
        if word:
            reason = word
    return "Terminating" if pod["metadata"].get("deletionTimestamp") else reason


def _pod_ready(pod: Object) -> str:
    statuses = nested(pod, "status.containerStatuses") or ()
    return f"{sum(bool(s.get('ready')) for s in statuses)}/{len(pod['spec']['containers'])}"


def _restarts(pod: Object) -> str:
    statuses = nested(pod, "status.containerStatuses") or ()
    count = sum(s.get("restartCount", 0) for s in statuses)
    ends = [
        s["lastState"]["terminated"]["finishedAt"]
        for s in statuses
        if (s.get("lastState") or {}).get("terminated")
    ]
    return f"{count} ({format_age(max(ends))} ago)" if count and ends else str(count)


def _containers(path: str, field: str) -> Callable[[Object], str]:
    return lambda obj: ",".join(str(c.get(field, "")) for c in nested(obj, path) or ())


def _selector(obj: Object) -> str:
    return _format_labels(nested(obj, "spec.selector.matchLabels"))


def _service_ports(service: Object) -> str:
    return (
        ",".join(
            f"{port['port']}/{port.get('protocol', 'TCP')}" for port in nested(service, "spec.ports") or ()
        )
        or "<none>"
    )


def _ready_of(path: str) -> Callable[[Object], str]:
    return lambda obj: f"{nested(obj, 'status.readyReplicas') or 0}/{nested(obj, path) or 0}"


def _hpa_targets(hpa: Object) -> str:
    current = nested(hpa, "status.currentMetrics") or ()
    texts = []
    for number, metric in enumerate(nested(hpa, "spec.metrics") or ()):
        goal = nested(metric, "containerResource.target.averageUtilization")
        measured = current[number] if number < len(current) else {}
        used = nested(measured, "containerResource.current.averageUtilization")
        name = nested(metric, "containerResource.name") or metric["type"]
        texts.append(f"{name}: {'<unknown>' if used is None else f'{used}%'}/{goal}%")
    return ", ".join(texts) or "<none>"


def _node_status(node: Object) -> str:
    ready = jsonpath(node, '.status.conditions[?(@.type=="Ready")].status')
    return "Ready" if ready == ["True"] else "NotReady"


def _keys(obj: Object) -> int:
    return len(obj.get("data") or ()) + len(obj.get("binaryData") or ())


def _last_seen(event: Object) -> str:
    return format_age(
        event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp")
    )


def _event_object(event: Object) -> str:
    source = event.get("involvedObject") or {}
    return f"{str(source.get('kind', '')).lower()}/{source.get('name', '')}"


NAME = Column("Name", _field("metadata.name"))
AGE = Column("Age", _age)
_CONTAINERS = "spec.template.spec.containers"
_WORKLOAD = (
    Column("Containers", _containers(_CONTAINERS, "name"), wide=True),
    Column("Images", _containers(_CONTAINERS, "image"), wide=True),
    Column("Selector", _selector, wide=True),
)

TABLES: dict[str, Sequence[Column]] = {
    "/pods": (
        NAME,
        Column("Ready", _pod_ready),
        Column("Status", pod_status),
        Column("Restarts", _restarts),
        AGE,
        Column("IP", _field("status.podIP"), wide=True),
        Column("Node", _field("spec.nodeName"), wide=True),
        Column("Nominated Node", _field("status.nominatedNodeName"), wide=True),
        Column("Readiness Gates", lambda pod: "<none>", wide=True),
    ),
    "apps/deployments": (
        NAME,
        Column("Ready", _ready_of("spec.replicas")),
        Column("Up-to-date", _field("status.updatedReplicas", 0), type="integer"),
        Column("Available", _field("status.availableReplicas", 0), type="integer"),
        AGE,
        *_WORKLOAD,
    ),
    "apps/replicasets": (
        NAME,
        Column("Desired", _field("spec.replicas", 0), type="integer"),
        Column("Current", _field("status.replicas", 0), type="integer"),
        Column("Ready", _field("status.readyReplicas", 0), type="integer"),
        AGE,
        *_WORKLOAD,
    ),
    "/services": (
        NAME,
        Column("Type", _field("spec.type")),
        Column("Cluster-IP", _field("spec.clusterIP")),
        Column("External-IP", lambda service: "<none>"),
        Column("Port(s)", _service_ports),
        AGE,
        Column("Selector", lambda service: _format_labels(nested(service, "spec.selector")), wide=True),
    ),
    "/configmaps": (NAME, Column("Data", _keys, type="integer"), AGE),
    "/secrets": (NAME, Column("Type", _field("type", "Opaque")), Column("Data", _keys, type="integer"), AGE),
    "/namespaces": (NAME, Column("Status", _field("status.phase")), AGE),
    "/nodes": (
        NAME,
        Column("Status", _node_status),
        Column("Roles", lambda node: "<none>"),
        AGE,
        Column("Version", _field("status.nodeInfo.kubeletVersion")),
    ),
    "/events": (
        Column("Last Seen", _last_seen),
        Column("Type", _field("type")),
        Column("Reason", _field("reason")),
        Column("Object", _event_object),
        Column("Subobject", _field("involvedObject.fieldPath", ""), wide=True),
        Column("Source", _field("source.component", ""), wide=True),
        Column("Message", lambda e: str(e.get("message", "")).strip()),
        Column("Count", _field("count", 1), wide=True),
        Column("Name", _field("metadata.name"), wide=True),
    ),
    "autoscaling/horizontalpodautoscalers": (
        NAME,
        Column("Reference", lambda h: f"{nested(h, 'spec.scaleTargetRef.kind')}/{nested(h, 'spec.scaleTargetRef.name')}"),
        Column("Targets", _hpa_targets),
        Column("MinPods", _field("spec.minReplicas", "<unset>")),
        Column("MaxPods", _field("spec.maxReplicas", 0), type="integer"),
        Column("Replicas", _field("status.currentReplicas", 0), type="integer"),
        AGE,
    ),
    "coordination.k8s.io/leases": (NAME, Column("Holder", _field("spec.holderIdentity", "")), AGE),
    "apiextensions.k8s.io/customresourcedefinitions": (
        NAME,
        Column("Created At", _field("metadata.creationTimestamp")),
    ),
}  # fmt: skip


def _printer_column(column: Object) -> Column:
    path, kind = column["jsonPath"], column.get("type", "string")

    def cell(obj: Object) -> Any:
        found = jsonpath(obj, path)
        if not found or found[0] is None:
            return None
        if kind == "date":
            return format_age(str(found[0]))
        if kind in ("integer", "number", "boolean"):
            return found[0]
        return ",".join(str(value) for value in found)

    return Column(column["name"], cell, wide=column.get("priority", 0) > 0, type=kind)


def columns(resource: Resource) -> Sequence[Column]:
    if resource.key in TABLES:
        return TABLES[resource.key]
    if resource.columns:
        return (NAME, *(_printer_column(dict(column)) for column in resource.columns))
    return (NAME, AGE)


def table(resource: Resource, objects: Iterable[Object], meta: Object, include: str = "Metadata") -> Object:
    """Return a metav1.Table of objects. include: includeObject of the request."""
    shown = columns(resource)
    rows = []
    for obj in objects:
        row: Object = {"cells": [column.cell(obj) for column in shown]}
        if include == "Object":
            row["object"] = obj
        elif include != "None":
            row["object"] = {
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": obj["metadata"],
            }
        rows.append(row)
    definitions = [
        {
            "name": column.title,
            "type": column.type if column.type != "date" else "string",
            "format": "name" if column.title == "Name" else "",
            "description": "",
            "priority": int(column.wide),
        }
        for column in shown
    ]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": meta,
        "columnDefinitions": definitions,
        "rows": rows,
    }
