"""The live objects in each situation of cortex_api.situations."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from cortex_api import AsyncAPI, RealtimeAPI, parse
from cortex_api.contract import TEMPLATE_LABEL
from cortex_operator.autoscaling.autoscaler import ObservedScaling, State
from cortex_operator.replicas.reports import Report, WorkerFailure
from cortex_operator.status.conditions import Component, Observed, Problem
from cortex_operator.status.status import compute, compute_rejected

Object = dict[str, Any]

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
GENERATION = 2


def at(seconds_ago: float) -> str:
    return (NOW - timedelta(seconds=seconds_ago)).strftime("%Y-%m-%dT%H:%M:%SZ")


def resource(kind: str = "RealtimeAPI", status: Object | None = None, **spec: Any) -> Object:
    handler = {"type": "python", "path": "h.py", "source": {"files": {"h.py": "x"}}}
    metadata = {"name": "a", "namespace": "n", "uid": "u", "generation": GENERATION}
    live: Object = {"apiVersion": "cortex.dev/v1alpha1", "kind": kind, "metadata": metadata}
    return {**live, "spec": {"handler": handler, **spec}, **({"status": status} if status else {})}


def deployment(replicas: int = 1, template: str = "new", **status: Any) -> Object:
    return {
        "spec": {"replicas": replicas, "template": {"metadata": {"labels": {TEMPLATE_LABEL: template}}}},
        "status": status,
    }


def pod(name: str = "p", template: str = "new", **more: Any) -> Object:
    """Return a pod whose container is starting."""
    running = {"name": "api", "image": "i:1", "started": False, "state": {"running": {"startedAt": at(600)}}}
    status = {
        "conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady"}],
        "containerStatuses": [running],
        **more,
    }
    metadata = {"name": name, "labels": {TEMPLATE_LABEL: template}}
    return {
        "metadata": metadata,
        "spec": {"nodeName": "n1", "containers": [{"name": "api"}]},
        "status": status,
    }


def ready(name: str = "p", template: str = "new", since: float = 500, **more: Any) -> Object:
    found = pod(
        name,
        template,
        conditions=[condition("Ready", "True", since), condition("ContainersReady", "True", since)],
    )
    found["status"]["containerStatuses"][0] |= {"started": True, **more}
    return found


def condition(kind: str, status: str, since: float = 0, **more: Any) -> Object:
    return {"type": kind, "status": status, "lastTransitionTime": at(since), **more}


def ended(seconds_ago: float, code: int = 1, message: str = "", reason: str = "Error") -> Object:
    return {
        "terminated": {"exitCode": code, "message": message, "reason": reason, "finishedAt": at(seconds_ago)}
    }


def crashed(name: str = "p", message: str = "", template: str = "new") -> Object:
    found = pod(name, template)
    found["status"]["containerStatuses"] = [
        {
            "name": "api",
            "image": "i:1",
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": ended(30, message=message),
        }
    ]
    return found


def lost(name: str = "p") -> Object:
    """Return a pod that the node controller marked unready; the rest is as the kubelet last wrote it."""
    found = ready(name)
    found["status"]["conditions"][0]["status"] = "False"
    return found


def quiet(name: str = "p") -> Object:
    """Return a pod that is no longer ready, as the kubelet reports it."""
    found = ready(name)
    for entry in found["status"]["conditions"]:
        entry |= {"status": "False", "reason": "ContainersNotReady", "lastTransitionTime": at(10)}
    return found


def unschedulable(name: str = "p", message: str = "0/1 nodes are available: 1 Insufficient cpu.") -> Object:
    found = pod(name, conditions=[condition("PodScheduled", "False", message=message)])
    found["status"]["containerStatuses"] = []
    return found


def with_gpu(given: Object) -> Object:
    given["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": 1}}
    return given


def died(reason: str, seconds_ago: float) -> Report:
    return Report(True, failure=WorkerFailure(reason, "a worker process ended", at(seconds_ago)))


def hpa(since: float) -> Object:
    words = "the HPA was unable to compute the replica count: unable to get metrics for resource cpu"
    active = condition(
        "ScalingActive", "False", since, reason="FailedGetContainerResourceMetric", message=words
    )
    able = condition("AbleToScale", "True", since, reason="SucceededGetScale", message="")
    return {"status": {"conditions": [able, active]}}


IMPORT_ERROR = '{"reason": "HandlerImportError", "message": "no module named x"}'
STUCK = {"conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]}
QUOTA = {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: small"}]}
TERMINATING = {
    "conditions": [
        {"type": "ReplicaFailure", "status": "True", "message": "forbidden: namespace n is being terminated"}
    ]
}
WAS_READY: Object = {
    "conditions": [{"type": "Ready", "status": "True", "reason": "Ready", "observedGeneration": GENERATION}]
}
OLD_FAILURE: Object = {"lastFailure": {"pod": "p", "reason": "OutOfMemory", "message": "m", "time": at(400)}}


def status(
    *pods: Object,
    replicas: int = 1,
    reports: dict[str, Report] | None = None,
    before: Object | None = None,
    deployed: Object | None = None,
    kind: str = "RealtimeAPI",
    spec: Object | None = None,
    **observed: Any,
) -> Object:
    """Return the status that the operator computes. before: the current status. deployed: the status of the Deployment."""
    main = Component({**deployment(replicas), "status": deployed or {}}, list(pods), reports or {})
    live = resource(kind, before, **(spec or {}))
    if kind == "AsyncAPI":
        observed = {"gateway": Component(deployment(), [ready("g")]), **observed}
    api = parse(live)
    assert isinstance(api, RealtimeAPI | AsyncAPI)
    api = api.model_copy(update={"metadata": api.metadata.model_copy(update={"generation": GENERATION})})
    return compute(api, live, Observed(main=main, now=NOW, **observed))


def refusal(reason: str, *pods: Object, before: Object | None = None) -> Object:
    main = Component(deployment(), list(pods))
    problem = Problem(reason, "words", is_transient=reason in ("Deleting", "NamespaceTerminating"))
    return compute_rejected(resource(status=before), problem, Observed(main=main, now=NOW))


def blind(since: float) -> ObservedScaling:
    return ObservedScaling(
        State(0.0), explanation="held at 1", no_metrics_since=NOW - timedelta(seconds=since)
    )


SCALING: Object = {"autoscaling": {"targetCpuUtilization": 80}}
IN_FLIGHT: Object = {"autoscaling": {"targetInFlight": 4}}

SEEN: dict[str, Callable[[], Object]] = {
    "first start": lambda: status(pod()),
    "first start, some replicas are ready": lambda: status(ready("p"), pod("q"), replicas=2),
    "all replicas are ready": lambda: status(ready()),
    "first start fails": lambda: status(crashed(message=IMPORT_ERROR)),
    "scale-out": lambda: status(ready("p"), pod("q"), replicas=2, before=WAS_READY),
    "scale-out without a suitable node": lambda: status(ready("p"), unschedulable("q"), replicas=2),
    "scale-in": lambda: status(ready("p"), ready("q"), replicas=1),
    "rolling update": lambda: status(ready("p", "old"), pod("q")),
    "rolling update, enough new pods are ready": lambda: status(
        *(ready(f"n{i}") for i in range(3)), ready("p", "old"), pod("n3"), replicas=4
    ),
    "rolling update to a broken version": lambda: status(ready("p", "old"), crashed("q", IMPORT_ERROR)),
    "rolling update, no new pod is ready for ten minutes": lambda: status(
        ready("p", "old"), pod("q"), deployed=STUCK
    ),
    "rolling update waits for the GPU of the old pod": lambda: status(
        with_gpu(ready("p", "old")), unschedulable("q", "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
    ),
    "one of several pods crashed": lambda: status(ready("p"), crashed("q"), replicas=2),
    "all pods crashed": lambda: status(crashed("p"), crashed("q"), replicas=2),
    "a pod crashed and is ready again": lambda: status(ready(lastState=ended(299))),
    "a worker process ran out of memory and is replaced": lambda: status(
        ready(), reports={"p": died("OutOfMemory", 5)}
    ),
    "worker processes exit repeatedly": lambda: status(
        ready(), reports={"p": died("CrashLoop", 20)}, before={**WAS_READY, **OLD_FAILURE}
    ),
    "a crash more than five minutes ago": lambda: status(
        ready(lastState=ended(301)), reports={"p": died("OutOfMemory", 400)}, before={**WAS_READY, **OLD_FAILURE}
    ),
    "the only worker process hangs": lambda: status(
        quiet(), reports={"p": Report(False, "WorkerHung", "a worker process answers no requests")}
    ),
    "a replica is no longer ready, for an unknown reason": lambda: status(quiet()),
    "the node of the only pod is lost": lambda: status(lost()),
    "the node of one of several pods is lost": lambda: status(ready("p"), lost("q"), replicas=2),
    "paused": lambda: status(replicas=0, spec={"paused": True}),
    "scaled to zero by `replicas: 0`": lambda: status(replicas=0, spec={"replicas": 0}),
    "AsyncAPI scaled to zero by its autoscaler": lambda: status(
        replicas=0, kind="AsyncAPI", spec={"autoscaling": {"targetInFlight": 1, "minReplicas": 0}}
    ),
    "HPA without metrics, after the start": lambda: status(ready(since=30), spec=SCALING, hpa=hpa(300)),
    "HPA without metrics, later": lambda: status(ready(), spec=SCALING, hpa=hpa(300)),
    "in-flight autoscaler cannot reach the pods": lambda: status(ready(), spec=IN_FLIGHT, scaling=blind(100)),
    "route or other optional object refused": lambda: status(
        ready(), problem=Problem("HTTPRouteRefused", "forbidden")
    ),
    "Gateway does not accept the route": lambda: status(ready(), problem=Problem("RouteNotAccepted", "not allowed")),
    "endpoint used by an older API": lambda: status(ready(), problem=Problem("EndpointTaken", "belongs to b")),
    "queue unreachable": lambda: status(
        ready(), kind="AsyncAPI", scaling=ObservedScaling(State(0.0), queue_problem="NATS: no answer")
    ),
    "gateway of an AsyncAPI does not start": lambda: status(
        ready(),
        kind="AsyncAPI",
        gateway=Component(
            deployment(),
            [pod("g", containerStatuses=[{"name": "gateway", "state": {"waiting": {"reason": "ErrImagePull"}}}])],
        ),
    ),
    "namespace is being deleted": lambda: refusal("NamespaceTerminating", before=WAS_READY),
    "spec invalid, pods of the previous spec run": lambda: refusal("InvalidSpec", ready()),
    "source ConfigMap missing, no pod runs": lambda: refusal("SourceUnavailable"),
    "source ConfigMap deleted, pods run": lambda: refusal("SourceUnavailable", ready(), before=WAS_READY),
    "quota does not allow another pod": lambda: status(ready(), replicas=2, deployed=QUOTA),
}  # fmt: skip
