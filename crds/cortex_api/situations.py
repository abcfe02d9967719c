"""What the conditions of an API mean in each situation. docs/troubleshooting.md shows this table; the operator's tests run it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Situation:
    """ready, available, progressing, degraded: whether each condition holds. reason: that of Ready. note: why so."""

    name: str
    ready: bool
    available: bool
    progressing: bool
    degraded: bool
    reason: str
    note: str = ""


YES, NO = True, False

SITUATIONS = (
    Situation("first start", NO, NO, YES, NO, "Starting", "The message says what a replica does, and since when."),
    Situation("first start, some replicas answer", YES, YES, YES, NO, "Ready"),
    Situation("all replicas answer", YES, YES, NO, NO, "Ready"),
    Situation("first start fails", NO, NO, NO, YES, "HandlerImportError", "Or another reason of the handler or model."),
    Situation("scale-out", YES, YES, YES, NO, "Ready", "A replica that is added is no reason not to be ready."),
    Situation("scale-out that no node can run", YES, YES, NO, YES, "Unschedulable"),
    Situation("scale-in", YES, YES, YES, NO, "Ready", "Until the surplus pods are told to stop."),
    Situation(
        "rolling update", NO, YES, YES, NO, "Updating", "`kubectl wait` after `apply` must not pass on the old pods."
    ),
    Situation("rolling update, enough new pods answer", YES, YES, YES, NO, "Ready", "As `maxUnavailable` defines it."),
    Situation("rolling update to a broken version", NO, YES, NO, YES, "HandlerImportError", "The old pods answer."),
    Situation("rolling update, nothing new is ready for ten minutes", NO, YES, NO, YES, "RolloutStuck"),
    Situation("rolling update waits for the GPU of the old pod", NO, YES, NO, YES, "RolloutBlocked"),
    Situation("one of several pods crashed", YES, YES, NO, YES, "CrashLoop", "The others answer."),
    Situation("all pods crashed", NO, NO, NO, YES, "CrashLoop"),
    Situation("a pod crashed and answers again", YES, YES, NO, YES, "CrashLoop", "For five minutes after its end."),
    Situation("a worker process was killed for memory and is replaced", YES, YES, NO, YES, "OutOfMemory", "The same."),
    Situation("worker processes end again and again", YES, YES, NO, YES, "CrashLoop", "Each end counts anew."),
    Situation("an end more than five minutes ago", YES, YES, NO, NO, "Ready", "`lastFailure.recoveredAt` is set."),
    Situation("the only worker process hangs", NO, NO, NO, YES, "WorkerHung"),
    Situation("a replica stops to answer, and does not say why", NO, NO, NO, YES, "NotAnswering"),
    Situation("the node of the only pod is lost", NO, NO, NO, YES, "NodeLost"),
    Situation("the node of one of several pods is lost", YES, YES, NO, YES, "NodeLost"),
    Situation("paused", NO, NO, NO, NO, "Paused"),
    Situation("scaled to zero by `replicas: 0`", NO, NO, NO, NO, "ScaledToZero"),
    Situation("AsyncAPI scaled to zero by its autoscaler", YES, YES, NO, NO, "Ready", "The first job starts a worker."),
    Situation("HPA without metrics, after the start", YES, YES, NO, NO, "Ready", "For 90 seconds this is normal."),
    Situation("HPA without metrics, later", YES, YES, NO, YES, "MetricsUnavailable", "Replicas stay as they are."),
    Situation("in-flight autoscaler that reaches no pod", YES, YES, NO, YES, "MetricsUnavailable", "After 90 seconds."),
    Situation("route or other optional object refused", YES, YES, NO, YES, "HTTPRouteRefused", "Answers in the cluster."),
    Situation("Gateway does not accept the route", YES, YES, NO, YES, "RouteNotAccepted", "Answers in the cluster."),
    Situation("endpoint taken by an older API", NO, YES, NO, YES, "EndpointTaken", "Answers in the cluster."),
    Situation("queue unreachable", NO, NO, NO, YES, "QueueUnreachable", "Jobs are neither accepted nor done."),
    Situation("gateway of an AsyncAPI does not start", NO, NO, NO, YES, "ImagePullFailed", "The message says gateway."),
    Situation("namespace is being deleted", NO, NO, YES, NO, "NamespaceTerminating"),
    Situation("spec invalid, pods of the previous one answer", NO, YES, NO, YES, "InvalidSpec"),
    Situation("source ConfigMap missing, nothing runs", NO, NO, NO, YES, "SourceUnavailable"),
    Situation(
        "source ConfigMap deleted, pods run", YES, YES, NO, YES, "SourceUnavailable", "They run what the spec asks for."
    ),
    Situation("quota refuses a further pod", YES, YES, NO, YES, "PodsRefused"),
)  # fmt: skip
