"""The OpenAI-compatible routes in an OpenAPI document."""

import inspect
from typing import Any

from cortex_runtime.handler.loaded_handler import LoadedHandler
from cortex_runtime.openai.requests import CHAT, COMPLETIONS, EMBEDDINGS, MODELS, REQUIRED, served_models
from cortex_runtime.openapi import docstrings
from cortex_runtime.openapi.common import BODY_ERRORS, CALL_ERRORS, Frame, Schema, json_of, media, parameter
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
_BODIES: dict[str, tuple[Schema, Any]] = {
    CHAT: (
        {"messages": {"type": "array", "items": _MESSAGE, "minItems": 1}, **_STREAM},
        {"messages": [{"role": "user", "content": "Hello"}]},
    ),
    COMPLETIONS: ({"prompt": _INPUT, **_STREAM}, {"prompt": "Hello"}),
    EMBEDDINGS: (
        {"input": _INPUT, "encoding_format": {"enum": ["float", "base64"], "default": "float"}},
        {"input": "Hello"},
    ),
}
"""By path: the parameters that the runtime reads, and an example."""
_SUMMARIES = {
    CHAT: "Answer a chat",
    COMPLETIONS: "Complete a text",
    EMBEDDINGS: "Return vectors of texts",
}
_VECTORS: Schema = {"type": "object", "required": ["object", "model", "data"]}
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
    names = served_models(handler.instance, handler.document.name)
    by_path = {path: name for name, path in handler.code.openai.items()}
    for path, method in handler.openai.items():
        doc = docstrings.parse(inspect.getdoc(getattr(handler.code.target, by_path[path])))
        properties, example = _BODIES[path]
        body: Schema = {
            "type": "object",
            "required": [REQUIRED[path]],
            "properties": {"model": {"enum": names}, **properties},
        }
        if method.payload_type is not None and method.payload_type is not dict:
            body = {"allOf": [body, schemas.add(method.payload_type, is_result=False)]}
        examples = doc.values("request")
        content = {"application/json": media(body, examples or {"generated": {"model": names[0], **example}})}
        response = json_of(_VECTORS if path == EMBEDDINGS else _COMPLETION, "The answer")
        if path != EMBEDDINGS:
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
        MODELS,
        "GET",
        {**models, "responses": {"200": json_of(_LIST, "The models")}},
        (),
        is_openai=True,
    )
    one: Schema = {
        "operationId": "retrieve_model",
        "tags": [tag],
        "summary": "Describe a model",
        "parameters": [parameter("model", "path", {"enum": names})],
        "responses": {"200": json_of(_MODEL, "The model")},
    }
    frame.add(f"{MODELS}/{{model}}", "GET", one, ("404",), is_openai=True)
