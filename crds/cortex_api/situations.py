"""Conditions of an API in typical situations. The table appears in docs/troubleshooting.md and is tested with the operator."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Situation:
    """A situation and its conditions.

    ready, available, progressing, degraded: whether each condition is true.
    reason: the reason of Ready.
    note: a short explanation.
    """

    name: str
    ready: bool
    available: bool
    progressing: bool
    degraded: bool
    reason: str
    note: str = ""


YES, NO = True, False

SITUATIONS = (
    Situation("first start", NO, NO, YES, NO, "Starting", "The message shows the current step of a replica."),
    Situation("first start, some replicas are ready", YES, YES, YES, NO, "Ready"),
    Situation("all replicas are ready", YES, YES, NO, NO, "Ready"),
    Situation("first start fails", NO, NO, NO, YES, "HandlerImportError", "Or another reason of the handler or the model."),
    Situation("scale-out", YES, YES, YES, NO, "Ready", "A new replica does not make the API unready."),
    Situation("scale-out without a suitable node", YES, YES, NO, YES, "Unschedulable"),
    Situation("scale-in", YES, YES, YES, NO, "Ready", "Until the surplus pods are terminating."),
    Situation(
        "rolling update", NO, YES, YES, NO, "Updating", "`kubectl wait` after `apply` must wait for the new pods."
    ),
    Situation("rolling update, enough new pods are ready", YES, YES, YES, NO, "Ready", "As `maxUnavailable` defines it."),
    Situation("rolling update to a broken version", NO, YES, NO, YES, "HandlerImportError", "The old pods serve requests."),
    Situation("rolling update, no new pod is ready for ten minutes", NO, YES, NO, YES, "RolloutStuck"),
    Situation("rolling update waits for the GPU of the old pod", NO, YES, NO, YES, "RolloutBlocked"),
    Situation("one of several pods crashed", YES, YES, NO, YES, "CrashLoop", "The others serve requests."),
    Situation("all pods crashed", NO, NO, NO, YES, "CrashLoop"),
    Situation("a pod crashed and is ready again", YES, YES, NO, YES, "CrashLoop", "For five minutes after the crash."),
    Situation("a worker process ran out of memory and is replaced", YES, YES, NO, YES, "OutOfMemory", "As above."),
    Situation("worker processes exit repeatedly", YES, YES, NO, YES, "CrashLoop", "Five minutes after the last exit."),
    Situation("a crash more than five minutes ago", YES, YES, NO, NO, "Ready", "`lastFailure.recoveredAt` is set."),
    Situation("the only worker process hangs", NO, NO, NO, YES, "WorkerHung"),
    Situation("a replica is no longer ready, for an unknown reason", NO, NO, NO, YES, "NotAnswering"),
    Situation("the node of the only pod is lost", NO, NO, NO, YES, "NodeLost"),
    Situation("the node of one of several pods is lost", YES, YES, NO, YES, "NodeLost"),
    Situation("paused", NO, NO, NO, NO, "Paused"),
    Situation("scaled to zero by `replicas: 0`", NO, NO, NO, NO, "ScaledToZero"),
    Situation("AsyncAPI scaled to zero by its autoscaler", YES, YES, NO, NO, "Ready", "The first job starts a worker."),
    Situation("HPA without metrics, after the start", YES, YES, NO, NO, "Ready", "This is normal for 90 seconds."),
    Situation("HPA without metrics, later", YES, YES, NO, YES, "MetricsUnavailable", "The replicas do not change."),
    Situation("in-flight autoscaler cannot reach the pods", YES, YES, NO, YES, "MetricsUnavailable", "After 90 seconds."),
    Situation("route or other optional object refused", YES, YES, NO, YES, "HTTPRouteRefused", "Reachable in the cluster."),
    Situation("Gateway does not accept the route", YES, YES, NO, YES, "RouteNotAccepted", "Reachable in the cluster."),
    Situation("endpoint used by an older API", NO, YES, NO, YES, "EndpointTaken", "Reachable in the cluster."),
    Situation("queue unreachable", NO, NO, NO, YES, "QueueUnreachable", "Jobs are neither accepted nor processed."),
    Situation("gateway of an AsyncAPI does not start", NO, NO, NO, YES, "ImagePullFailed", "The message names the gateway."),
    Situation("namespace is being deleted", NO, NO, YES, NO, "NamespaceTerminating"),
    Situation("spec invalid, pods of the previous spec run", NO, YES, NO, YES, "InvalidSpec"),
    Situation("source ConfigMap missing, no pod runs", NO, NO, NO, YES, "SourceUnavailable"),
    Situation(
        "source ConfigMap deleted, pods run", YES, YES, NO, YES, "SourceUnavailable", "They run the current spec."
    ),
    Situation("quota does not allow another pod", YES, YES, NO, YES, "PodsRefused"),
)  # fmt: skip
