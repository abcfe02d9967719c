"""Convert an entry of a cortex.yaml to a manifest, with remarks on renamed and dropped fields."""

import math
import re
from typing import Any

from cortex_api.kinds import API_VERSION
from cortex_cli.convert.code import Code, locations
from cortex_cli.convert.legacy import Entry, fields
from cortex_cli.convert.manifest_builder import ManifestBuilder, Remark, camel
from cortex_cli.convert.releases import CONTAINERS, DEBUG, TEXTS, TRAINING, ReleaseRange

_OTHER_KINDS = {
    "BatchAPI": "batch jobs are not supported: run a Kubernetes Job, or post each item to an AsyncAPI",
    "TaskAPI": "tasks are not supported: run a Kubernetes Job",
    **dict.fromkeys(
        TRAINING,
        "training is not supported: export the model to a bucket, and set handler.models.path to its location",
    ),
    **dict.fromkeys(
        TEXTS, "templates are not supported: replace the template by the entries that it generates"
    ),
}
_EXPORTED = ("model", "model_name", "external_model", "model_format", "request_handler", "tf_signature_key")
_MODEL_FIELDS = ("path", "dir", "signature_key", "cache_size", "disk_cache_size")
_SCALING = (
    "min_replicas",
    "max_replicas",
    "init_replicas",
    "window",
    "downscale_stabilization_period",
    "upscale_stabilization_period",
    "max_downscale_factor",
    "max_upscale_factor",
    "downscale_tolerance",
    "upscale_tolerance",
)


_LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")


def translate(
    entry: Entry, releases: ReleaseRange, deployment: str | None, code: Code
) -> ManifestBuilder | Remark:
    """Convert one API. Returns a Remark if it cannot be converted.

    deployment: the name of the `kind: deployment` in the file, which was part of the endpoint. code: the project.
    """
    if entry.kind in _OTHER_KINDS:
        return Remark(
            entry.line("kind"),
            f"{entry.kind} is not converted: {_OTHER_KINDS[entry.kind]}",
            needs_action=True,
        )
    if releases.first >= CONTAINERS or "pod" in entry.content:
        why = (
            "an API of Cortex 0.36 or later consists of your own containers: apply a Deployment and a Service"
        )
        return Remark(entry.line("pod"), f"{entry.get('name')} is not converted: {why}", needs_action=True)
    for old in ("model_name", "model"):
        model = entry.get(old)
        if model is not None and (old == "model_name" or str(model).startswith("@")):
            why = f"model {model} was trained by Cortex: {_OTHER_KINDS['model']}"
            return Remark(entry.line(old), f"{entry.get('name')} is not converted: {why}", needs_action=True)
    to = ManifestBuilder(entry, releases)
    to.manifest |= {
        "apiVersion": API_VERSION,
        "kind": "AsyncAPI" if entry.kind == "AsyncAPI" else "RealtimeAPI",
    }
    to.manifest["metadata"] = {}
    to.copy("name", "metadata.name")
    _tags(to)
    to.manifest["spec"] = {"handler": {}}
    _handler(to)
    code.apply_to(to)
    _local_models(to)
    _tracker(to)
    _compute(to)
    _autoscaling(to)
    _update_strategy(to)
    _networking(to, deployment)
    _debug(to)
    for path, _ in fields(entry):
        # Never drop a field silently.
        if path != "kind" and entry.get(path) is not None and not _seen(to, path):
            to.drop(path, "no equivalent exists")
    return to


def _seen(to: ManifestBuilder, path: str) -> bool:
    return any(path == old or path.startswith((f"{old}.", f"{old}[")) for old in to.seen)


