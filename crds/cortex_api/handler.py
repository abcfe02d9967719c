"""`spec.handler`: the user's code, its models, and how one replica runs them."""

import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, WithJsonSchema, field_validator, model_validator

from cortex_api import pod_overlay
from cortex_api.base import (
    Duration,
    FreeForm,
    Model,
    Quantity,
    RelativePath,
    Rule,
    is_inside_project,
)
from cortex_api.formats import ImageReference, Key, ModelName, ObjectName, VariableName
from cortex_api.units import seconds

_LOCATION = r"^((s3|gs|http|https|file)://.+|pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/.*)?|[^:]+)$"
_MAX_FILES = 2**20
"""Maximum size of the data of a ConfigMap, in bytes (MaxSecretSize in the Kubernetes API)."""


def _is_location(value: str) -> str:
    if not re.fullmatch(_LOCATION, value):
        raise ValueError(
            f'"{value}" is not a valid location; use s3://, gs://, http(s)://, file://, pvc://claim/path or a path'
        )
    return value


Location = Annotated[
    str,
    AfterValidator(_is_location),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 1024, "pattern": _LOCATION}),
]
SignatureKey = Annotated[str, Field(min_length=1, max_length=256)]


def exactly_one(*names: str) -> str:
    """Return a CEL expression: exactly one of the named fields is set."""
    return f"[{', '.join(f'has(self.{name})' for name in names)}].filter(x, x).size() == 1"


class ConfigMapReference(Model):
    """A ConfigMap in the namespace of the API."""

    name: ObjectName
    """Name of the ConfigMap."""


class Source(Model):
    """Source of the project (code and small models). Exactly one field must be set."""

    files: Annotated[dict[RelativePath, str], Field(max_length=64)] | None = None
    """Inline files: paths in the project, and their text."""
    config_map: ConfigMapReference | None = None
    """A ConfigMap that contains the project. Each key is a file; project.zip or project.tar.gz in binaryData is unpacked. A
    change of the ConfigMap triggers a rolling update."""
    uri: Location | None = None
    """URI of an archive (.zip, .tar.gz) or a prefix: s3://, gs://, http(s)://."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            exactly_one("files", "configMap", "uri"),
            "exactly one of files, configMap and uri must be set",
            lambda s: sum(x is not None for x in (s.files, s.config_map, s.uri)) == 1,
        ),
        Rule(
            "!has(self.files) || self.files.all(path, !path.startsWith('/') && !path.contains('..'))",
            "paths in files must be relative to the project and must not contain '..'",
            lambda s: all(is_inside_project(path) for path in s.files or ()),
        ),
    )

    @field_validator("files")
    @classmethod
    def _check_size(cls, files: dict[str, str] | None) -> dict[str, str] | None:
        size = sum(len(text.encode()) for text in (files or {}).values())
        if size > _MAX_FILES:
            raise ValueError(
                f"must be at most {_MAX_FILES} bytes in total; got {size}; use source.uri or an image"
            )
        return files


class Dependencies(Model):
    """Dependencies that are installed in the pod before the handler is imported. Paths are relative to the project."""

    pip: RelativePath | None = None
    """Path of a requirements file."""
    shell: RelativePath | None = None
    """Path of a shell script."""


class NamedModel(Model):
    """One of several models of an API."""

    name: ModelName
    """Name of the model in requests and in the handler."""
    path: Location
    """Location of the model: a file, or a directory with or without versions."""
    signature_key: SignatureKey | None = None
    """Signature of the SavedModel. Only with type tensorflow."""


class Models(Model):
    """The models that the API serves. Exactly one of path, paths and dir must be set."""

    path: Location | None = None
    """Location of a single model: a file, or a directory with or without versions."""
    paths: (
        Annotated[
            list[NamedModel],
            Field(
                min_length=1,
                max_length=256,
                json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
            ),
        ]
        | None
    ) = None
    """Several models by name."""
    dir: Location | None = None
    """Location of a directory; each subdirectory is a model."""
    signature_key: SignatureKey | None = None
    """Signature of the SavedModels. Only with type tensorflow."""
    cache_size: Annotated[int, Field(ge=1)] | None = None
    """Maximum number of models in memory. The least recently used model is evicted first. If absent, there is no limit."""
    cache_bytes: Quantity | None = None
    """Maximum size of the models in memory. If absent, there is no limit."""
    disk_cache_size: Annotated[int, Field(ge=1)] | None = None
    """Maximum number of models on disk. If absent, there is no limit."""
    poll_interval: Duration = "10s"
    """How often the location is polled for changes. "0s" disables live reload."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            exactly_one("path", "paths", "dir"),
            "exactly one of path, paths and dir must be set",
            lambda m: sum(x is not None for x in (m.path, m.paths, m.dir)) == 1,
        ),
        Rule(
            "!has(self.cacheSize) || !has(self.diskCacheSize) || self.cacheSize <= self.diskCacheSize",
            "cacheSize must not be greater than diskCacheSize",
            lambda m: m.cache_size is None or m.disk_cache_size is None or m.cache_size <= m.disk_cache_size,
        ),
    )

    @model_validator(mode="after")
    def _check_unique_names(self) -> Self:
        # In the API server, the list type `map` enforces this.
        names = [model.name for model in self.paths or ()]
        duplicates = sorted({name for name in names if names.count(name) > 1})
        if duplicates:
            raise ValueError(f"paths: duplicate model name: {', '.join(duplicates)}")
        return self


