"""Metadata and spec of the two kinds, RealtimeAPI and AsyncAPI. status.py defines their status."""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field

from cortex_api import pod_overlay, units
from cortex_api.base import Duration, FreeForm, Model, Rule
from cortex_api.candidate import Candidate
from cortex_api.contract import GROUP as GROUP
from cortex_api.deployment import (
    AsyncAutoscaling,
    Compute,
    Networking,
    RealtimeAutoscaling,
    Tracker,
    UpdateStrategy,
)
from cortex_api.formats import (
    Key,
    LabelName,
    LabelValue,
    ObjectName,
    WebhookUrl,
    check_annotation_keys,
    check_label_keys,
)
from cortex_api.handler import AsyncHandler, RealtimeHandler
from cortex_api.observability import PayloadLogging, Tracing

VERSION = "v1alpha1"
API_VERSION: Literal["cortex.dev/v1alpha1"] = "cortex.dev/v1alpha1"
_NAME = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"


class Metadata(Model):
    """The fields of metadata that Cortex reads."""

    model_config = ConfigDict(extra="ignore")

    name: Annotated[str, Field(min_length=1)]
    namespace: LabelName = "default"
    uid: str = ""
    generation: int = 0
    labels: Annotated[dict[str, LabelValue], AfterValidator(check_label_keys)] = Field(default_factory=dict)
    annotations: Annotated[dict[str, str], AfterValidator(check_annotation_keys)] = Field(
        default_factory=dict
    )


_SPEC_RULES = (
    Rule(
        "!(has(self.replicas) && has(self.autoscaling))",
        "replicas and autoscaling are mutually exclusive; with autoscaling, set minReplicas and maxReplicas",
        lambda s: s.replicas is None or s.autoscaling is None,
    ),
    Rule(
        "!has(self.handler.shmSize) || !has(self.compute) || !has(self.compute.mem)"
        " || quantity(string(self.handler.shmSize)).compareTo(quantity(string(self.compute.mem))) <= 0",
        "handler.shmSize must not be greater than compute.mem",
        lambda s: (
            s.handler.shm_size is None
            or s.compute.mem is None
            or units.parse_bytes(s.handler.shm_size) <= units.parse_bytes(s.compute.mem)
        ),
    ),
    Rule(
        "self.handler.type != 'onnx' || !has(self.compute) || !has(self.compute.inf) || self.compute.inf == 0",
        "compute.inf is not supported with handler.type onnx",
        lambda s: s.handler.type != "onnx" or s.compute.inf == 0,
    ),
)


class BaseSpec(Model):
    """The spec fields that both kinds share."""

    tracker: Tracker | None = None
    """Prediction tracking: the part of the responses that is counted in metrics."""
    tracing: Tracing | None = None
    """OpenTelemetry traces of requests and jobs. Defaults to the chart's values."""
    payload_logging: PayloadLogging | None = None
    """A sample of requests and responses, or of jobs, sent to a sink as CloudEvents. If absent, payloads are not logged."""
    compute: Compute = Field(default_factory=Compute)
    """Compute resources of one replica."""
    replicas: Annotated[int, Field(ge=0, le=10000)] | None = None
    """Fixed number of replicas; defaults to 1. `kubectl scale` writes it. Mutually exclusive with autoscaling."""
    update_strategy: UpdateStrategy = Field(default_factory=UpdateStrategy)
    """How pods are replaced when the API changes."""
    networking: Networking = Field(default_factory=Networking)
    """How clients outside the cluster reach the API."""
    pod: Annotated[FreeForm, AfterValidator(pod_overlay.check)] = Field(default_factory=dict)
    """Strategic merge patch that is applied to the pod template, for example serviceAccountName, volumes, affinity or labels."""
    paused: bool = False
    """Pause the API: it has no replicas, and all other objects are kept."""