def _handler(to: ManifestBuilder) -> None:
    entry = to.entry
    sections = [
        name
        for name in ("model", "python", "tensorflow", "onnx", "predictor", "handler")
        if entry.content.get(name)
    ]
    if len(sections) > 1:
        to.reject(sections[1], f"exactly one of {' and '.join(sections)} must be set")
    if any(name in entry.content for name in _EXPORTED):
        _exported_model(to)
    elif "python" in sections:
        to.set("spec.handler.type", "python", "python", "python is now spec.handler with type python")
        to.copy("python.inference", "spec.handler.path")
    elif "tensorflow" in sections or "onnx" in sections:
        kind = "tensorflow" if "tensorflow" in sections else "onnx"
        to.set("spec.handler.type", kind, kind, f"{kind} is now spec.handler with type {kind}")
        to.copy(f"{kind}.model", "spec.handler.models.path")
        to.copy(f"{kind}.request_handler", "spec.handler.path")
        to.copy(f"{kind}.signature_key", "spec.handler.models.signatureKey")
        to.copy(f"{kind}.python_path", "spec.handler.pythonPath", _folder)
        to.copy(f"{kind}.metadata", "spec.handler.config")
    elif "predictor" in sections:
        if entry.get("predictor.type") is None:
            to.set(
                "spec.handler.type", "python", "predictor", "predictor is now spec.handler with type python"
            )
        _section(to, "predictor")
    elif "handler" in sections:
        _section(to, "handler")
    to.copy("metadata", "spec.handler.config")


def _exported_model(to: ManifestBuilder) -> None:
    """Convert an exported model with a request handler. Its format is a field, or follows from the file name."""
    if to.entry.get("external_model") is not None:
        to.set(
            "spec.handler.type",
            "tensorflow",
            "external_model",
            "external_model is now spec.handler with type tensorflow",
        )
        to.copy("external_model.path", "spec.handler.models.path")
        to.drop(
            "external_model.region", "set AWS_REGION in handler.env if the region of the bucket is required"
        )
        return
    model, model_format = str(to.entry.get("model") or ""), to.entry.get("model_format")
    if model_format is None and model:
        kind = "onnx" if model.endswith(".onnx") else "tensorflow"
        to.set(
            "spec.handler.type",
            kind,
            "model",
            f"spec.handler.type is {kind}, from the file name of the model",
        )
    else:
        to.copy("model_format", "spec.handler.type")
        if model and (model_format == "onnx") != model.endswith(".onnx"):
            to.reject("model_format", f"model_format {model_format} does not match model {model}")
    to.copy("model", "spec.handler.models.path")
    to.copy("request_handler", "spec.handler.path")
    to.copy("tf_signature_key", "spec.handler.models.signatureKey")


def _folder(path: Any) -> Any:
    return path.rstrip("/") if isinstance(path, str) else path


