"""All reasons of the condition Ready, each with its meaning and a remedy. The operator and the runtime use no others.

Ready can have the reason of a problem while its status is True, if the API still serves requests.
"""

from dataclasses import dataclass

from cortex_api.contract import ADMIN_PORT, PORT, TENSORFLOW_SERVING_CONTAINER


@dataclass(frozen=True)
class Reason:
    """A documented reason.

    meaning: what the reason means.
    remedy: what to do; empty if no action is needed.
    """

    meaning: str
    remedy: str = ""


_LOG = "`kubectl logs` for the pod (or `cortex logs NAME`) shows the full log."

REASONS: dict[str, Reason] = {
    # Normal states.
    "Ready": Reason(
        "Pods of the current generation serve requests, and no problem is known. For an AsyncAPI, the gateway is ready too."
    ),
    "Starting": Reason(
        "The first pods are being created, or load code and models.",
        "Wait. The message shows the current step of a replica and its start time. Large models take longer.",
    ),
    "Updating": Reason(
        "A rolling update is in progress: not enough pods of the new generation are ready. Old pods still serve requests.",
        "Wait. The message shows how many pods of each generation are ready.",
    ),
    "Scaling": Reason(
        "The API serves requests while replicas are added or removed. Only Progressing has this reason."
    ),
    "Paused": Reason("`spec.paused` is true, so no pods run.", "Set it to false to resume."),
    "ScaledToZero": Reason("`spec.replicas` is 0.", "`kubectl scale realtimeapi/NAME --replicas=1`."),
    "Deleting": Reason(
        "The API and its queue are being deleted, because `queue.deletionPolicy` is Delete.",
        "Wait, or set it to Retain to delete the API and keep the queue.",
    ),
    "NamespaceTerminating": Reason(
        "The namespace and the API are being deleted.",
        "No action is needed. To keep the API, apply it to another namespace.",
    ),
    # The manifest.
    "InvalidSpec": Reason(
        "The spec is inconsistent, or uses a feature that this version does not support. The message names each field.",
        "Correct the fields. `cortex validate FILE` reports the same errors before you apply the manifest.",
    ),
    "NameTaken": Reason(
        "An object with a name that the API needs already exists and has another owner. The operator does not change it.",
        "Rename the API, or delete the object.",
    ),
    "EndpointTaken": Reason(
        "An older API uses the same `networking.endpoint` and receives the requests from outside the cluster.",
        "Set another endpoint. If the older API is deleted, this API gets the endpoint automatically.",
    ),
    "NoQueue": Reason(
        "No queue is configured for AsyncAPIs.",
        "Set `queue.url` in the values of the chart (docs/async.md).",
    ),
    "QueueTaken": Reason(
        "An older AsyncAPI uses the same queue. Two APIs on one queue would process each other's jobs.",
        "Set another `queue.name`, or delete the older API.",
    ),
    "PortInUse": Reason(
        f"Port {PORT} or {ADMIN_PORT} is in use: another container of the pod listens on it.",
        "Remove the container, or use another port for it. `spec.pod` may have added the container.",
    ),
    "FieldsOverwritten": Reason(
        "Another field manager repeatedly overwrites an object of the API. The message names both.",
        "Stop the other field manager, or exclude the object from it. To change the pods, use `spec.pod`.",
    ),
    "SourceUnavailable": Reason(
        "The code cannot be fetched: the ConfigMap does not exist, or its archive or the archive at `source.uri` is unreadable.",
        "Create the ConfigMap in the API's namespace (`cortex pack` writes it), or correct the URI and the credentials.",
    ),
    # The pods.
    "ImagePullFailed": Reason(
        "A node cannot pull an image.",
        "Check the name and the tag. For a private registry, set `imagePullSecrets` in the chart or in `spec.pod`.",
    ),
    "PodConfigInvalid": Reason(
        "A container cannot be created: a Secret or ConfigMap does not exist, or the image would run as root.",
        "Follow the message.",
    ),
    "PodsRefused": Reason(
        "The cluster rejects the pods: a quota is exceeded, or an admission policy denies them.",
        "Request less, raise the quota, or adapt the pods with `spec.pod`.",
    ),
    "Unschedulable": Reason(
        "No node can run a pod. The message contains the scheduler's message and a remedy for each cause.",
        "Follow the message. If the nodes lack resources, a node autoscaler may add a node.",
    ),
    "RolloutBlocked": Reason(
        "A new pod waits for a GPU or another device that the pods of the previous generation use.",
        "Set `updateStrategy: {maxSurge: 0, maxUnavailable: 1}` to stop an old pod first, or add a node.",
    ),
    "RolloutStuck": Reason(
        "No new pod became ready within ten minutes, and no cause is known.",
        f"Check the log of the pod. {_LOG}",
    ),
    "NotAnswering": Reason(
        "A running pod is no longer ready: its worker processes are being replaced, or its queue is unreachable.",
        f"The pod recovers automatically when the cause is fixed. {_LOG}",
    ),
    "NodeLost": Reason(
        "The node of a pod does not report to the cluster, so the pod counts as lost.",
        "Repair the node. Kubernetes replaces the pod when the node's taint evicts it, by default after five minutes.",
    ),
    "Evicted": Reason(
        "The node evicted a pod because it ran out of a resource or is shutting down.",
        "No action is needed. Kubernetes replaces the pod automatically.",
    ),
    "OutOfMemory": Reason(
        "A container, or a worker process in it, exceeded the memory limit and was killed.",
        "Raise `compute.mem`, or use less memory: fewer processes, `models.cacheSize`, smaller batches.",
    ),
    "CrashLoop": Reason(
        "A container, or a worker process in it, exited and is restarted. The cause is not known.",
        f"The message contains the last lines of the log. {_LOG}",
    ),
    "WorkerHung": Reason(
        "A worker process runs but does not respond: its calls take longer than `handler.requestTimeout`, or block the event"
        " loop.",
        "Look for a deadlock or a call without a timeout; the log contains the stack of each thread. The process is restarted"
        " when a call takes twice `requestTimeout`.",
    ),
    # The autoscaler.
    "MetricsUnavailable": Reason(
        "The autoscaler has no metrics, so the number of replicas does not change.",
        "For `targetCpuUtilization`, install or repair metrics-server. For `targetInFlight`, allow the operator to connect to"
        f" port {ADMIN_PORT} of the pods.",
    ),
    "AutoscalerFailed": Reason(
        "The HorizontalPodAutoscaler cannot read or write the number of replicas, or another HPA selects the same pods.",
        "The message contains the error of the HPA; `kubectl describe hpa` shows more. Delete any other HPA for the same pods.",
    ),
    # The user's code.
    "HandlerNotFound": Reason(
        "`handler.path` is not in the project, or the file has no handler class or function.",
        "Check the path, which is relative to the project, and the names in the file (docs/handlers.md).",
    ),
    "HandlerImportError": Reason(
        "The import of the handler file raised an exception.",
        "Fix the handler. The message contains the traceback, starting at your code.",
    ),
    "HandlerInvalid": Reason(
        "The class or its methods are invalid, for example two handlers, an unknown argument or a misspelled method.",
        "The message contains the invalid name and the expected one.",
    ),
    "HandlerInitError": Reason(
        "The constructor of the handler raised an exception.",
        "Fix the handler. The message contains the traceback, starting at your code.",
    ),
    "DependencyInstallFailed": Reason(
        "pip or the shell script in `handler.dependencies` failed.",
        "The message contains the last lines of the output. Pin the versions, or install the dependencies in your own image.",
    ),
    # Models.
    "ModelNotFound": Reason(
        "The location contains no model.", "Check the bucket, the path and the layout (docs/models.md)."
    ),
    "ModelAccessDenied": Reason(
        "The location denies access.",
        "Use a service account or a Secret with read access.",
    ),
    "ModelUnavailable": Reason(
        "The location is unreachable, or a download failed. Several attempts failed.",
        "Check the URL and the network. Further attempts follow automatically.",
    ),
    "ModelInvalid": Reason(
        "The model cannot be loaded: it is truncated, has an unsupported format, or its layout is mixed.",
        "The message names the file and the cause. Upload the model again.",
    ),
    "ModelsUnwritable": Reason(
        "The model folder is not writable, or its disk is full.",
        "Increase the size of the volume `models` in `spec.pod.volumes`, or set `models.diskCacheSize`.",
    ),
    "TensorFlowServingUnavailable": Reason(
        "TensorFlow Serving does not respond in the pod.",
        f"Check the log of the container {TENSORFLOW_SERVING_CONTAINER}. The usual cause is insufficient memory.",
    ),
    # Queues.
    "QueueUnreachable": Reason(
        "The queue server is unreachable, or refuses the connection.",
        "Check `queue.url`, the credentials and the server.",
    ),
}

