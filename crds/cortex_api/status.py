"""Schema of the status of both kinds. Only the operator writes it."""

from typing import Annotated, Literal

from pydantic import Field

from cortex_api.base import Model

Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class Condition(Model):
    """A condition, as in the status of Kubernetes objects."""

    type: str
    """Ready, Available, Progressing or Degraded."""
    status: Literal["True", "False", "Unknown"]
    """Whether the condition is true."""
    reason: str
    """Reason of the status, in CamelCase."""
    message: str
    """Explanation of the status, and what to do."""
    last_transition_time: Timestamp
    """When the status last changed."""
    observed_generation: Annotated[int, Field(json_schema_extra={"format": "int64"})] | None = None
    """The generation that the condition refers to."""


class LastFailure(Model):
    """The last failure of a pod of this API."""

    pod: str
    """Name of the pod."""
    container: str | None = None
    """Name of the container."""
    reason: str
    """Reason of the failure, in CamelCase."""
    exit_code: int | None = None
    """Exit code of the container."""
    message: str
    """Termination message of the container."""
    time: str | None = None
    """Time of the failure."""
    recovered_at: Timestamp | None = None
    """Time since which the API has been ready without a failure. Absent until the API has recovered."""


class AutoscalingStatus(Model):
    """The autoscaler of the API and its last decision."""

    provider: str
    """hpa, keda, builtin or none."""
    current: int | None = None
    """Current number of replicas."""
    desired: int | None = None
    """Desired number of replicas."""
    metric: str | None = None
    """Name of the metric."""
    value: str | None = None
    """Last value of the metric."""
    reason: str | None = None
    """Reason of the decision."""


class QueueStatus(Model):
    """The state of the queue of an AsyncAPI."""

    queued: int
    """Number of queued jobs."""
    in_flight: int
    """Number of jobs that workers are processing."""
    oldest: Timestamp | None = None
    """Time when the oldest queued job was submitted."""


class CandidateStatus(Model):
    """The state of the candidate of a RealtimeAPI. Rates are percentages since the candidate started to serve."""

    phase: Literal["Starting", "Serving", "RolledBack", "Failed"]
    """Starting: its pods are not ready. Serving: it receives requests. RolledBack: a threshold was exceeded. Failed: it cannot
    start, or its interface differs. Only in the phase Serving does it receive requests."""
    reason: str
    """Reason of the phase, in CamelCase."""
    message: str
    """Explanation of the phase, and what to do."""
    version: str
    """Hash of the candidate. A candidate that changes starts anew."""
    weight: int
    """Percentage of requests that it answers now."""
    mirror: int
    """Percentage of the other requests that are also sent to it now."""
    replicas: int | None = None
    """Number of its pods."""
    ready_replicas: int | None = None
    """Number of its ready pods."""
    requests: int | None = None
    """Number of requests that were assigned to it, copies included."""
    error_rate: str | None = None
    """Share of these that it did not answer, or answered with a status of 500 or above."""
    latency_p95: str | None = None
    """95th percentile of the duration of requests in its pods, mirrored ones included."""
    stable_latency_p95: str | None = None
    """The same in the pods of the stable version, since the candidate serves."""
    compared: int | None = None
    """Number of compared responses."""
    disagreement: str | None = None
    """Share of these that differ."""
    since: Timestamp | None = None
    """Time when the phase began."""


class Status(Model):
    """The observed state of an API."""

    observed_generation: Annotated[int, Field(json_schema_extra={"format": "int64"})] | None = None
    """The generation that the status refers to."""
    url: str | None = None
    """URL of the API."""
    replicas: int | None = None
    """Number of pods."""
    ready_replicas: int | None = None
    """Number of ready pods of the current generation."""
    selector: str | None = None
    """Label selector of the pods, for autoscalers."""
    conditions: (
        Annotated[
            list[Condition],
            Field(
                json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
            ),
        ]
        | None
    ) = None
    """The conditions Ready, Available, Progressing and Degraded."""
    last_failure: LastFailure | None = None
    """The last failure of a pod."""
    autoscaling: AutoscalingStatus | None = None
    """The autoscaler of the API and its last decision."""
    candidate: CandidateStatus | None = None
    """The state of the candidate of a RealtimeAPI."""
    queue: QueueStatus | None = None
    """The state of the queue of an AsyncAPI."""
    queue_name: str | None = None
    """Name of the queue of an AsyncAPI; a valid value for `spec.queue.name`."""
    revision: str | None = None
    """Name of the ControllerRevision with the last spec that was Ready."""