def _section(to: ManifestBuilder, section: str) -> None:
    """Convert the section predictor (0.10 to 0.33) or handler (since 0.34)."""
    at = "spec.handler"
    to.copy(f"{section}.type", f"{at}.type")
    path = to.entry.get(f"{section}.path")
    if isinstance(path, str) and path.endswith((".pickle", ".pkl")):
        to.seen.add(f"{section}.path")
        to.reject(f"{section}.path", "pickled classes are not supported: move the class to a .py file")
    else:
        to.copy(f"{section}.path", f"{at}.path")
    for old in ("model", "model_path"):
        to.copy(f"{section}.{old}", f"{at}.models.path")
    to.copy(f"{section}.signature_key", f"{at}.models.signatureKey")
    if isinstance(to.entry.get(f"{section}.models"), list):
        _paths(to, f"{section}.models")
    for models in (f"{section}.models", f"{section}.multi_model_reloading"):
        if isinstance(to.entry.get(models), dict):
            for name in _MODEL_FIELDS:
                to.copy(f"{models}.{name}", f"{at}.models.{camel(name)}")
            _paths(to, f"{models}.paths")
    if to.entry.get(f"{section}.multi_model_reloading.signature_key") is not None:
        # Old releases rejected it too.
        to.reject(
            f"{section}.multi_model_reloading.signature_key",
            "signature_key is not supported for models of a Python handler",
        )
    for old in ("config", "metadata"):
        to.copy(f"{section}.{old}", f"{at}.config")
    to.copy(f"{section}.python_path", f"{at}.pythonPath", _folder)
    to.copy(f"{section}.env", f"{at}.env", _environment, ", a list of name and value")
    for name in ("processes_per_replica", "threads_per_process", "log_level", "shm_size"):
        to.copy(f"{section}.{name}", f"{at}.{camel(name)}")
    for name in ("max_batch_size", "batch_interval"):
        batching = f"{section}.server_side_batching.{name}"
        to.copy(batching, f"{at}.serverSideBatching.{camel(name)}")
    to.copy(f"{section}.dependencies.pip", f"{at}.dependencies.pip")
    to.copy(f"{section}.dependencies.shell", f"{at}.dependencies.shell")
    to.drop(
        f"{section}.dependencies.conda",
        "conda is not supported: move its packages to requirements.txt or to your own image",
    )
    to.drop(f"{section}.protobuf_path", "gRPC with your own .proto file is not supported; use HTTP")
    to.drop(
        f"{section}.image",
        "images of the original Cortex are not compatible: build an image from cortex-runtime and set handler.image",
    )
    serving = to.entry.get(f"{section}.tensorflow_serving_image")
    if isinstance(serving, str) and "cortexlabs/" in serving:
        to.drop(
            f"{section}.tensorflow_serving_image",
            "the default image is used; you can set any tensorflow/serving image",
        )
    else:
        to.copy(f"{section}.tensorflow_serving_image", f"{at}.tensorflowServingImage")


def _paths(to: ManifestBuilder, old: str) -> None:
    models = to.entry.get(old)
    if not isinstance(models, list):
        return
    names = {"model_path": "path", "signature_key": "signatureKey"}
    listed = [model for model in models if isinstance(model, dict)]
    renamed = sorted({name for model in listed for name in model if name in names})
    note = "".join(f"; its {name} is now {names[name]}" for name in renamed)
    to.copy(
        old,
        "spec.handler.models.paths",
        lambda _: [{names.get(k, k): v for k, v in model.items() if v is not None} for model in listed],
        note,
    )


def _environment(variables: Any) -> Any:
    if not isinstance(variables, dict):
        return variables
    return [{"name": str(name), "value": _text(value)} for name, value in variables.items()]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _local_models(to: ManifestBuilder) -> None:
    """Add a remark for local model paths, which releases 0.22 to 0.24 supported."""
    for location in locations(to.manifest["spec"]["handler"]):
        if location.startswith(("/", "~")):
            text = f"{location} is a local path that pods cannot read: upload the model to a bucket"
            to.remarks.append(Remark(to.entry.line(), text, needs_action=True))


def _tracker(to: ManifestBuilder) -> None:
    for parent in ("tracker.", "monitoring.", ""):
        to.copy(f"{parent}key", "spec.tracker.key")
        to.copy(f"{parent}model_type", "spec.tracker.modelType")


def _compute(to: ManifestBuilder) -> None:
    for parent in ("compute.", ""):
        for name in ("cpu", "mem", "gpu", "inf"):
            to.copy(
                f"{parent}{name}",
                f"spec.compute.{name}",
                _quantity if name in ("cpu", "mem") else lambda v: v,
            )
    if to.releases.last <= 7 and to.entry.get("compute.cpu") is None:
        to.set("spec.compute.cpu", "400m", "compute", "spec.compute.cpu: 400m, the default of the release")
    compute = to.entry.get("compute")
    if isinstance(compute, dict) and "cpu" in compute and compute["cpu"] is None:
        # null meant no CPU request.
        to.set("spec.compute.cpu", None, "compute.cpu")
    to.drop("compute.node_groups", "select nodes by their labels with compute.nodeSelector")


