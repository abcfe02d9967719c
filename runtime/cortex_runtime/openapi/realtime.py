"""The OpenAPI document of a RealtimeAPI."""

import inspect
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from cortex_runtime.handler.interfaces import Form, Method
from cortex_runtime.handler.loaded_handler import LoadedHandler
from cortex_runtime.handler.payload_type import first_hint_of, hints_of
from cortex_runtime.handler.routing import MOUNT, WEBSOCKET
from cortex_runtime.openapi import docstrings, operations
from cortex_runtime.openapi.common import CALL_ERRORS, SAMPLE, Frame, Schema, json_of, parameter
from cortex_runtime.openapi.operations import Described
from cortex_runtime.openapi.schemas import Schemas

log = logging.getLogger("cortex")

_LARGEST_SAMPLE = 256 * 1024
"""Bytes."""


def document(handler: LoadedHandler, has_keys: bool, has_tensors: bool) -> bytes:
    """Return the document as JSON.

    has_tensors: whether the API serves the Open Inference Protocol. It calls no method of the handler and loads no model: it
    describes the models that are in memory.
    """
    doc = docstring_of(handler)
    frame = Frame(handler.document.name, doc.summary, doc.description, has_keys)
    schemas = Schemas()
    models = handler.client.info() if handler.client is not None else []
    tag = ""
    if handler.methods or handler.routes:
        tag = frame.tag(handler.document.name, "The methods of the handler")
    batched = handler.document.batching is not None
    for verb, method in handler.methods.items():
        described = describe(handler, verb, method, models, batched)
        described.tag = tag
        operations.add(frame, schemas, "/", verb, described)
    for found in handler.routes:
        route, method = found.route, found.method
        function = getattr(handler.code.target, route.name)
        if route.verb not in (WEBSOCKET, MOUNT):
            described = Described(method, function, method.payload_type, method.return_type, name=route.name)
            described.tag = tag
            operations.add(frame, schemas, route.path, route.verb, described)
        else:
            summary = docstrings.parse(inspect.getdoc(function)).summary
            key = "x-cortex-websockets" if route.verb == WEBSOCKET else "x-cortex-mounts"
            entry = {"path": route.path, **({"summary": summary} if summary else {})}
            frame.extensions.setdefault(key, []).append(entry)
    if handler.openai:
        from cortex_runtime.openapi import openai

        openai.add(frame, schemas, handler)
    if has_tensors:
        from cortex_runtime.openapi import inference

        inference.add(frame, handler, models)
    _add_info(frame)
    schemas.finish()
    frame.schemas.update(schemas.components)
    return frame.build()


def docstring_of(handler: LoadedHandler) -> docstrings.Docstring:
    """Return the docstring that describes the API."""
    target = handler.code.target
    text = None
    if target is not None:
        # The text of a class that does not have its own is that of a base class, which may be `object`.
        text = vars(target).get("__doc__")
        if not text:
            text = getattr(sys.modules.get(getattr(target, "__module__", "")), "__doc__", None)
    return docstrings.parse(text)


def describe(
    handler: LoadedHandler, verb: str, method: Method, models: list[dict[str, Any]], batched: bool
) -> Described:
    """Describe a method that answers requests to "/", or runs jobs (verb JOB). models: of the client."""
    code = handler.code
    is_first = verb == next((each for each in code.verbs.values() if each in handler.methods), None)
    samples = _samples(code.target) if is_first else {}
    if code.interface.form is Form.MODEL:
        return _model(method, models, samples, code.type == "onnx")
    if code.interface.form is Form.STAGES:
        before, after = (code.stages.get(name) for name in ("pre_inference", "post_inference"))
        function = before or after
        payload = first_hint_of(before, code.where)
        result = None if after is None else hints_of(after, code.where)[1]
        described = Described(method, function, payload, result, samples=samples, name="predict")
        described.summary = "Run the model"
        described.query = _model_parameters(models)
        return described
    name = next(name for name, each in code.verbs.items() if each == verb)
    function = getattr(code.target, name)
    payload, result = hints_of(function, f"{code.where}: {name}")
    if payload is None and code.interface.form is Form.FUNCTIONS:
        payload = hints_of(function, f"{code.where}: {name}", "sample")[0]
    if batched and verb == "POST":
        payload, result = _item(payload), _item(result)
    return Described(method, function, payload, result, samples=samples, name=name)


def _model(
    method: Method, models: list[dict[str, Any]], samples: Mapping[str, Any], is_list: bool
) -> Described:
    """Describe a model that is served without code. is_list: whether its outputs are a list."""
    described = Described(method, None, name="predict", samples=samples, summary="Run the model")
    described.query = _model_parameters(models)
    described.payload_schema, described.result_schema = {}, {}
    if len(models) == 1 and "inputs" in models[0]:
        from cortex_runtime.openapi import inference

        described.payload_schema, described.result_schema, found = inference.plain_schemas(models[0], is_list)
        if not samples and found is not None:
            described.samples = {"generated": found}
    return described


def _model_parameters(models: list[dict[str, Any]]) -> list[Schema]:
    """Return the query parameters that select a model."""
    parameters: list[Schema] = []
    if any(model["name"] is not None for model in models):
        names = [model["name"] for model in models]
        parameters.append(parameter("model", "query", {"type": "string", "enum": names}, "Name of the model"))
        parameters[-1]["required"] = len(models) > 1
    versions = sorted({version for model in models for version in model["versions"]})
    latest = "Version of the model; by default the latest"
    choices: Schema = {"type": "string", "enum": [*versions, "latest"]}
    parameters.append(parameter("version", "query", choices, latest))
    return parameters


def _samples(target: Any) -> dict[str, Any]:
    """Return the content of sample.json in the folder of the handler; without code, of the project."""
    try:
        folder = Path() if target is None else Path(inspect.getfile(target)).parent
        file = folder / SAMPLE
        if file.stat().st_size > _LARGEST_SAMPLE:
            log.warning(
                "%s is larger than %d bytes and is not in the OpenAPI document", file, _LARGEST_SAMPLE
            )
            return {}
        return {"sample": json.loads(file.read_text())}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        log.warning("%s is not in the OpenAPI document: %s", SAMPLE, error)
        return {}


def _item(hint: Any) -> Any:
    """Return X of `list[X]`: with batching, a method takes and returns a list."""
    return get_args(hint)[0] if get_origin(hint) is list else None


def _add_info(frame: Frame) -> None:
    operation = {
        "operationId": "info",
        "tags": [frame.tag("Runtime", "What the replica serves")],
        "summary": "Name, kind and models of the API",
        "responses": {"200": json_of({"type": "object"}, "The API")},
    }
    frame.add("/info", "GET", operation, CALL_ERRORS[1:])