CANDIDATE_REASONS: dict[str, Reason] = {
    "Serving": Reason("The candidate receives its share of the requests."),
    "ErrorRate": Reason(
        "The candidate did not answer more of its requests than `rollback.errorRate` allows. The stable version answered them.",
        "`cortex logs NAME` shows the log of its pods. Fix the candidate and apply it: a changed candidate starts anew."
        " If the cause was elsewhere: `cortex retry NAME`.",
    ),
    "Disagreement": Reason(
        "More of the compared responses differ than `rollback.disagreement` allows.",
        "`cortex diff NAME` shows differing responses while the candidate serves. If they are right, adapt `compare` or"
        " `rollback.disagreement`: a changed candidate starts anew.",
    ),
    "Latency": Reason(
        "The candidate is slower than the stable version by more than `rollback.latencyRatio`.",
        "Give it more resources (`candidate.compute`, `candidate.replicas`), or adapt the threshold.",
    ),
    "InterfaceChanged": Reason(
        "The candidate lacks a route, protocol, model, input or output of the stable version.",
        "Release it as another API, or keep the interface. The message names what differs.",
    ),
    "InterfaceUnknown": Reason(
        "The runtime of one of the versions is older than the operator and does not report its interface.",
        "Use images of the operator's version for both versions.",
    ),
}
"""Reasons of `status.candidate` that are not reasons of Ready. A candidate that cannot start has a reason of Ready."""

