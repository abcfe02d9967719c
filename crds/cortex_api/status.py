"""The status of both kinds, as far as its schema goes. The operator alone writes it."""

from typing import Annotated, Literal

from pydantic import Field

from cortex_api.base import Model


class Condition(Model):
    """One aspect of the state, as Kubernetes writes conditions."""

    type: str
    """Ready, Available, Progressing or Degraded."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: str
    """Why, in one word."""
    message: str
    """Why, in a sentence, and what to do."""
    last_transition_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When the status last changed."""
    observed_generation: Annotated[int, Field(json_schema_extra={"format": "int64"})] | None = None
    """The generation of the spec that this speaks of."""


class LastFailure(Model):
    """The last time that a pod of this API failed."""

    pod: str
    """Name of the pod."""
    container: str | None = None
    """Name of the container."""
    reason: str
    """Why, in one word."""
    exit_code: int | None = None
    """Exit code of the container."""
    message: str
    """What it said when it ended."""
    time: str | None = None
    """When it ended."""
    recovered_at: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    """Since when the API has been ready without a failure; absent while the failure matters."""


class AutoscalingStatus(Model):
    """Who scales the API, and the last decision."""

    provider: str
    """hpa, keda, builtin or none."""
    current: int | None = None
    """Replicas now."""
    desired: int | None = None
    """Replicas wanted."""
    metric: str | None = None
    """What is measured."""
    value: str | None = None
    """Its last value."""
    reason: str | None = None
    """Why this number."""


class QueueStatus(Model):
    """What waits in the queue of an AsyncAPI."""

    queued: int
    """Jobs that wait."""
    in_flight: int
    """Jobs that a worker has."""
    oldest: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    """When the oldest of the waiting jobs came."""


class Status(Model):
    """The observed state."""

    observed_generation: Annotated[int, Field(json_schema_extra={"format": "int64"})] | None = None
    """The generation of the spec that the status speaks of."""
    url: str | None = None
    """Where the API is reached."""
    replicas: int | None = None
    """Pods that exist."""
    ready_replicas: int | None = None
    """Pods of the current generation that answer."""
    selector: str | None = None
    """Labels of the pods, for autoscalers."""
    conditions: (
        Annotated[
            list[Condition],
            Field(
                json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
            ),
        ]
        | None
    ) = None
    """Ready, Available, Progressing, Degraded."""
    last_failure: LastFailure | None = None
    """The last time that a pod failed."""
    autoscaling: AutoscalingStatus | None = None
    """Who scales the API, and the last decision."""
    queue: QueueStatus | None = None
    """What waits in the queue of an AsyncAPI."""
    queue_name: str | None = None
    """The queue of an AsyncAPI, as `spec.queue.name` has it."""
