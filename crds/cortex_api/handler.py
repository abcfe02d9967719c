"""`spec.handler`: the user's code, the models that it serves, and how one replica runs it."""

import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from cortex_api.base import (
    Anything,
    Duration,
    Model,
    Quantity,
    RelativePath,
    Rule,
    Text,
    seconds_of,
    stays_inside,
)

PACKED = ("project.zip", "project.tar.gz", "project.tgz")
"""Keys of a ConfigMap's binaryData that are a whole project, with its folders; a ConfigMap has at most one of them."""
_LOCATION = r"^((s3|gs|http|https|file|pvc)://.+|[^:]+)$"


def _is_location(value: str) -> str:
    if not re.match(_LOCATION, value):
        raise ValueError(
            f'"{value}" is no location: s3://, gs://, http(s)://, file://, pvc://claim/path or a path'
        )
    return value


Location = Annotated[
    str,
    AfterValidator(_is_location),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 1024, "pattern": _LOCATION}),
]
SignatureKey = Annotated[str, Field(min_length=1, max_length=256)]


def one_of(*names: str) -> str:
    """CEL: exactly one of the named fields is present."""
    return f"[{', '.join(f'has(self.{name})' for name in names)}].filter(x, x).size() == 1"


class NamedConfigMap(Model):
    """A ConfigMap in the API's namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the ConfigMap."""


class Source(Model):
    """Where the project (code and small models) comes from. Exactly one of the three."""

    files: Annotated[dict[RelativePath, str], Field(max_length=64)] | None = None
    """Path in the project to text: small projects, inline."""
    config_map: NamedConfigMap | None = None
    """A ConfigMap with the project: its keys are files, and project.zip or project.tar.gz in binaryData is unpacked; a change
    of it rolls the pods."""
    uri: Location | None = None
    """An archive (.zip, .tar.gz) or a prefix: s3://, gs://, http(s)://."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            one_of("files", "configMap", "uri"),
            "exactly one of files, configMap and uri must be given",
            lambda s: sum(x is not None for x in (s.files, s.config_map, s.uri)) == 1,
        ),
        Rule(
            "!has(self.files) || self.files.all(path, !path.startsWith('/') && !path.contains('..'))",
            "paths in files are relative to the project and must not contain '..'",
            lambda s: all(not path.startswith("/") and ".." not in path for path in s.files or ()),
        ),
    )


class Dependencies(Model):
    """What is installed in the pod before the handler is imported. Paths count from the project."""

    pip: RelativePath | None = None
    """A requirements file."""
    shell: RelativePath | None = None
    """A shell script."""


class NamedModel(Model):
    """One of several models behind the endpoint."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=128)]
    """The name that requests and clients use."""
    path: Location
    """Where the model is: a file, or a directory with or without versions."""
    signature_key: SignatureKey | None = None
    """Signature of the SavedModel; only with type tensorflow."""


class Models(Model):
    """The models that the API serves. Exactly one of path, paths and dir."""

    path: Location | None = None
    """A single model: a file, or a directory with or without versions."""
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
    """A directory in which every sub-directory is a model."""
    signature_key: SignatureKey | None = None
    """Signature of the SavedModels; only with type tensorflow."""
    cache_size: Annotated[int, Field(ge=1)] | None = None
    """Models kept in memory; the least recently used leaves first. Absent: all."""
    cache_bytes: Quantity | None = None
    """Bytes of models kept in memory. Absent: no bound."""
    disk_cache_size: Annotated[int, Field(ge=1)] | None = None
    """Models kept on disk. Absent: all."""
    poll_interval: Duration = "10s"
    """How often the location is asked for changes; "0s" turns live reload off."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            one_of("path", "paths", "dir"),
            "exactly one of path, paths and dir must be given",
            lambda m: sum(x is not None for x in (m.path, m.paths, m.dir)) == 1,
        ),
        Rule(
            "!has(self.cacheSize) || !has(self.diskCacheSize) || self.cacheSize <= self.diskCacheSize",
            "cacheSize must not be greater than diskCacheSize",
            lambda m: m.cache_size is None or m.disk_cache_size is None or m.cache_size <= m.disk_cache_size,
        ),
    )

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        # The API server sees to this by the list type `map`.
        names = [model.name for model in self.paths or ()]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"paths: duplicate model name: {', '.join(twice)}")
        return self


class ServerSideBatching(Model):
    """Several requests handled in one call of the model."""

    max_batch_size: Annotated[int, Field(ge=2, le=1024)]
    """Requests in a batch, at most."""
    batch_interval: Duration
    """How long the first request of a batch waits for others."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "duration(self.batchInterval) > duration('0s')",
            "batchInterval must be greater than 0",
            lambda b: seconds_of(b.batch_interval) > 0,
        ),
    )


