"""Spec fields that concern pods rather than code: compute, autoscaling, updates, networking and the tracker."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from cortex_api.base import Duration, IntOrPercentage, Model, NonEmptyString, Quantity, Rule
from cortex_api.formats import LABEL_KEY, Endpoint, ExtendedResource, LabelValue, check_label_keys
from cortex_api.units import seconds


def _is_taint_key(value: str) -> str:
    return value and LABEL_KEY.check(value)


TaintKey = Annotated[
    str,
    AfterValidator(_is_taint_key),
    WithJsonSchema({**LABEL_KEY.schema(), "pattern": f"^$|{LABEL_KEY.pattern}"}),
]


class Toleration(Model):
    """A toleration, as in a Kubernetes pod spec."""

    key: TaintKey | None = None
    """Key of the taint. If absent, operator must be Exists, and every taint matches."""
    operator: Literal["Exists", "Equal"] | None = None
    """How key and value are compared; defaults to Equal."""
    value: LabelValue | None = None
    """Value of the taint."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint. If absent, every effect matches."""
    toleration_seconds: int | None = None
    """How long the taint is tolerated, in seconds. Only with NoExecute."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(has(self.key) && self.key != '') || (has(self.operator) && self.operator == 'Exists')",
            "operator must be Exists, because key is absent",
            lambda t: bool(t.key) or t.operator == "Exists",
        ),
        Rule(
            "!has(self.operator) || self.operator != 'Exists' || !has(self.value) || self.value == ''",
            "value must be absent with operator Exists",
            lambda t: t.operator != "Exists" or not t.value,
        ),
        Rule(
            "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            "tolerationSeconds requires effect NoExecute",
            lambda t: t.toleration_seconds is None or t.effect == "NoExecute",
        ),
    )


class Compute(Model):
    """Compute resources of one replica."""

    cpu: Quantity | None = "200m"
    """CPU request."""
    mem: Quantity | None = None
    """Memory request and limit. If absent, neither is set."""
    gpu: Annotated[int, Field(ge=0)] = 0
    """Number of GPUs."""
    gpu_resource: ExtendedResource = "nvidia.com/gpu"
    """Resource name of the GPUs, for example nvidia.com/mig-1g.10gb."""
    inf: Annotated[int, Field(ge=0)] = 0
    """Number of AWS Inferentia chips."""
    node_selector: Annotated[
        dict[str, LabelValue], Field(max_length=64), AfterValidator(check_label_keys)
    ] = Field(default_factory=dict)
    """Labels that a node must have to run the pods."""
    tolerations: Annotated[
        list[Toleration], Field(max_length=64, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = Field(default_factory=list)
    """Node taints that the pods tolerate."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.gpu) || !has(self.inf) || self.gpu == 0 || self.inf == 0",
            "gpu and inf are mutually exclusive",
            lambda c: c.gpu == 0 or c.inf == 0,
        ),
    )


