"""The configuration of the installation, read once at start from the file that the chart renders."""

from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from cortex_api import __version__
from cortex_api.contract import DEFAULT_SAMPLING


class Settings(BaseModel):
    """A section of the platform file: camelCase keys, unknown keys are rejected."""

    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", frozen=True, use_attribute_docstrings=True
    )


class GatewayRef(Settings):
    """The Gateway (gateway.networking.k8s.io) that exposes APIs."""

    name: str
    namespace: str
    section_name: str | None = None
    """A listener of the Gateway; default: all listeners."""
    hostname: str | None = None
    """Host name of APIs; default: routes match any host, and status.url is the address inside the cluster."""
    scheme: Literal["http", "https"] = "http"
    """The scheme that clients use."""
    grpc_hostname: str | None = None
    """Host name of an API with gRPC, with {name} and {namespace}; default: gRPC is not exposed."""
    grpc_section_name: str | None = None
    """The listener for gRPC; default: section_name."""

    @model_validator(mode="after")
    def _one_api_for_each_hostname(self) -> Self:
        missing = [part for part in ("{name}", "{namespace}") if part not in (self.grpc_hostname or part)]
        if missing:
            raise ValueError(
                f"gateway: grpcHostname must contain {' and '.join(missing)}; got {self.grpc_hostname}"
            )
        if self.grpc_section_name and not self.grpc_hostname:
            raise ValueError("gateway: grpcSectionName requires grpcHostname")
        return self


class IngressRef(Settings):
    """The ingress class that exposes APIs. The defaults strip the endpoint from the path in the way of ingress-nginx."""

    class_name: str
    hostname: str | None = None
    """Host name of APIs; default: rules match any host, and status.url is the address inside the cluster."""
    scheme: Literal["http", "https"] = "http"
    """The scheme that clients use."""
    tls_secret_name: str | None = None
    """Name of a Secret in the API's namespace with the certificate."""
    path: str = "{endpoint}(/|$)(.*)"
    """The path of the rule; {endpoint} is replaced by the endpoint of the API."""
    path_type: Literal["ImplementationSpecific", "Prefix", "Exact"] = "ImplementationSpecific"
    annotations: dict[str, str] = Field(
        default_factory=lambda: {
            "nginx.ingress.kubernetes.io/use-regex": "true",
            "nginx.ingress.kubernetes.io/rewrite-target": "/$2",
            "nginx.ingress.kubernetes.io/x-forwarded-prefix": "{endpoint}",
        }
    )
    """Annotations that make the controller strip the endpoint from the path; {endpoint} is replaced."""


class QueueRef(Settings):
    """The server of the queues of AsyncAPIs."""

    url: str | None = None
    """nats://HOST:PORT or sqs://BUCKET/PREFIX; default: the Secret has it as CORTEX_QUEUE_URL."""
    secret_name: str | None = None
    """Name of a Secret in the namespace of the API whose keys become environment variables, such as credentials."""

    @model_validator(mode="after")
    def _has_server(self) -> Self:
        if not self.url and not self.secret_name:
            raise ValueError("queue: set url or secretName")
        return self


class NetworkPolicyRef(Settings):
    """NetworkPolicies for the pods of APIs. Peers have the form of a NetworkPolicy."""

    allow_from: tuple[dict[str, Any], ...] = Field(default=())
    """Peers that may send requests; empty: all."""
    admin_from: tuple[dict[str, Any], ...] = Field(default=())
    """Peers that may read health, load and metrics: the operator and monitoring."""


class TracingRef(Settings):
    """The collector of traces."""

    endpoint: str
    """Base URL of an OpenTelemetry collector, OTLP over HTTP."""
    sampling: float = DEFAULT_SAMPLING
    """Percentage of requests without trace context that are traced."""


class Platform(Settings):
    """The platform file; every key has a default."""

    runtime_image: str = f"cortex-runtime:{__version__}"
    """Image of the runtime, for APIs without `handler.image`."""
    tensorflow_serving_image: str | None = "tensorflow/serving:2.19.1"
    """Image of TensorFlow Serving, for APIs that do not name one; null: TensorFlow runs in the process of the API."""
    runtime_tensorflow_image: str | None = None
    """Image of the runtime that includes TensorFlow, for APIs that run it in their process; null: runtimeImage."""
    tensorflow_serving_gpu_image: str | None = None
    """Image of TensorFlow Serving for APIs with GPUs; default: tensorflowServingImage with the suffix -gpu."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = Field(default=())
    """Names of Secrets in the namespace of the API."""
    watch_namespaces: tuple[str, ...] = Field(default=())
    """Namespaces to watch; empty: all."""
    gateway: GatewayRef | None = None
    ingress: IngressRef | None = None
    queue: QueueRef | None = None
    network_policy: NetworkPolicyRef | None = None
    tracing: TracingRef | None = None
    """Default of `spec.tracing`; null: only APIs that name an endpoint are traced."""
    lease_namespace: str | None = None
    """The namespace of the operator, which has the Lease for leader election; default: no leader election."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def own_namespace(self) -> str:
        """The namespace of the pods that delete the queues of APIs in deleted namespaces."""
        return self.lease_namespace or "default"

    @model_validator(mode="after")
    def _one_router(self) -> Self:
        if self.gateway is not None and self.ingress is not None:
            raise ValueError("gateway and ingress are mutually exclusive: set one of them")
        return self


def read(path: Path) -> Platform:
    """Read the platform file; return the defaults when it does not exist. Raises ValueError that names every invalid key."""
    if not path.is_file():
        return Platform()
    try:
        return Platform.model_validate(yaml.safe_load(path.read_text()) or {})
    except (ValidationError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error
