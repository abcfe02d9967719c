"""The Open Inference Protocol in an OpenAPI document: its paths, with the inputs and outputs of each model."""

from collections.abc import Mapping, Sequence
from typing import Any

from cortex_runtime.handler.loaded_handler import LoadedHandler
from cortex_runtime.inference.signature import Signature, TensorSpec, declared
from cortex_runtime.openapi import tensors
from cortex_runtime.openapi.common import BODY_ERRORS, CALL_ERRORS, Frame, Schema, json_of, media, parameter

_MOST_MODELS = 20
"""Models with paths of their own. Those of a larger number have one path with a parameter."""
_INTERNAL = "500"
_FIELDS: Schema = {
    "name": {"type": "string"},
    "datatype": {"type": "string"},
    "shape": {"type": "array", "items": {"type": "integer"}},
}
_TENSOR = {"type": "object", "required": [*_FIELDS], "properties": _FIELDS}
_OUTPUT = {**_TENSOR, "properties": {**_FIELDS, "data": {"type": "array"}}}
_METADATA = {
    "type": "object",
    "required": ["name", "versions", "platform", "inputs", "outputs"],
    "properties": {
        "name": {"type": "string"},
        "versions": {"type": "array", "items": {"type": "string"}},
        "platform": {"type": "string"},
        "inputs": {"type": "array", "items": _TENSOR},
        "outputs": {"type": "array", "items": _TENSOR},
    },
}
_READY = {"type": "object", "required": ["ready"], "properties": {"ready": {"type": "boolean"}}}
_VERSIONED = "/v2/models/{name}/versions/{version}"


def plain_schemas(model: Mapping[str, Any], is_list: bool) -> tuple[Schema, Schema, Any]:
    """Return the schemas of the payload and of the result of a model without code, and an example of the payload or None.

    model: an entry of `Client.info`. is_list: whether the result is a list of the outputs, not a mapping by name.
    """
    signature = Signature.of(model)
    inputs = list(signature.inputs.values())
    required = [spec for spec in inputs if not spec.optional]
    payload: Schema = {
        "type": "object",
        "required": [spec.name for spec in required],
        "properties": {spec.name: tensors.nested(spec.datatype, spec.shape) for spec in inputs},
    }
    values = {spec.name: tensors.example(spec.datatype, spec.shape) for spec in required}
    if len(required) == 1:
        only = required[0]
        payload = {"anyOf": [payload, tensors.nested(only.datatype, only.shape)]}
    outputs = {name: _output(signature.outputs.get(name)) for name in model["outputs"]}
    result: Schema = {"type": "object", "properties": outputs}
    if is_list:
        # Not `prefixItems`, which several tools do not support.
        each = [{"title": name, **schema} for name, schema in outputs.items()]
        items = each[0] if len(each) == 1 else {"anyOf": each}
        described = f"The outputs in the order of the model: {', '.join(outputs)}"
        result = {"type": "array", "items": items, "description": described}
        result |= {"minItems": len(each), "maxItems": len(each)}
    complete = all(value is not None for value in values.values())
    return payload, result, values if complete and values else None


def add(frame: Frame, handler: LoadedHandler, models: Sequence[Mapping[str, Any]]) -> None:
    """Add the paths of the protocol. models: entries of `Client.info`."""
    tag = frame.tag(
        "Open Inference Protocol", "Version 2, over HTTP. Tensors may also be bytes after the JSON."
    )
    api = handler.document.name
    described = _models(handler, models)
    names = list(described)

    def get(path: str, operation_id: str, summary: str, schema: Schema, errors: Sequence[str]) -> None:
        parameters = _path_parameters(path, names)
        responses: Schema = {"200": json_of(schema, summary)}
        if path.endswith("/ready"):
            responses["503"] = json_of(_READY, "Not ready")
        operation = {"operationId": operation_id, "tags": [tag], "summary": summary, "parameters": parameters}
        frame.add(path, "GET", {**operation, "responses": responses}, errors)

    for name in names[:_MOST_MODELS]:
        title = "Run the model" if name == api else f"Run the model {name}"
        inputs, outputs = described[name]
        _add_infer(frame, f"/v2/models/{name}/infer", f"infer_{name}", tag, title, inputs, outputs, [])
    if len(names) > _MOST_MODELS:
        path = "/v2/models/{name}/infer"
        _add_infer(frame, path, "infer", tag, "Run a model", None, None, _path_parameters(path, names))
    path = f"{_VERSIONED}/infer"
    parameters = _path_parameters(path, names)
    _add_infer(frame, path, "infer_version", tag, "Run a version of a model", None, None, parameters)
    get("/v2/models/{name}", "model_metadata", "Inputs and outputs of a model", _METADATA, ("404", _INTERNAL))
    get(
        _VERSIONED,
        "version_metadata",
        "Inputs and outputs of a version",
        _METADATA,
        ("400", "404", _INTERNAL),
    )
    get("/v2/models/{name}/ready", "model_ready", "Whether a model is ready", _READY, ("404",))
    get(f"{_VERSIONED}/ready", "version_ready", "Whether a version is ready", _READY, ("400", "404"))
    get("/v2", "server_metadata", "Name, version and extensions of the server", {"type": "object"}, ())
    get("/v2/health/live", "server_live", "Whether the server is live", {"type": "object"}, ())
    get("/v2/health/ready", "server_ready", "Whether the server is ready", _READY, ())
    protocols = handler.document.realtime_spec.handler.protocols
    if protocols is not None and protocols.repository:
        _add_repository(frame, tag, names)


