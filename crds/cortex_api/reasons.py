"""Every reason that Ready can have: what it means, and what to do. Operator and runtime use these words and no others.

Ready has one of them also while it is true: when something is wrong although requests are answered.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """meaning: what has been found out. remedy: what to do; empty where there is nothing to do."""

    meaning: str
    remedy: str = ""


_LOG = "`kubectl logs` of the pod (or `cortex logs NAME`) has all of it."

REASONS: dict[str, Reason] = {
    # All is as it should be, or on its way.
    "Ready": Reason(
        "Pods of the current generation answer requests, and nothing is wrong; for an AsyncAPI, its gateway answers too."
    ),
    "Starting": Reason(
        "The first pods are created, or load code and models.",
        "Wait. The message says what a replica is doing, and since when; large models take their time.",
    ),
    "Updating": Reason(
        "Pods of a new generation start, or too few of them answer yet; those of the previous one still answer.",
        "Wait. The message says how many pods of each answer.",
    ),
    "Scaling": Reason(
        "Requests are answered while replicas are added or removed; only Progressing has this reason."
    ),
    "Paused": Reason("`spec.paused` is true: no pods run.", "Set it to false to go on."),
    "ScaledToZero": Reason("`spec.replicas` is 0.", "`kubectl scale realtimeapi/NAME --replicas=1`."),
    "Deleting": Reason(
        "The API is being deleted and its queue with it, as `queue.deletionPolicy: Delete` asks.",
        "Wait; or set it to Retain, which lets the API go and keeps the queue.",
    ),
    "NamespaceTerminating": Reason(
        "The namespace is being deleted, and the API with it.",
        "Nothing; or apply the API to another namespace.",
    ),
    # The manifest.
    "InvalidSpec": Reason(
        "The spec contradicts itself, or asks for what this version can't do; the message names each field.",
        "Change the fields. `cortex validate FILE` tells the same before anything is applied.",
    ),
    "NameTaken": Reason(
        "An object of a name that the API needs exists and belongs to somebody else; it is left alone.",
        "Rename the API, or delete that object.",
    ),
    "EndpointTaken": Reason(
        "An older API has the same `networking.endpoint`; requests from outside go there.",
        "Set another endpoint. It falls to this API by itself when the older one goes.",
    ),
    "NoQueue": Reason(
        "The platform has no queue for AsyncAPIs.",
        "Set `queue.url` in the values of the chart (docs/async.md).",
    ),
    "QueueTaken": Reason(
        "An older AsyncAPI uses the queue that this one names; two APIs would run each other's jobs.",
        "Set another `queue.name`, or delete the older API.",
    ),
    "PortInUse": Reason(
        "Port 8080 or 8081 is in use: another container of the pod listens on it.",
        "Remove that container, or have it use another port; `spec.pod` may have added it.",
    ),
    "FieldsOverwritten": Reason(
        "Another writer changes an object of the API each time that the operator sets it back. The message names it.",
        "Stop the other writer, or exempt the object from it. Add to the pods by `spec.pod`.",
    ),
    "SourceUnavailable": Reason(
        "The code can't be fetched: the ConfigMap is missing, or the archive in it or at `source.uri` can't be read.",
        "Create the ConfigMap in the API's namespace (`cortex pack` makes it), or correct address and credentials.",
    ),
    # The pods.
    "ImagePullFailed": Reason(
        "A node can't pull an image.",
        "Check name and tag; for a private registry, name a Secret in `imagePullSecrets` of the chart or of `spec.pod`.",
    ),
    "PodConfigInvalid": Reason(
        "A container can't be created: a Secret or ConfigMap that it names is missing, or it would run as root.",
        "Create what the message names.",
    ),
    "PodsRefused": Reason(
        "The cluster refuses the pods: a quota is used up, or an admission policy forbids them.",
        "Ask for less, raise the quota, or adapt the pods by `spec.pod`.",
    ),
    "Unschedulable": Reason(
        "No node can run a pod. The message has the scheduler's words, and what to do about each cause that they name.",
        "Follow the message. Where nodes are short of resources, a node autoscaler may be about to add one.",
    ),
    "RolloutBlocked": Reason(
        "The new pod waits for a GPU (or the like) that the pods of the previous generation hold.",
        "Set `updateStrategy: {maxSurge: 0, maxUnavailable: 1}` to have an old pod go first, or add a node.",
    ),
    "RolloutStuck": Reason(
        "No new pod became ready within ten minutes, and none says why.", f"Look into the pod's log. {_LOG}"
    ),
    "NotAnswering": Reason(
        "A pod runs, was ready, and says that it isn't any more: its processes are being replaced, or its queue is away.",
        f"It goes on by itself when the cause is gone. {_LOG}",
    ),
    "NodeLost": Reason(
        "The node of a pod does not report to the cluster; the pod counts as lost.",
        "Repair the node. The pod is replaced once the node's taint evicts it, mostly after five minutes.",
    ),
    "Evicted": Reason(
        "The node ended a pod: it ran out of a resource, or is going.", "A new pod is made by itself."
    ),
    "OutOfMemory": Reason(
        "A container, or a worker process in it, needed more memory than the container's limit and was killed.",
        "Raise `compute.mem`, or need less: fewer processes, `models.cacheSize`, smaller batches.",
    ),
    "CrashLoop": Reason(
        "A container, or a worker process in it, ended and is started again; it did not say why in words that are known here.",
        f"The message has its last lines. {_LOG}",
    ),
    "WorkerHung": Reason(
        "A worker process answers no requests although it runs: its calls take longer than `handler.requestTimeout`, or block"
        " its event loop.",
        "Look for a deadlock or a call without a timeout; the log has the stack of each thread. The process is ended and started"
        " again when a call takes twice `requestTimeout`.",
    ),
    # The autoscaler.
    "MetricsUnavailable": Reason(
        "The autoscaler gets no metrics, so the number of replicas stays as it is.",
        "For `targetCpuUtilization`, install or repair metrics-server. For `targetInFlight`, let the operator reach port 8081"
        " of the pods.",
    ),
    "AutoscalerFailed": Reason(
        "The HorizontalPodAutoscaler cannot read or write the number of replicas, or another one selects the same pods.",
        "The message has its words; `kubectl describe hpa` has more. Delete an HPA of your own for the same pods.",
    ),
    # The user's code.
    "HandlerNotFound": Reason(
        "`handler.path` is not in the project, or has none of the known classes and functions.",
        "Check the path, counted from the project's root, and the names (docs/handlers.md).",
    ),
    "HandlerImportError": Reason(
        "Importing the file raised an error.",
        "Fix it; the message has the traceback, from the first line of your code on.",
    ),
    "HandlerInvalid": Reason(
        "The class or its methods are not as they must be: two handlers, an unknown argument, a misspelt method.",
        "The message names it and what was expected.",
    ),
    "HandlerInitError": Reason(
        "The constructor raised an error.",
        "Fix it; the message has the traceback, from the first line of your code on.",
    ),
    "DependencyInstallFailed": Reason(
        "pip or the shell script of `handler.dependencies` failed.",
        "The message has the last lines of its output. Pin versions; or build them into an image of your own.",
    ),
    # Models.
    "ModelNotFound": Reason(
        "There is no model at the location.", "Check bucket, path and layout (docs/models.md)."
    ),
    "ModelAccessDenied": Reason(
        "The location refuses the credentials.",
        "Give the pods a service account or a Secret that may read it.",
    ),
    "ModelUnavailable": Reason(
        "The location can't be reached, or breaks off; it was tried several times.",
        "Check address and network; it is tried again by itself.",
    ),
    "ModelInvalid": Reason(
        "What was found is no model that can be loaded: truncated, of another format, or in a mixed layout.",
        "The message says which file and why. Upload it again.",
    ),
    "ModelsUnwritable": Reason(
        "The folder for models can't be written, or its disk is full.",
        "Give the volume `models` more room by `spec.pod.volumes`, or set `models.diskCacheSize`.",
    ),
    "TensorFlowServingUnavailable": Reason(
        "TensorFlow Serving does not answer within the pod.",
        "Look into the log of container tensorflow-serving; mostly it is short of memory.",
    ),
    # Queues.
    "QueueUnreachable": Reason(
        "The queue's server can't be reached, or refuses.",
        "Check `queue.url`, its credentials, and the server.",
    ),
}

NOT_MADE = Reason(
    "The cluster refuses one of the API's objects; the message has its words. Where the API can do without it (an HPA, a"
    " budget, a route, a policy) the rest goes on, and Degraded says so.",
    "Mostly a right is missing: install the chart of the operator's version. It is tried again by itself.",
)
"""For `<Kind>Refused`, such as HTTPRouteRefused."""

ROUTE_NOT_ACCEPTED = Reason(
    "The Gateway does not take the API's HTTPRoute; `status.url` is the address within the cluster.",
    "Allow routes from the API's namespace at the Gateway's listener.",
)
"""For RouteNotAccepted."""


def of(reason: str) -> Reason | None:
    """What is known of a reason; None for one that is none of ours."""
    if reason in REASONS:
        return REASONS[reason]
    if reason == "RouteNotAccepted":
        return ROUTE_NOT_ACCEPTED
    return NOT_MADE if reason.endswith("Refused") else None