class EnvVar(Model):
    """A variable of the container's environment, as Kubernetes has it."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    """Name of the variable; CORTEX_ is reserved."""
    value: Annotated[str, Field(max_length=32768)] | None = None
    """Its value."""
    value_from: Anything | None = None
    """A source for its value: configMapKeyRef, secretKeyRef, fieldRef or resourceFieldRef."""


Env = Annotated[
    list[EnvVar],
    Field(
        max_length=256,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    ),
]
EnvFrom = Annotated[
    list[dict[str, Any]],
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
        "path is required with type python: the file with the Handler class",
        lambda h: h.type != "python" or h.path is not None,
    ),
    Rule(
        "self.type == 'python' || has(self.models)",
        "models is required with type tensorflow and onnx: where the model is",
        lambda h: h.type == "python" or h.models is not None,
    ),
    Rule(
        "self.type == 'tensorflow' || !has(self.models) || (!has(self.models.signatureKey)"
        " && (!has(self.models.paths) || self.models.paths.all(m, !has(m.signatureKey))))",
        "signatureKey is for type tensorflow only",
        lambda h: (
            h.type == "tensorflow"
            or h.models is None
            or (h.models.signature_key is None and all(m.signature_key is None for m in h.models.paths or ()))
        ),
    ),
    Rule(
        "self.type == 'tensorflow' || !has(self.tensorflowServingImage)",
        "tensorflowServingImage is for type tensorflow only",
        lambda h: h.type == "tensorflow" or h.tensorflow_serving_image is None,
    ),
    Rule(
        "!has(self.path) || (!self.path.startsWith('/') && !self.path.contains('..') && self.path.endsWith('.py'))",
        "path must name a .py file relative to the project, without '..'",
        lambda h: h.path is None or (stays_inside(h.path) and ".." not in h.path and h.path.endswith(".py")),
    ),
    Rule(
        "!has(self.pythonPath) || (!self.pythonPath.startsWith('/') && !self.pythonPath.contains('..'))",
        "pythonPath must be relative to the project, without '..'",
        lambda h: h.python_path is None or (stays_inside(h.python_path) and ".." not in h.python_path),
    ),
    Rule(
        "!has(self.env) || self.env.all(e, !e.name.startsWith('CORTEX_'))",
        "names in env must not start with CORTEX_, which is reserved",
        lambda h: all(not variable.name.startswith("CORTEX_") for variable in h.env),
    ),
)


class SecretOfKeys(Model):
    """A Secret in the API's namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the Secret."""
    key: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")] | None = None
    """The only key of the Secret that counts. Absent: the value of each of its keys is a valid API key."""


class ApiKeys(Model):
    """What clients have to show: `Authorization: Bearer KEY` or `X-API-Key: KEY`; else 401."""

    secret: SecretOfKeys
    """Where the keys are; a change of the Secret needs no restart."""


class BaseHandler(Model):
    """What both kinds of API say of their code."""

    type: Literal["python", "tensorflow", "onnx"]
    """Which client the handler gets: python (its own models), tensorflow or onnx."""
    path: RelativePath | None = None
    """The file with the Handler class, from the project. Absent with tensorflow and onnx: the model is served as it is."""
    source: Source | None = None
    """Where the project comes from. Absent: it is in the image."""
    config: Anything = Field(default_factory=dict)
    """Given to the handler's constructor as it stands here."""
    env: Env = Field(default_factory=list)
    """Variables of the container's environment."""
    env_from: EnvFrom = Field(default_factory=list)
    """ConfigMaps and Secrets whose keys become variables of the container's environment."""
    dependencies: Dependencies | None = None
    """What is installed in the pod before the handler is imported."""
    python_path: RelativePath | None = None
    """A folder of the project that is added to the import path."""
    models: Models | None = None
    """The models that the API serves."""
    processes_per_replica: Annotated[int, Field(ge=1, le=100)] = 1
    """Serving processes in one pod."""
    threads_per_process: Annotated[int, Field(ge=1, le=1000)] = 1
    """Requests that one process handles at the same time, when the method is not async."""
    max_replica_concurrency: Annotated[int, Field(ge=1, le=30000)] = 1024
    """Requests running and waiting in one replica; above it 503 with Retry-After."""
    max_body_size: Quantity = "100Mi"
    """Size of a request body, at most; above it 413."""
    image: Text | None = None
    """Image of the runtime. Absent: the platform's."""
    tensorflow_serving_image: Text | None = None
    """Image of TensorFlow Serving. Absent: the platform's."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level of what is logged."""
    shm_size: Quantity | None = None
    """Size of /dev/shm. Absent: the container runtime's (64Mi)."""
    debug: bool = False
    """Whether ?debug=true logs the stages of a request, payloads included."""
    api_keys: ApiKeys | None = None
    """Keys that clients have to show. Absent: whoever reaches the API may use it."""

    rules: ClassVar[tuple[Rule, ...]] = _SHARED_RULES


class RealtimeHandler(BaseHandler):
    """The code of a RealtimeAPI: answers each request while the client waits."""

    server_side_batching: ServerSideBatching | None = None
    """Several requests handled in one call."""
    request_timeout: Duration = "60s"
    """How long a request may take, waiting included; above it 504."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *_SHARED_RULES,
        Rule(
            "!has(self.requestTimeout) || duration(self.requestTimeout) > duration('0s')",
            "requestTimeout must be greater than 0",
            lambda h: seconds_of(h.request_timeout) > 0,
        ),
        Rule(
            "!has(self.models) || !(has(self.models.cacheSize) || has(self.models.diskCacheSize))"
            " || !has(self.processesPerReplica) || self.processesPerReplica == 1",
            "models.cacheSize and models.diskCacheSize need processesPerReplica 1",
            lambda h: (
                h.models is None
                or (h.models.cache_size is None and h.models.disk_cache_size is None)
                or h.processes_per_replica == 1
            ),
        ),
    )


class AsyncHandler(BaseHandler):
    """The code of an AsyncAPI: works off a queue."""

    max_concurrency: Annotated[int, Field(ge=1, le=100)] = 1
    """Jobs that one replica works on at the same time."""