class Autoscaling(Model):
    """How the number of replicas follows the load."""

    min_replicas: Annotated[int, Field(ge=1, le=10000)] = 1
    """Minimum number of replicas."""
    max_replicas: Annotated[int, Field(ge=1, le=10000)] = 100
    """Maximum number of replicas."""
    init_replicas: Annotated[int, Field(ge=0, le=10000)] | None = None
    """Number of replicas when the API is created; defaults to minReplicas."""
    target_cpu_utilization: Annotated[int, Field(ge=1, le=100)] | None = None
    """Target CPU utilization, in percent of the request. Creates an HPA. Defaults to 80 if neither target is set."""
    target_in_flight: Annotated[float, Field(gt=0, le=30000)] | None = None
    """Target number of in-flight requests per replica; for an AsyncAPI, target queue length per replica."""
    window: Duration = "60s"
    """Period over which the load is averaged."""
    downscale_stabilization_period: Duration = "5m"
    """Scale-in uses the highest recommendation of this period."""
    upscale_stabilization_period: Duration = "1m"
    """Scale-out uses the lowest recommendation of this period."""
    max_downscale_factor: Annotated[float, Field(ge=0, lt=1)] = 0.75
    """A single scale-in keeps at least this fraction of the replicas."""
    max_upscale_factor: Annotated[float, Field(gt=1, le=1000)] = 1.5
    """A single scale-out reaches at most this multiple of the replicas."""
    downscale_tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Relative change below which the API is not scaled in."""
    upscale_tolerance: Annotated[float, Field(ge=0, le=10)] = 0.05
    """Relative change below which the API is not scaled out."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(has(self.minReplicas) ? self.minReplicas : 1) <= (has(self.maxReplicas) ? self.maxReplicas : 100)",
            "minReplicas must not be greater than maxReplicas",
            lambda a: a.min_replicas <= a.max_replicas,
        ),
        Rule(
            "!has(self.initReplicas) || (self.initReplicas >= (has(self.minReplicas) ? self.minReplicas : 1)"
            " && self.initReplicas <= (has(self.maxReplicas) ? self.maxReplicas : 100))",
            "initReplicas must be between minReplicas and maxReplicas",
            lambda a: a.init_replicas is None or a.min_replicas <= a.init_replicas <= a.max_replicas,
        ),
        Rule(
            "!(has(self.targetCpuUtilization) && has(self.targetInFlight))",
            "targetCpuUtilization and targetInFlight are mutually exclusive",
            lambda a: a.target_cpu_utilization is None or a.target_in_flight is None,
        ),
        Rule(
            "!has(self.window) || duration(self.window) >= duration('10s')",
            "window must be at least 10s",
            lambda a: seconds(a.window) >= 10,
        ),
    )


class RealtimeAutoscaling(Autoscaling):
    """Autoscaling of a RealtimeAPI, by default on CPU utilization."""

    @model_validator(mode="after")
    def _set_default_target(self) -> Self:
        if self.target_cpu_utilization is None and self.target_in_flight is None:
            self.target_cpu_utilization = 80
        return self


class AsyncAutoscaling(Autoscaling):
    """Autoscaling of an AsyncAPI, by default on queue length. It can scale to zero."""

    min_replicas: Annotated[int, Field(ge=0, le=10000)] = 1
    """Minimum number of replicas; 0 scales to zero while the queue is empty."""

    @model_validator(mode="after")
    def _set_default_target(self) -> Self:
        if self.target_cpu_utilization is None and self.target_in_flight is None:
            self.target_in_flight = 1.0
        return self


class UpdateStrategy(Model):
    """How pods are replaced when the API changes."""

    max_surge: IntOrPercentage = "25%"
    """Maximum number of pods above the desired number."""
    max_unavailable: IntOrPercentage = "25%"
    """Maximum number of unavailable pods."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!(has(self.maxSurge) && has(self.maxUnavailable)"
            " && string(self.maxSurge).matches('^0+%?$') && string(self.maxUnavailable).matches('^0+%?$'))",
            "maxSurge and maxUnavailable must not both be zero",
            lambda u: not (_is_zero(u.max_surge) and _is_zero(u.max_unavailable)),
        ),
        Rule(
            "!has(self.maxUnavailable) || string(self.maxUnavailable).matches('^([0-9]+|0*(100|[0-9]{1,2})%)$')",
            "maxUnavailable must not be greater than 100%",
            lambda u: isinstance(u.max_unavailable, int) or int(u.max_unavailable[:-1]) <= 100,
        ),
    )


def _is_zero(value: int | str) -> bool:
    return int(str(value).removesuffix("%")) == 0


class Networking(Model):
    """How clients outside the cluster reach the API."""

    endpoint: Endpoint | None = None
    """Path prefix of the API; defaults to /<name>."""


class Tracker(Model):
    """Prediction tracking: the part of the responses that is counted in metrics."""

    key: NonEmptyString | None = None
    """Key of the prediction in the response, if responses are objects."""
    model_type: Literal["classification", "regression"]
    """classification counts classes; regression records minimum, maximum and average."""