class ServerSideBatching(Model):
    """Server-side batching: several requests are handled in one call of the model."""

    max_batch_size: Annotated[int, Field(ge=2, le=1024)]
    """Maximum number of requests in a batch."""
    batch_interval: Duration
    """Maximum time that the first request of a batch waits for others."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "duration(self.batchInterval) > duration('0s')",
            "batchInterval must be greater than 0",
            lambda b: seconds(b.batch_interval) > 0,
        ),
    )


class EnvVar(Model):
    """An environment variable of the container, as in a Kubernetes pod spec."""

    name: VariableName
    """Name of the variable. The prefix CORTEX_ is reserved."""
    value: Annotated[str, Field(max_length=32768)] | None = None
    """Value of the variable."""
    value_from: Annotated[FreeForm, AfterValidator(pod_overlay.check_source)] | None = None
    """Source of the value: configMapKeyRef, secretKeyRef, fieldRef or resourceFieldRef."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.valueFrom) || !has(self.value) || self.value == ''",
            "value and valueFrom are mutually exclusive",
            lambda v: v.value_from is None or not v.value,
        ),
    )


def _check_unique(variables: list[EnvVar]) -> list[EnvVar]:
    # In the API server, the list type `map` enforces this.
    names = [variable.name for variable in variables]
    if duplicates := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"duplicate name: {', '.join(duplicates)}")
    return variables


Env = Annotated[
    list[EnvVar],
    Field(
        max_length=256,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    ),
    AfterValidator(_check_unique),
]
EnvFrom = Annotated[
    list[dict[str, Any]],
    AfterValidator(pod_overlay.check_sources),
    WithJsonSchema(
        {
            "type": "array",
            "maxItems": 64,
            "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "x-kubernetes-list-type": "atomic",
        }
    ),
]

_SHARED_RULES = (
    Rule(
        "self.type != 'python' || has(self.path)",
        "path is required with type python; set it to the file with the Handler class",
        lambda h: h.type != "python" or h.path is not None,
    ),
    Rule(
        "self.type == 'python' || has(self.models)",
        "models is required with type tensorflow or onnx; set it to the location of the model",
        lambda h: h.type == "python" or h.models is not None,
    ),
    Rule(
        "self.type == 'tensorflow' || !has(self.models) || (!has(self.models.signatureKey)"
        " && (!has(self.models.paths) || self.models.paths.all(m, !has(m.signatureKey))))",
        "signatureKey is only supported with type tensorflow",
        lambda h: (
            h.type == "tensorflow"
            or h.models is None
            or (h.models.signature_key is None and all(m.signature_key is None for m in h.models.paths or ()))
        ),
    ),
    Rule(
        "self.type == 'tensorflow' || !has(self.tensorflowServingImage)",
        "tensorflowServingImage is only supported with type tensorflow",
        lambda h: h.type == "tensorflow" or h.tensorflow_serving_image is None,
    ),
    Rule(
        "!has(self.path) || (!self.path.startsWith('/') && !self.path.contains('..') && self.path.endsWith('.py'))",
        "path must be a .py file relative to the project, without '..'",
        lambda h: h.path is None or (is_inside_project(h.path) and h.path.endswith(".py")),
    ),
    Rule(
        "!has(self.pythonPath) || (!self.pythonPath.startsWith('/') && !self.pythonPath.contains('..'))",
        "pythonPath must be relative to the project, without '..'",
        lambda h: h.python_path is None or is_inside_project(h.python_path),
    ),
    Rule(
        "!has(self.env) || self.env.all(e, !e.name.startsWith('CORTEX_'))",
        "names in env must not start with CORTEX_ (reserved)",
        lambda h: all(not variable.name.startswith("CORTEX_") for variable in h.env),
    ),
)


class ApiKeySecret(Model):
    """A Secret in the namespace of the API."""

    name: ObjectName
    """Name of the Secret."""
    key: Key | None = None
    """Key of the Secret that contains the API key. If absent, the value of every key is a valid API key."""


