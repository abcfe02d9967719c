"""What whoever installs Cortex configures, read once at start from the file that the chart writes."""

from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from cortex_api import __version__


class Settings(BaseModel):
    """A part of the platform file: camelCase keys, no unknown ones."""

    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", frozen=True, use_attribute_docstrings=True
    )


class GatewayRef(Settings):
    """A Gateway (gateway.networking.k8s.io) that APIs are reached through."""

    name: str
    namespace: str
    section_name: str | None = None
    """A listener of the Gateway; absent: all of them."""
    hostname: str | None = None
    """Host name of the APIs' addresses; absent: the routes take any, and status.url stays the address in the cluster."""
    scheme: Literal["http", "https"] = "http"
    """What the Gateway speaks with clients."""


class IngressRef(Settings):
    """An ingress class that APIs are reached through. The defaults for taking the endpoint off are ingress-nginx's."""

    class_name: str
    hostname: str | None = None
    """Host name of the APIs' addresses; absent: the rules take any, and status.url stays the address in the cluster."""
    scheme: Literal["http", "https"] = "http"
    """What the controller speaks with clients."""
    tls_secret_name: str | None = None
    """Name of a Secret in the API's namespace with the certificate."""
    path: str = "{endpoint}(/|$)(.*)"
    """The path of the rule; {endpoint} is filled in."""
    path_type: Literal["ImplementationSpecific", "Prefix", "Exact"] = "ImplementationSpecific"
    annotations: dict[str, str] = Field(
        default_factory=lambda: {
            "nginx.ingress.kubernetes.io/use-regex": "true",
            "nginx.ingress.kubernetes.io/rewrite-target": "/$2",
        }
    )
    """Annotations that make the controller take the endpoint off the path; {endpoint} is filled in."""


class QueueRef(Settings):
    """Where AsyncAPIs keep their jobs."""

    url: str | None = None
    """nats://host:port or sqs://bucket/prefix, as the runtime's queues take it; absent: the Secret has it as CORTEX_QUEUE_URL."""
    secret_name: str | None = None
    """Name of a Secret in the API's namespace whose keys become environment variables: credentials."""

    @model_validator(mode="after")
    def _has_server(self) -> Self:
        if not self.url and not self.secret_name:
            raise ValueError("queue: url or secretName is needed")
        return self


class NetworkPolicyRef(Settings):
    """NetworkPolicies for the APIs' pods. Peers are written as in a NetworkPolicy."""

    allow_from: tuple[dict[str, Any], ...] = Field(default=())
    """Who may send requests; empty: everybody."""
    admin_from: tuple[dict[str, Any], ...] = Field(default=())
    """Who may read health, load and metrics: the operator and the monitoring."""


class Platform(Settings):
    """The whole platform file; every key has a default."""

    runtime_image: str = f"cortex-runtime:{__version__}"
    """Image of the runtime, for APIs that name none."""
    tensorflow_serving_image: str | None = "tensorflow/serving:2.19.1"
    """Image of TensorFlow Serving, for APIs that name none; null: TensorFlow runs in the API's process, from its image."""
    runtime_tensorflow_image: str | None = None
    """Image of the runtime with TensorFlow in it, for APIs that run TensorFlow in their process; null: the runtime's image."""
    tensorflow_serving_gpu_image: str | None = None
    """Its image for APIs that ask for GPUs; absent: the above with -gpu at its end."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = Field(default=())
    """Names of Secrets in the API's namespace."""
    watch_namespaces: tuple[str, ...] = Field(default=())
    """Namespaces that are served; empty: all."""
    gateway: GatewayRef | None = None
    ingress: IngressRef | None = None
    queue: QueueRef | None = None
    network_policy: NetworkPolicyRef | None = None
    lease_namespace: str | None = None
    """The operator's own namespace, with the Lease by which one of several operators is the leader; absent: this one is alone."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def own_namespace(self) -> str:
        """Where the operator runs pods of its own: those that remove the queues of deleted namespaces."""
        return self.lease_namespace or "default"

    @model_validator(mode="after")
    def _one_router(self) -> Self:
        if self.gateway is not None and self.ingress is not None:
            raise ValueError("gateway and ingress exclude each other")
        return self


def read(path: Path) -> Platform:
    """The platform file at `path`; defaults when there is none. Raises ValueError naming every bad key."""
    if not path.is_file():
        return Platform()
    try:
        return Platform.model_validate(yaml.safe_load(path.read_text()) or {})
    except (ValidationError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error