def _models(
    handler: LoadedHandler, models: Sequence[Mapping[str, Any]]
) -> dict[str, tuple[list[TensorSpec] | None, list[TensorSpec] | None]]:
    """Return inputs and outputs of each model by name; None where they are not known."""
    api = handler.document.name
    if handler.infer is not None:
        return {api: (_declared(handler, "inputs"), _declared(handler, "outputs"))}
    found = {}
    for model in models:
        signature = Signature.of(model) if "inputs" in model else None
        inputs, outputs = (None, None) if signature is None else (signature.inputs, signature.outputs)
        found[model["name"] or api] = (
            None if inputs is None else list(inputs.values()),
            None if outputs is None else list(outputs.values()),
        )
    return found


def _declared(handler: LoadedHandler, name: str) -> list[TensorSpec] | None:
    specs = getattr(handler.instance, name, None)
    return None if specs is None else list(declared(specs, name).values())


def _add_infer(
    frame: Frame,
    path: str,
    operation_id: str,
    tag: str,
    summary: str,
    inputs: list[TensorSpec] | None,
    outputs: list[TensorSpec] | None,
    parameters: list[Schema],
) -> None:
    sample = None
    if inputs:
        required = [spec.metadata() for spec in inputs if not spec.optional]
        sample = tensors.protocol_example(required)
        each = [tensors.protocol_tensor(spec.name, spec.datatype, spec.shape) for spec in inputs]
        items: Schema = {"type": "array", "items": each[0] if len(each) == 1 else {"anyOf": each}}
        items |= {"minItems": len(required), "maxItems": len(inputs)}
    else:
        items = {"type": "array", "items": {**_OUTPUT, "required": [*_FIELDS, "data"]}}
    names = {"type": "string"} if not outputs else {"enum": [spec.name for spec in outputs]}
    wanted = {"type": "object", "required": ["name"], "properties": {"name": names}}
    request = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "inputs": items,
            "outputs": {
                "type": "array",
                "items": wanted,
                "description": "The wanted outputs; by default all",
            },
        },
    }
    response = {
        "type": "object",
        "required": ["model_name", "outputs"],
        "properties": {
            "id": {"type": "string"},
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "outputs": {"type": "array", "items": _OUTPUT},
        },
    }
    content = {"application/json": media(request, {} if sample is None else {"generated": sample})}
    operation = {
        "operationId": operation_id,
        "tags": [tag],
        "summary": summary,
        "parameters": parameters,
        "requestBody": {"required": True, "content": content},
        "responses": {"200": json_of(response, "The outputs")},
    }
    frame.add(path, "POST", operation, (*BODY_ERRORS, *CALL_ERRORS))


def _add_repository(frame: Frame, tag: str, names: list[str]) -> None:
    entry = {
        "type": "object",
        "properties": {key: {"type": "string"} for key in ("name", "version", "state", "reason")},
    }
    index = {"type": "object", "properties": {"ready": {"type": "boolean"}}}
    _add_post(
        frame, "/v2/repository/index", tag, "List the models", index, {"type": "array", "items": entry}, names
    )
    empty = {"type": "object"}
    for verb in ("load", "unload"):
        path = f"/v2/repository/models/{{name}}/{verb}"
        _add_post(frame, path, tag, f"{verb.capitalize()} a model", empty, empty, names)


def _add_post(
    frame: Frame, path: str, tag: str, summary: str, request: Schema, response: Schema, names: list[str]
) -> None:
    operation = {
        "operationId": f"repository_{path.rsplit('/', 1)[1]}",
        "tags": [tag],
        "summary": summary,
        "parameters": _path_parameters(path, names),
        "requestBody": {"content": {"application/json": media(request)}},
        "responses": {"200": json_of(response, "Done")},
    }
    frame.add(path, "POST", operation, (*BODY_ERRORS, "4XX", _INTERNAL))


def _path_parameters(path: str, names: list[str]) -> list[Schema]:
    parameters: list[Schema] = []
    if "{name}" in path:
        parameters.append(parameter("name", "path", {"type": "string", "enum": names}))
    if "{version}" in path:
        parameters.append(parameter("version", "path", {"type": "string", "minLength": 1}))
    return parameters


def _output(spec: TensorSpec | None) -> Schema:
    return {} if spec is None else tensors.nested(spec.datatype, spec.shape, is_output=True)
