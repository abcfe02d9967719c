"""The OpenAI-compatible routes in an OpenAPI document."""

import inspect
from typing import Any

from cortex_runtime.handler.loaded_handler import LoadedHandler
from cortex_runtime.openapi import docstrings
from cortex_runtime.openapi.common import BODY_ERRORS, CALL_ERRORS, Frame, Schema, json_of, media
from cortex_runtime.openapi.schemas import Schemas

_TEXT: Schema = {"type": "string"}
_STREAM = {
    "stream": {"type": "boolean", "default": False, "description": "Send the answer in chunks"},
    "stream_options": {"type": "object", "properties": {"include_usage": {"type": "boolean"}}},
}
_PARTS: Schema = {"anyOf": [_TEXT, {"type": "array", "items": {"type": "object"}}, {"type": "null"}]}
_MESSAGE: Schema = {"type": "object", "required": ["role"], "properties": {"role": _TEXT, "content": _PARTS}}
_INPUT: Schema = {
    "anyOf": [
        _TEXT,
        {"type": "array", "items": _TEXT, "minItems": 1},
        {"type": "array", "items": {"type": "integer"}, "minItems": 1},
        {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}, "minItems": 1},
    ]
}
_BODIES: dict[str, tuple[str, Schema, Any]] = {
    "/v1/chat/completions": (
        "messages",
        {"messages": {"type": "array", "items": _MESSAGE, "minItems": 1}, **_STREAM},
        {"messages": [{"role": "user", "content": "Hello"}]},
    ),
    "/v1/completions": ("prompt", {"prompt": _INPUT, **_STREAM}, {"prompt": "Hello"}),
    "/v1/embeddings": (
        "input",
        {"input": _INPUT, "encoding_format": {"enum": ["float", "base64"], "default": "float"}},
        {"input": "Hello"},
    ),
}
"""By path: the required parameter, the parameters that the runtime reads, and an example."""
_SUMMARIES = {
    "/v1/chat/completions": "Answer a chat",
    "/v1/completions": "Complete a text",
    "/v1/embeddings": "Return vectors of texts",
}
_OBJECTS: dict[str, Schema] = {
    "/v1/embeddings": {"type": "object", "required": ["object", "model", "data"]},
}
_COMPLETION: Schema = {
    "type": "object",
    "required": ["id", "object", "created", "model", "choices"],
    "properties": {
        "id": _TEXT,
        "object": _TEXT,
        "created": {"type": "integer", "description": "Seconds since 1970"},
        "model": _TEXT,
        "choices": {"type": "array", "items": {"type": "object"}},
        "usage": {"type": "object", "description": "If the handler knows it"},
    },
}
_MODEL: Schema = {
    "type": "object",
    "required": ["id", "object"],
    "properties": {"id": _TEXT, "object": _TEXT},
}
_LIST: Schema = {
    "type": "object",
    "required": ["object", "data"],
    "properties": {"object": _TEXT, "data": {"type": "array", "items": _MODEL}},
}


def add(frame: Frame, schemas: Schemas, handler: LoadedHandler) -> None:
    """Add the methods of the handler for these routes, and the list of models."""
    tag = frame.tag("OpenAI-compatible", "For clients of OpenAI: their base URL ends with `/v1`.")
    names = getattr(handler.instance, "served_models", None) or [handler.document.name]
    by_path = {path: name for name, path in handler.code.openai.items()}
    for path, method in handler.openai.items():
        doc = docstrings.parse(inspect.getdoc(getattr(handler.code.target, by_path[path])))
        required, properties, example = _BODIES[path]
        body: Schema = {
            "type": "object",
            "required": [required],
            "properties": {"model": {"enum": list(names)}, **properties},
        }
        if method.payload_type is not None and method.payload_type is not dict:
            body = {"allOf": [body, schemas.add(method.payload_type, is_result=False)]}
        examples = {each.name: each.value["request"] for each in doc.examples if "request" in each.value}
        content = {"application/json": media(body, examples or {"generated": {"model": names[0], **example}})}
        response = json_of(_OBJECTS.get(path, _COMPLETION), "The answer")
        if path not in _OBJECTS:
            # Without a type: tools read it as that of the whole text, or as that of each event.
            events = {"description": "Chunks, with `stream`; the last event is `[DONE]`"}
            response["content"]["text/event-stream"] = media(events)
        operation = {
            "operationId": by_path[path],
            "tags": [tag],
            "summary": doc.summary or _SUMMARIES[path],
            "description": doc.description,
            "requestBody": {"required": True, "content": content},
            "responses": {"200": response},
        }
        frame.add(path, "POST", operation, (*BODY_ERRORS, *CALL_ERRORS), is_openai=True)
    models: Schema = {"operationId": "list_models", "tags": [tag], "summary": "List the models"}
    frame.add(
        "/v1/models",
        "GET",
        {**models, "responses": {"200": json_of(_LIST, "The models")}},
        (),
        is_openai=True,
    )
    parameter = {"name": "model", "in": "path", "required": True, "schema": {"enum": list(names)}}
    one: Schema = {
        "operationId": "retrieve_model",
        "tags": [tag],
        "summary": "Describe a model",
        "parameters": [parameter],
        "responses": {"200": json_of(_MODEL, "The model")},
    }
    frame.add("/v1/models/{model}", "GET", one, ("404",), is_openai=True)
