"""An entry of a cortex.yaml to a manifest of today, with a remark on each thing that has another name now or stays behind."""

import math
import re
from typing import Any

from cortex_api.kinds import API_VERSION
from cortex_cli.convert.ages import CONTAINERS, DEBUG, TEXTS, TRAINING, Age
from cortex_cli.convert.code import Code, locations
from cortex_cli.convert.reading import Entry, fields
from cortex_cli.convert.translation import Remark, Translation, camel

_OTHER_KINDS = {
    "BatchAPI": "there are no batch jobs here: run a Kubernetes Job, or post each item to an AsyncAPI",
    "TaskAPI": "there are no tasks here: run a Kubernetes Job",
    "TrafficSplitter": "the platform's gateway splits traffic: apply an HTTPRoute with a weight for each API's Service"
    " (docs/migration.md has one)",
    **dict.fromkeys(
        TRAINING,
        "models are not trained here: export the model to a bucket, and name it in handler.models.path",
    ),
    **dict.fromkeys(TEXTS, "templates are not expanded: write out the entries that the template makes"),
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


def translate(entry: Entry, age: Age, deployment: str | None, code: Code) -> Translation | Remark:
    """The manifest of one API; a Remark when it can't become one.

    deployment: the name of the file's `kind: deployment`, which was part of the endpoint. code: where its code comes from.
    """
    if entry.kind in _OTHER_KINDS:
        return Remark(
            entry.line("kind"), f"{entry.kind} is not carried over: {_OTHER_KINDS[entry.kind]}", lost=True
        )
    if age.first >= CONTAINERS or "pod" in entry.content:
        why = "an API of containers (Cortex 0.36 and later) runs images of your own: apply a Deployment and a Service of them"
        return Remark(entry.line("pod"), f"{entry.get('name')} is not carried over: {why}", lost=True)
    for old in ("model_name", "model"):
        model = entry.get(old)
        if model is not None and (old == "model_name" or str(model).startswith("@")):
            why = f"model {model} was trained by Cortex: {_OTHER_KINDS['model']}"
            return Remark(entry.line(old), f"{entry.get('name')} is not carried over: {why}", lost=True)
    to = Translation(entry, age)
    to.manifest |= {
        "apiVersion": API_VERSION,
        "kind": "AsyncAPI" if entry.kind == "AsyncAPI" else "RealtimeAPI",
    }
    to.manifest["metadata"] = {}
    to.carry("name", "metadata.name")
    _tags(to)
    to.manifest["spec"] = {"handler": {}}
    _handler(to)
    code.carry(to)
    _local_models(to)
    _tracker(to)
    _compute(to)
    _autoscaling(to)
    _update_strategy(to)
    _networking(to, deployment)
    _debug(to)
    for path, _ in fields(entry):
        # A field of the tables that nothing above knows: better said than dropped.
        if path != "kind" and entry.get(path) is not None and not _seen(to, path):
            to.leave(path, "nothing here does the same")
    return to


def _seen(to: Translation, path: str) -> bool:
    return any(path == old or path.startswith((f"{old}.", f"{old}[")) for old in to.seen)


def _handler(to: Translation) -> None:
    entry = to.entry
    given = [
        name
        for name in ("model", "python", "tensorflow", "onnx", "predictor", "handler")
        if entry.content.get(name)
    ]
    if len(given) > 1:
        to.contradict(given[1], f"exactly one of {' and '.join(given)} says what is served")
    if any(name in entry.content for name in _EXPORTED):
        _exported_model(to)
    elif "python" in given:
        to.put("spec.handler.type", "python", "python", "python is spec.handler with type python now")
        to.carry("python.inference", "spec.handler.path")
    elif "tensorflow" in given or "onnx" in given:
        kind = "tensorflow" if "tensorflow" in given else "onnx"
        to.put("spec.handler.type", kind, kind, f"{kind} is spec.handler with type {kind} now")
        to.carry(f"{kind}.model", "spec.handler.models.path")
        to.carry(f"{kind}.request_handler", "spec.handler.path")
        to.carry(f"{kind}.signature_key", "spec.handler.models.signatureKey")
        to.carry(f"{kind}.python_path", "spec.handler.pythonPath", _folder)
        to.carry(f"{kind}.metadata", "spec.handler.config")
    elif "predictor" in given:
        if entry.get("predictor.type") is None:
            to.put(
                "spec.handler.type", "python", "predictor", "predictor is spec.handler with type python now"
            )
        _section(to, "predictor")
    elif "handler" in given:
        _section(to, "handler")
    to.carry("metadata", "spec.handler.config")


def _exported_model(to: Translation) -> None:
    """A model with a request handler: its format is said, or shows in its name."""
    if to.entry.get("external_model") is not None:
        to.put(
            "spec.handler.type",
            "tensorflow",
            "external_model",
            "external_model is served with type tensorflow",
        )
        to.carry("external_model.path", "spec.handler.models.path")
        to.leave("external_model.region", "set AWS_REGION in handler.env where the bucket's region is needed")
        return
    model, said = str(to.entry.get("model") or ""), to.entry.get("model_format")
    if said is None and model:
        kind = "onnx" if model.endswith(".onnx") else "tensorflow"
        to.put(
            "spec.handler.type", kind, "model", f"spec.handler.type is {kind}, as the name of the model says"
        )
    else:
        to.carry("model_format", "spec.handler.type")
        if model and (said == "onnx") != model.endswith(".onnx"):
            to.contradict("model_format", f"model_format {said} does not go with model {model}")
    to.carry("model", "spec.handler.models.path")
    to.carry("request_handler", "spec.handler.path")
    to.carry("tf_signature_key", "spec.handler.models.signatureKey")


def _folder(path: Any) -> Any:
    return path.rstrip("/") if isinstance(path, str) else path


def _section(to: Translation, section: str) -> None:
    """The predictor of 0.10 to 0.33, the handler after it."""
    at = "spec.handler"
    to.carry(f"{section}.type", f"{at}.type")
    path = to.entry.get(f"{section}.path")
    if isinstance(path, str) and path.endswith((".pickle", ".pkl")):
        to.seen.add(f"{section}.path")
        to.contradict(
            f"{section}.path", "a pickled class is not loaded: write it into a .py file, and name that"
        )
    else:
        to.carry(f"{section}.path", f"{at}.path")
    for old in ("model", "model_path"):
        to.carry(f"{section}.{old}", f"{at}.models.path")
    to.carry(f"{section}.signature_key", f"{at}.models.signatureKey")
    if isinstance(to.entry.get(f"{section}.models"), list):
        _paths(to, f"{section}.models")
    for models in (f"{section}.models", f"{section}.multi_model_reloading"):
        if isinstance(to.entry.get(models), dict):
            for name in _MODEL_FIELDS:
                to.carry(f"{models}.{name}", f"{at}.models.{camel(name)}")
            _paths(to, f"{models}.paths")
    if to.entry.get(f"{section}.multi_model_reloading.signature_key") is not None:
        # The runtime of the time refused it too.
        to.contradict(
            f"{section}.multi_model_reloading.signature_key", "models of a Python handler have no signature"
        )
    for old in ("config", "metadata"):
        to.carry(f"{section}.{old}", f"{at}.config")
    to.carry(f"{section}.python_path", f"{at}.pythonPath", _folder)
    to.carry(f"{section}.env", f"{at}.env", _environment, ", a list of name and value")
    for name in ("processes_per_replica", "threads_per_process", "log_level", "shm_size"):
        to.carry(f"{section}.{name}", f"{at}.{camel(name)}")
    for name in ("max_batch_size", "batch_interval"):
        batching = f"{section}.server_side_batching.{name}"
        to.carry(batching, f"{at}.serverSideBatching.{camel(name)}")
    to.carry(f"{section}.dependencies.pip", f"{at}.dependencies.pip")
    to.carry(f"{section}.dependencies.shell", f"{at}.dependencies.shell")
    to.leave(
        f"{section}.dependencies.conda",
        "conda is not installed: write its packages into requirements.txt, or an image",
    )
    to.leave(f"{section}.protobuf_path", "APIs of gRPC by your own .proto are not served; HTTP is")
    to.leave(
        f"{section}.image",
        "an image of the old Cortex can't run this: build one from cortex-runtime and set handler.image",
    )
    serving = to.entry.get(f"{section}.tensorflow_serving_image")
    if isinstance(serving, str) and "cortexlabs/" in serving:
        to.leave(f"{section}.tensorflow_serving_image", "the platform's is used, or any tensorflow/serving")
    else:
        to.carry(f"{section}.tensorflow_serving_image", f"{at}.tensorflowServingImage")


def _paths(to: Translation, old: str) -> None:
    models = to.entry.get(old)
    if not isinstance(models, list):
        return
    names = {"model_path": "path", "signature_key": "signatureKey"}
    listed = [model for model in models if isinstance(model, dict)]
    renamed = sorted({name for model in listed for name in model if name in names})
    note = "".join(f"; its {name} is {names[name]}" for name in renamed)
    to.carry(
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


def _local_models(to: Translation) -> None:
    """Releases 0.22 to 0.24 could serve models of the machine that they ran on."""
    for location in locations(to.manifest["spec"]["handler"]):
        if location.startswith(("/", "~")):
            text = f"{location} is a path of one machine, which pods don't have: upload the model to a bucket, and name that"
            to.remarks.append(Remark(to.entry.line(), text, lost=True))


def _tracker(to: Translation) -> None:
    for parent in ("tracker.", "monitoring.", ""):
        to.carry(f"{parent}key", "spec.tracker.key")
        to.carry(f"{parent}model_type", "spec.tracker.modelType")


def _compute(to: Translation) -> None:
    for parent in ("compute.", ""):
        for name in ("cpu", "mem", "gpu", "inf"):
            to.carry(
                f"{parent}{name}",
                f"spec.compute.{name}",
                _quantity if name in ("cpu", "mem") else lambda v: v,
            )
    if to.age.last <= 7 and to.entry.get("compute.cpu") is None:
        to.put("spec.compute.cpu", "400m", "compute", "spec.compute.cpu: 400m, which was the default")
    compute = to.entry.get("compute")
    if isinstance(compute, dict) and "cpu" in compute and compute["cpu"] is None:
        # It meant: no request.
        to.put("spec.compute.cpu", None, "compute.cpu")
    to.leave("compute.node_groups", "choose nodes by their labels: compute.nodeSelector")


def _quantity(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _autoscaling(to: Translation) -> None:
    entry = to.entry
    if entry.get("compute.replicas") is not None:
        to.carry("compute.replicas", "spec.replicas")
        return
    if to.age.last <= 5:
        return  # One replica, then as now.
    for parent in ("autoscaling.", "compute.", ""):
        for name in _SCALING:
            to.carry(f"{parent}{name}", f"spec.autoscaling.{camel(name)}")
        to.carry(f"{parent}target_cpu_utilization", "spec.autoscaling.targetCpuUtilization")
    to.carry("autoscaling.target_replica_concurrency", "spec.autoscaling.targetInFlight")
    to.carry("autoscaling.target_in_flight", "spec.autoscaling.targetInFlight")
    to.carry("autoscaling.max_replica_concurrency", "spec.handler.maxReplicaConcurrency")
    to.carry("autoscaling.workers_per_replica", "spec.handler.processesPerReplica")
    to.carry("autoscaling.threads_per_worker", "spec.handler.threadsPerProcess")
    scaling = to.manifest["spec"].setdefault("autoscaling", {})
    before = dict(scaling)
    if to.age.last < 14:
        scaling.setdefault("targetCpuUtilization", 80)
    else:
        handler = to.manifest["spec"]["handler"]
        slots = [handler.get(name, 1) for name in ("processesPerReplica", "threadsPerProcess")]
        if all(isinstance(number, int) for number in slots):
            scaling.setdefault("targetInFlight", math.prod(slots))
    scaling.setdefault("minReplicas", 1)
    scaling.setdefault("maxReplicas", 100)
    if added := {name: value for name, value in scaling.items() if name not in before}:
        text = ", ".join(f"{name} {value:g}" for name, value in added.items())
        to.remarks.append(Remark(entry.line(), f"spec.autoscaling: written out what was the default: {text}"))


def _update_strategy(to: Translation) -> None:
    for parent in ("update_strategy", "compute"):
        for name in ("max_surge", "max_unavailable"):
            to.carry(f"{parent}.{name}", f"spec.updateStrategy.{camel(name)}")


def _networking(to: Translation, deployment: str | None) -> None:
    for old in ("endpoint", "networking.endpoint"):
        to.carry(old, "spec.networking.endpoint", lambda text: "/" + str(text).strip("/"))
    networking = to.manifest["spec"].setdefault("networking", {})
    if deployment is not None and "endpoint" not in networking:
        networking["endpoint"] = f"/{deployment}/{to.entry.get('name')}"
        text = f"spec.networking.endpoint: {networking['endpoint']}, as the deployment and the API were its default"
        to.remarks.append(Remark(to.entry.line(), text))
    if not networking:
        del to.manifest["spec"]["networking"]
    to.leave(
        "networking.api_gateway",
        "who reaches the APIs is the platform's matter: the chart's gateway or ingress",
    )
    for old in ("local_port", "networking.local_port"):
        to.leave(old, "cortex run --port chooses it")


def _tags(to: Translation) -> None:
    """Tags were scalars of any kind; a label has a syntax of its own."""
    tags = to.entry.get("tags")
    labels = {str(name): _text(value) for name, value in tags.items()} if isinstance(tags, dict) else {}
    wrong = [
        f"{name}: {value}" for name, value in labels.items() if not (_LABEL.match(name) and _is_label(value))
    ]
    if wrong:
        to.leave("tags", f"not valid as a label: {', '.join(wrong)}; write it into metadata.annotations")
    elif labels:
        to.carry("tags", "metadata.labels", lambda _: labels)
    to.seen.add("tags")


def _is_label(value: str) -> bool:
    return not value or bool(_LABEL.match(value))


def _debug(to: Translation) -> None:
    """In some releases a request alone decided whether its payload was logged."""
    if (to.age & DEBUG).empty:
        return
    text = (
        f"?debug=true (Cortex {DEBUG}) logs the stages of a request only where spec.handler.debug is true,"
        " because that puts payloads into the log"
    )
    to.remarks.append(Remark(to.entry.line(), text, lost=True))