class RealtimeSpec(BaseSpec):
    """The desired state of a RealtimeAPI."""

    handler: RealtimeHandler
    """The user's code, its models, and how one replica runs them."""
    autoscaling: RealtimeAutoscaling | None = None
    """How the number of replicas follows the load. If absent, `replicas` sets a fixed number."""
    candidate: Candidate | None = None
    """A second version that answers some of the requests, or receives copies of them."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *_SPEC_RULES,
        Rule(
            "!has(self.autoscaling) || !has(self.autoscaling.targetInFlight) || self.autoscaling.targetInFlight"
            " <= double(has(self.handler.maxReplicaConcurrency) ? self.handler.maxReplicaConcurrency : 1024)",
            "autoscaling.targetInFlight must not be greater than handler.maxReplicaConcurrency",
            lambda s: (
                s.autoscaling is None
                or s.autoscaling.target_in_flight is None
                or s.autoscaling.target_in_flight <= s.handler.max_replica_concurrency
            ),
        ),
    )


class Queue(Model):
    """How jobs are stored and retried."""

    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    """Maximum number of attempts per job. After the last attempt, the job has failed."""
    lease: Duration = "60s"
    """Duration of a worker's lease on a job. If the worker does not renew it in time, another worker takes the job."""
    retention: Duration = "168h"
    """How long results, and the payloads of failed jobs, are stored."""
    deletion_policy: Literal["Retain", "Delete"] = "Retain"
    """Whether the queue and its results are kept or deleted when the API is deleted."""
    name: LabelName | None = None
    """Name of the queue, unique in the namespace. If absent, deletionPolicy determines the name. Retain: the name of the API, so
    that an API that is created again finds its jobs and results. Delete: a name derived from the UID of the API."""


class Gateway(Model):
    """The HTTP server of an AsyncAPI, which accepts jobs and returns results."""

    min_replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    """Minimum number of gateway replicas."""
    max_replicas: Annotated[int, Field(ge=1, le=1000)] = 10
    """Maximum number of gateway replicas."""
    compute: Compute = Field(default_factory=Compute)
    """Compute resources of one gateway replica."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(has(self.minReplicas) ? self.minReplicas : 1) <= (has(self.maxReplicas) ? self.maxReplicas : 10)",
            "minReplicas must not be greater than maxReplicas",
            lambda g: g.min_replicas <= g.max_replicas,
        ),
    )


class SecretKey(Model):
    """A key of a Secret in the API's namespace."""

    name: ObjectName
    """Name of the Secret."""
    key: Key
    """Key in the Secret."""


class Webhook(Model):
    """Notification of completed jobs."""

    url: WebhookUrl | None = None
    """URL that receives the results. A request may override it."""
    secret: SecretKey | None = None
    """The key that signs each delivery (HMAC-SHA256)."""
    timeout: Duration = "10s"
    """Timeout of one delivery."""


class AsyncSpec(BaseSpec):
    """The desired state of an AsyncAPI."""

    handler: AsyncHandler
    """The user's code, its models, and how one replica runs them."""
    autoscaling: AsyncAutoscaling | None = None
    """How the number of workers follows the queue. If absent, `replicas` sets a fixed number."""
    queue: Queue = Field(default_factory=Queue)
    """How jobs are stored and retried."""
    gateway: Gateway = Field(default_factory=Gateway)
    """The HTTP server that accepts jobs and returns results."""
    webhook: Webhook | None = None
    """Notification of completed jobs."""

    rules: ClassVar[tuple[Rule, ...]] = _SPEC_RULES


class Resource(Model):
    """The top-level fields that both kinds share."""

    model_config = ConfigDict(title="Resource")

    api_version: Literal["cortex.dev/v1alpha1"] = API_VERSION
    metadata: Metadata
    status: FreeForm | None = None

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"self.metadata.name.matches('{_NAME}') && self.metadata.name.size() <= 50",
            "must be at most 50 characters: lowercase letters, digits and '-', starting with a letter",
            lambda r: re.fullmatch(_NAME, r.metadata.name) is not None and len(r.metadata.name) <= 50,
            field="metadata.name",
        ),
    )


class RealtimeAPI(Resource):
    """A handler or model that answers HTTP requests synchronously."""

    kind: Literal["RealtimeAPI"] = "RealtimeAPI"
    spec: RealtimeSpec
    plural: ClassVar = "realtimeapis"
    short_name: ClassVar = "rapi"

    rules: ClassVar[tuple[Rule, ...]] = (
        *Resource.rules,
        Rule(
            "!has(self.spec.candidate) || self.metadata.name.size() <= 49",
            "must be at most 49 characters, because the API has a candidate",
            lambda r: r.spec.candidate is None or len(r.metadata.name) <= 49,
            field="metadata.name",
        ),
    )


class AsyncAPI(Resource):
    """A handler that processes requests from a durable queue."""

    kind: Literal["AsyncAPI"] = "AsyncAPI"
    spec: AsyncSpec
    plural: ClassVar = "asyncapis"
    short_name: ClassVar = "aapi"


KINDS: dict[str, type[RealtimeAPI] | type[AsyncAPI]] = {"RealtimeAPI": RealtimeAPI, "AsyncAPI": AsyncAPI}