OBJECT_REFUSED = Reason(
    "The cluster rejects an object of the API; the message contains the error. If the object is optional (an HPA, a"
    " PodDisruptionBudget, a route or a NetworkPolicy), the API keeps running and Degraded is true.",
    "The usual cause is a missing permission: install the chart of the same version as the operator. The operator retries"
    " automatically.",
)
"""The reason `<Kind>Refused`, such as HTTPRouteRefused."""

ROUTE_NOT_ACCEPTED = Reason(
    "The Gateway does not accept the HTTPRoute or the GRPCRoute of the API; the message contains its reason. Without the"
    " HTTPRoute, `status.url` is the URL inside the cluster.",
    "For NotAllowedByListeners, allow routes from the API's namespace in the listener of the Gateway. For"
    " NoMatchingListenerHostname, add a listener for the host name. For NoMatchingParent, correct gateway.sectionName in the"
    " values of the chart.",
)
"""The reason RouteNotAccepted."""


def lookup(reason: str) -> Reason | None:
    """Return the documentation of a reason, or None if Cortex does not use it."""
    if found := REASONS.get(reason) or CANDIDATE_REASONS.get(reason):
        return found
    if reason == "RouteNotAccepted":
        return ROUTE_NOT_ACCEPTED
    return OBJECT_REFUSED if reason.endswith("Refused") else None