def _quantity(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _autoscaling(to: ManifestBuilder) -> None:
    entry = to.entry
    if entry.get("compute.replicas") is not None:
        to.copy("compute.replicas", "spec.replicas")
        return
    if to.releases.last <= 5:
        return  # The default is still one replica.
    for parent in ("autoscaling.", "compute.", ""):
        for name in _SCALING:
            to.copy(f"{parent}{name}", f"spec.autoscaling.{camel(name)}")
        to.copy(f"{parent}target_cpu_utilization", "spec.autoscaling.targetCpuUtilization")
    to.copy("autoscaling.target_replica_concurrency", "spec.autoscaling.targetInFlight")
    to.copy("autoscaling.target_in_flight", "spec.autoscaling.targetInFlight")
    to.copy("autoscaling.max_replica_concurrency", "spec.handler.maxReplicaConcurrency")
    to.copy("autoscaling.workers_per_replica", "spec.handler.processesPerReplica")
    to.copy("autoscaling.threads_per_worker", "spec.handler.threadsPerProcess")
    scaling = to.manifest["spec"].setdefault("autoscaling", {})
    explicit = dict(scaling)
    if to.releases.last < 14:
        scaling.setdefault("targetCpuUtilization", 80)
    else:
        handler = to.manifest["spec"]["handler"]
        slots = [handler.get(name, 1) for name in ("processesPerReplica", "threadsPerProcess")]
        if all(isinstance(number, int) for number in slots):
            scaling.setdefault("targetInFlight", math.prod(slots))
    scaling.setdefault("minReplicas", 1)
    scaling.setdefault("maxReplicas", 100)
    if added := {name: value for name, value in scaling.items() if name not in explicit}:
        text = ", ".join(f"{name} {value:g}" for name, value in added.items())
        to.remarks.append(
            Remark(entry.line(), f"spec.autoscaling: set to the defaults of the release: {text}")
        )


def _update_strategy(to: ManifestBuilder) -> None:
    for parent in ("update_strategy", "compute"):
        for name in ("max_surge", "max_unavailable"):
            to.copy(f"{parent}.{name}", f"spec.updateStrategy.{camel(name)}")


def _networking(to: ManifestBuilder, deployment: str | None) -> None:
    for old in ("endpoint", "networking.endpoint"):
        to.copy(old, "spec.networking.endpoint", lambda text: "/" + str(text).strip("/"))
    networking = to.manifest["spec"].setdefault("networking", {})
    if deployment is not None and "endpoint" not in networking:
        networking["endpoint"] = f"/{deployment}/{to.entry.get('name')}"
        text = f"spec.networking.endpoint: {networking['endpoint']}, the default from the names of deployment and API"
        to.remarks.append(Remark(to.entry.line(), text))
    if not networking:
        del to.manifest["spec"]["networking"]
    to.drop(
        "networking.api_gateway",
        "configure access in the gateway or ingress of the cluster",
    )
    for old in ("local_port", "networking.local_port"):
        to.drop(old, "use `cortex run --port`")


def _tags(to: ManifestBuilder) -> None:
    """Convert tags to labels, unless a tag is not a valid label."""
    tags = to.entry.get("tags")
    labels = {str(name): _text(value) for name, value in tags.items()} if isinstance(tags, dict) else {}
    invalid = [
        f"{name}: {value}" for name, value in labels.items() if not (_LABEL.match(name) and _is_label(value))
    ]
    if invalid:
        to.drop("tags", f"not a valid label: {', '.join(invalid)}; use metadata.annotations")
    elif labels:
        to.copy("tags", "metadata.labels", lambda _: labels)
    to.seen.add("tags")


def _is_label(value: str) -> bool:
    return not value or bool(_LABEL.match(value))


def _debug(to: ManifestBuilder) -> None:
    """Add a remark on ?debug=true, which needed no setting in some releases."""
    if (to.releases & DEBUG).is_empty:
        return
    text = f"?debug=true (Cortex {DEBUG}) now requires spec.handler.debug: true, because it writes payloads to the log"
    to.remarks.append(Remark(to.entry.line(), text, needs_action=True))
