"""The two kinds, RealtimeAPI and AsyncAPI: metadata and spec. Their status is in `status.py`."""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from cortex_api import units
from cortex_api.base import Anything, Duration, Model, Rule
from cortex_api.handler import AsyncHandler, RealtimeHandler
from cortex_api.scaling import (
    AsyncAutoscaling,
    Compute,
    Networking,
    RealtimeAutoscaling,
    Tracker,
    UpdateStrategy,
)

GROUP = "cortex.dev"
VERSION = "v1alpha1"
API_VERSION: Literal["cortex.dev/v1alpha1"] = "cortex.dev/v1alpha1"
_NAME = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"


class Metadata(Model):
    """The part of metadata that Cortex reads."""

    model_config = ConfigDict(extra="ignore")

    name: Annotated[str, Field(min_length=1)]
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


_SPEC_RULES = (
    Rule(
        "!(has(self.replicas) && has(self.autoscaling))",
        "replicas and autoscaling exclude each other: with autoscaling, set minReplicas and maxReplicas",
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
        "compute.inf does not work with handler.type onnx",
        lambda s: s.handler.type != "onnx" or s.compute.inf == 0,
    ),
)


class BaseSpec(Model):
    """What both kinds of API share."""

    tracker: Tracker | None = None
    """Which part of the responses is counted."""
    compute: Compute = Field(default_factory=Compute)
    """What one replica asks for."""
    replicas: Annotated[int, Field(ge=0, le=10000)] | None = None
    """A fixed number of replicas, 1 when absent; `kubectl scale` writes it. Not with autoscaling."""
    update_strategy: UpdateStrategy = Field(default_factory=UpdateStrategy)
    """How pods are replaced when the API changes."""
    networking: Networking = Field(default_factory=Networking)
    """How the API is reached from outside the cluster."""
    pod: Anything = Field(default_factory=dict)
    """Laid over the rendered pod as a strategic merge patch: serviceAccountName, volumes, affinity, labels and the like."""
    paused: bool = False
    """Whether the API is taken out of service: no replicas, everything else stays."""


class RealtimeSpec(BaseSpec):
    """The wanted state of a RealtimeAPI."""

    handler: RealtimeHandler
    """The user's code, the models that it serves, and how one replica runs it."""
    autoscaling: RealtimeAutoscaling | None = None
    """How the number of replicas follows the load. Absent: `replicas` of them."""

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
    """How jobs are kept."""

    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    """Times that a job is started, at most; then it has failed."""
    lease: Duration = "60s"
    """A worker that does not renew its hold on a job for this long has lost it."""
    retention: Duration = "168h"
    """How long results are kept."""
    deletion_policy: Literal["Retain", "Delete"] = "Retain"
    """What becomes of the queue and its results when the API is deleted."""
    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)] | None = None
    """Which queue of the namespace the API uses. Absent: with Retain the one of the API's name, so that an API which is created
    again finds its jobs and results; with Delete one of its own, of its UID."""


class Gateway(Model):
    """The front of an AsyncAPI, which takes jobs and hands out results."""

    min_replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    """Replicas of the gateway, at least."""
    max_replicas: Annotated[int, Field(ge=1, le=1000)] = 10
    """Replicas of the gateway, at most."""
    compute: Compute = Field(default_factory=Compute)
    """What one replica of the gateway asks for."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(has(self.minReplicas) ? self.minReplicas : 1) <= (has(self.maxReplicas) ? self.maxReplicas : 10)",
            "minReplicas must not be greater than maxReplicas",
            lambda g: g.min_replicas <= g.max_replicas,
        ),
    )


class SecretKey(Model):
    """A key of a Secret in the API's namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the Secret."""
    key: Annotated[str, Field(min_length=1, max_length=253)]
    """Key in the Secret."""


class Webhook(Model):
    """Who is told when a job has ended."""

    url: Annotated[str, Field(pattern=r"^https?://.+", max_length=1024)] | None = None
    """Where the result is posted, unless the request names another address."""
    secret: SecretKey | None = None
    """The key that signs what is posted (HMAC-SHA256)."""
    timeout: Duration = "10s"
    """How long one delivery may take."""


class AsyncSpec(BaseSpec):
    """The wanted state of an AsyncAPI."""

    handler: AsyncHandler
    """The user's code, the models that it serves, and how one replica runs it."""
    autoscaling: AsyncAutoscaling | None = None
    """How the number of workers follows the queue. Absent: `replicas` of them."""
    queue: Queue = Field(default_factory=Queue)
    """How jobs are kept."""
    gateway: Gateway = Field(default_factory=Gateway)
    """The front, which takes jobs and hands out results."""
    webhook: Webhook | None = None
    """Who is told when a job has ended."""

    rules: ClassVar[tuple[Rule, ...]] = _SPEC_RULES


class Resource(Model):
    """What a manifest of either kind has at its top."""

    model_config = ConfigDict(title="Resource")

    api_version: Literal["cortex.dev/v1alpha1"] = API_VERSION
    metadata: Metadata
    status: Anything | None = None

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"self.metadata.name.matches('{_NAME}') && self.metadata.name.size() <= 50",
            "must be at most 50 characters: lower case letters, digits and '-', beginning with a letter",
            lambda r: re.match(_NAME, r.metadata.name) is not None and len(r.metadata.name) <= 50,
            field="metadata.name",
        ),
    )


class RealtimeAPI(Resource):
    """A model or handler that answers HTTP requests while the client waits."""

    kind: Literal["RealtimeAPI"] = "RealtimeAPI"
    spec: RealtimeSpec
    plural: ClassVar = "realtimeapis"
    short_name: ClassVar = "rapi"


class AsyncAPI(Resource):
    """A handler that works off a durable queue of requests."""

    kind: Literal["AsyncAPI"] = "AsyncAPI"
    spec: AsyncSpec
    plural: ClassVar = "asyncapis"
    short_name: ClassVar = "aapi"


KINDS: dict[str, type[RealtimeAPI] | type[AsyncAPI]] = {"RealtimeAPI": RealtimeAPI, "AsyncAPI": AsyncAPI}
