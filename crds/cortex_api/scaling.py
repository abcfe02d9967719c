"""Everything of a spec that is about pods rather than code: compute, autoscaling, updates, networking, the tracker."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from cortex_api.base import Duration, Model, Quantity, Rule, Share, Text, seconds_of


class Toleration(Model):
    """A toleration, as Kubernetes has it."""

    key: Annotated[str, Field(max_length=317)] | None = None
    """Key of the taint; absent with operator Exists: every taint."""
    operator: Literal["Exists", "Equal"] | None = None
    """How key and value are compared; Equal when absent."""
    value: Annotated[str, Field(max_length=63)] | None = None
    """Value of the taint."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; absent: every effect."""
    toleration_seconds: int | None = None
    """How long the taint is tolerated, in seconds; only with NoExecute."""


class Compute(Model):
    """What one replica asks for."""

    cpu: Quantity | None = "200m"
    """Processor time, in CPUs."""
    mem: Quantity | None = None
    """Memory: request and limit. Absent: neither."""
    gpu: Annotated[int, Field(ge=0)] = 0
    """Number of GPUs."""
    gpu_resource: Annotated[str, Field(pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$", max_length=253)] = (
        "nvidia.com/gpu"
    )
    """Name of the GPU's resource, for example nvidia.com/mig-1g.10gb."""
    inf: Annotated[int, Field(ge=0)] = 0
    """Number of AWS Inferentia chips."""
    node_selector: Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=64)] = Field(
        default_factory=dict
    )
    """Labels of the nodes that may run the pods."""
    tolerations: Annotated[
        list[Toleration], Field(max_length=64, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = Field(default_factory=list)
    """Taints of nodes that the pods tolerate."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.gpu) || !has(self.inf) || self.gpu == 0 || self.inf == 0",
            "gpu and inf exclude each other",
            lambda c: c.gpu == 0 or c.inf == 0,
        ),
    )


class Autoscaling(Model):
    """How the number of replicas follows the load."""

    min_replicas: Annotated[int, Field(ge=1, le=10000)] = 1
    """Replicas, at least."""
    max_replicas: Annotated[int, Field(ge=1, le=10000)] = 100
    """Replicas, at most."""
    init_replicas: Annotated[int, Field(ge=0, le=10000)] | None = None
    """Replicas at birth; minReplicas when absent."""
    target_cpu_utilization: Annotated[int, Field(ge=1, le=100)] | None = None
    """Processor time to aim at, in percent of the request: an HPA. 80 when neither target is given."""
    target_in_flight: Annotated[float, Field(gt=0, le=30000)] | None = None
    """Requests per replica to aim at; queue length per replica for an AsyncAPI."""
    window: Duration = "60s"
    """Time over which the load is averaged."""
    downscale_stabilization_period: Duration = "5m"
    """The highest recommendation of this time is followed when scaling in."""
    upscale_stabilization_period: Duration = "1m"
    """The lowest recommendation of this time is followed when scaling out."""
    max_downscale_factor: Annotated[float, Field(ge=0, lt=1)] = 0.75
    """One step leaves at least this share of the replicas."""
    max_upscale_factor: Annotated[float, Field(gt=1, le=1000)] = 1.5
    """One step reaches at most this multiple of the replicas."""
    downscale_tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """No scale-in for a smaller relative change."""
    upscale_tolerance: Annotated[float, Field(ge=0, le=10)] = 0.05
    """No scale-out for a smaller relative change."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(has(self.minReplicas) ? self.minReplicas : 1) <= (has(self.maxReplicas) ? self.maxReplicas : 100)",
            "minReplicas must not be greater than maxReplicas",
            lambda a: a.min_replicas <= a.max_replicas,
        ),
        Rule(
            "!has(self.initReplicas) || (self.initReplicas >= (has(self.minReplicas) ? self.minReplicas : 1)"
            " && self.initReplicas <= (has(self.maxReplicas) ? self.maxReplicas : 100))",
            "initReplicas must lie between minReplicas and maxReplicas",
            lambda a: a.init_replicas is None or a.min_replicas <= a.init_replicas <= a.max_replicas,
        ),
        Rule(
            "!(has(self.targetCpuUtilization) && has(self.targetInFlight))",
            "targetCpuUtilization and targetInFlight exclude each other",
            lambda a: a.target_cpu_utilization is None or a.target_in_flight is None,
        ),
        Rule(
            "!has(self.window) || duration(self.window) >= duration('10s')",
            "window must be at least 10s",
            lambda a: seconds_of(a.window) >= 10,
        ),
    )


class RealtimeAutoscaling(Autoscaling):
    """Autoscaling of a RealtimeAPI: on processor time unless told otherwise."""

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if self.target_cpu_utilization is None and self.target_in_flight is None:
            self.target_cpu_utilization = 80
        return self


class AsyncAutoscaling(Autoscaling):
    """Autoscaling of an AsyncAPI: on the length of its queue unless told otherwise; down to zero when allowed."""

    min_replicas: Annotated[int, Field(ge=0, le=10000)] = 1
    """Replicas, at least; 0 lets the workers go while the queue is empty."""

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if self.target_cpu_utilization is None and self.target_in_flight is None:
            self.target_in_flight = 1.0
        return self


class UpdateStrategy(Model):
    """How pods are replaced when the API changes."""

    max_surge: Share = "25%"
    """Pods above the wanted number, at most."""
    max_unavailable: Share = "25%"
    """Pods missing from the wanted number, at most."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!(has(self.maxSurge) && has(self.maxUnavailable)"
            " && string(self.maxSurge) in ['0', '0%'] && string(self.maxUnavailable) in ['0', '0%'])",
            "maxSurge and maxUnavailable must not both be zero",
            lambda u: not (str(u.max_surge) in ("0", "0%") and str(u.max_unavailable) in ("0", "0%")),
        ),
    )


class Networking(Model):
    """How the API is reached from outside the cluster."""

    endpoint: (
        Annotated[str, Field(pattern=r"^/[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*/?$", max_length=256)] | None
    ) = None
    """Path prefix of the API; /<name> when absent."""


class Tracker(Model):
    """Which part of the responses is counted."""

    key: Text | None = None
    """The response's key that holds the prediction, when responses are objects."""
    model_type: Literal["classification", "regression"]
    """classification counts classes; regression keeps minimum, maximum and average."""