class ApiKeys(Model):
    """API key authentication with `Authorization: Bearer KEY` or `X-API-Key: KEY`. Other requests get 401."""

    secret: ApiKeySecret
    """The Secret that contains the API keys. A change of the Secret takes effect without a restart."""


class Protocols(Model):
    """Protocols that the API serves in addition to its own HTTP interface and the Open Inference Protocol over HTTP."""

    grpc: bool = False
    """Serve the Open Inference Protocol over gRPC, on port 8082."""
    repository: bool = False
    """Let clients of the Open Inference Protocol list, load and unload models."""


class BaseHandler(Model):
    """The handler fields that both kinds share."""

    type: Literal["python", "tensorflow", "onnx"]
    """The client that the handler receives: python (none; the handler loads its models), tensorflow or onnx."""
    path: RelativePath | None = None
    """Path of the file with the Handler class, relative to the project. If absent (tensorflow and onnx only), the model is served
    directly."""
    source: Source | None = None
    """Source of the project. If absent, the image contains the project."""
    config: FreeForm = Field(default_factory=dict)
    """Passed unchanged to the constructor of the handler."""
    env: Env = Field(default_factory=list)
    """Environment variables of the container."""
    env_from: EnvFrom = Field(default_factory=list)
    """ConfigMaps and Secrets whose keys become environment variables of the container."""
    dependencies: Dependencies | None = None
    """Dependencies that are installed in the pod before the handler is imported."""
    python_path: RelativePath | None = None
    """A folder of the project that is added to the import path."""
    models: Models | None = None
    """The models that the API serves."""
    processes_per_replica: Annotated[int, Field(ge=1, le=100)] = 1
    """Number of worker processes in one pod."""
    threads_per_process: Annotated[int, Field(ge=1, le=1000)] = 1
    """Number of requests that one process handles concurrently, if the handler method is not async."""
    max_replica_concurrency: Annotated[int, Field(ge=1, le=30000)] = 1024
    """Maximum number of running and queued requests in one replica. Further requests get 503 with Retry-After."""
    max_body_size: Quantity = "100Mi"
    """Maximum size of a request body. Larger requests get 413."""
    image: ImageReference | None = None
    """Image of the runtime. Defaults to the image in the chart's values."""
    tensorflow_serving_image: ImageReference | None = None
    """Image of TensorFlow Serving. Defaults to the image in the chart's values."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Minimum level of log messages."""
    shm_size: Quantity | None = None
    """Size of /dev/shm. Defaults to the size that the container runtime sets (64Mi)."""
    debug: bool = False
    """Log the stages of requests with ?debug=true, including payloads."""
    api_keys: ApiKeys | None = None
    """API keys that clients must send. If absent, clients need no key."""
    docs: bool = True
    """Serve the OpenAPI document of the API at /openapi.json, and a page that shows it at /docs."""

    rules: ClassVar[tuple[Rule, ...]] = _SHARED_RULES

    @property
    def serves_grpc(self) -> bool:
        """Return whether the API serves gRPC."""
        return False


class RealtimeHandler(BaseHandler):
    """The handler of a RealtimeAPI, which answers requests synchronously."""

    server_side_batching: ServerSideBatching | None = None
    """Server-side batching: several requests are handled in one call."""
    protocols: Protocols | None = None
    """Further protocols, for APIs that serve models without code or a handler with handle_infer."""
    request_timeout: Duration = "60s"
    """Timeout of a request, including the time in the queue. Afterwards the client gets 504."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *_SHARED_RULES,
        Rule(
            "!has(self.requestTimeout) || duration(self.requestTimeout) > duration('0s')",
            "requestTimeout must be greater than 0",
            lambda h: seconds(h.request_timeout) > 0,
        ),
        Rule(
            "!has(self.models) || !(has(self.models.cacheSize) || has(self.models.diskCacheSize))"
            " || !has(self.processesPerReplica) || self.processesPerReplica == 1",
            "models.cacheSize and models.diskCacheSize require processesPerReplica 1",
            lambda h: (
                h.models is None
                or (h.models.cache_size is None and h.models.disk_cache_size is None)
                or h.processes_per_replica == 1
            ),
        ),
    )

    @property
    def serves_grpc(self) -> bool:
        """Return whether the API serves gRPC."""
        return self.protocols is not None and self.protocols.grpc


class AsyncHandler(BaseHandler):
    """The handler of an AsyncAPI, which processes jobs from a queue."""

    max_concurrency: Annotated[int, Field(ge=1, le=100)] = 1
    """Number of jobs that one replica processes concurrently."""
