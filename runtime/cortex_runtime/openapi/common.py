"""What the documents of both kinds of APIs have in common: the frame, security, and the errors of the runtime."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from cortex_runtime.http.json_encoder import dumps

Schema = dict[str, Any]
ANY_MEDIA_TYPE = "*/*"
SAMPLE = "sample.json"
"""The file with an example of the payload."""
_PROBLEM = {
    "type": "object",
    "required": ["error", "requestId"],
    "properties": {
        "error": {"description": "What was wrong: text, or any value that the handler has chosen"},
        "requestId": {"type": "string", "description": "The id of the request, which is also in the log"},
        "fields": {
            "type": "array",
            "description": "The wrong fields of the payload",
            "items": {
                "type": "object",
                "properties": {"path": {"type": "string"}, "problem": {"type": "string"}},
                "required": ["path", "problem"],
            },
        },
    },
}
_OPENAI_PROBLEM = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"], "description": "The wrong parameter"},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_RETRY = {"Retry-After": {"description": "Seconds to wait", "schema": {"type": "integer"}}}
_CHALLENGE = {"WWW-Authenticate": {"description": "The accepted kind of key", "schema": {"type": "string"}}}
_ERRORS: dict[str, tuple[str, str, Schema]] = {
    "400": ("BadRequest", "The request is not valid.", {}),
    "401": ("Unauthorized", "The request has no valid API key.", _CHALLENGE),
    "404": ("NotFound", "Not found.", {}),
    "408": ("BodyTimeout", "The body did not arrive in time.", {}),
    "409": ("NotRetryable", "The job has not failed, or its payload is not stored any more.", {}),
    "413": ("BodyTooLarge", "The body is larger than `maxBodySize`.", {}),
    "415": ("UnsupportedEncoding", "The content encoding is not supported.", {}),
    "422": ("OtherRequest", "The idempotency key was used for another request.", {}),
    "4XX": ("Rejected", "The handler has rejected the request.", {}),
    "500": ("InternalError", "The handler has failed. The log has the cause.", {}),
    "503": ("Overloaded", "Too many requests are in flight, or the API shuts down. Try again.", _RETRY),
    "504": ("Timeout", "The request took longer than `requestTimeout`.", {}),
}
BODY_ERRORS = ("400", "408", "413", "415")
CALL_ERRORS = ("4XX", "500", "504")


class Frame:
    """A document to which operations are added. title: the name of the API. has_keys: whether it requires an API key."""

    def __init__(self, title: str, summary: str = "", description: str = "", has_keys: bool = False) -> None:
        self._info = {
            "title": title,
            **({"summary": summary} if summary else {}),
            **({"description": description} if description else {}),
        }
        self._has_keys = has_keys
        self._tags: dict[str, str] = {}
        self._errors: set[tuple[str, bool]] = set()
        self._operation_ids: set[str] = set()
        self.paths: dict[str, dict[str, Schema]] = {}
        self.schemas: dict[str, Schema] = {}
        self.extensions: dict[str, Any] = {}

    def tag(self, name: str, description: str) -> str:
        """Describe a group of operations, and return its name."""
        self._tags.setdefault(name, description)
        return name

    def add(
        self, path: str, verb: str, operation: Schema, errors: Iterable[str], is_openai: bool = False
    ) -> None:
        """Add an operation.

        errors: the statuses of errors that it may have, in addition to 401 and 503. is_openai: whether errors have the shape of
        OpenAI.
        """
        own = [*errors, "503", *(["401"] if self._has_keys else [])]
        responses = dict(operation.pop("responses"))
        for status in sorted({*own} - responses.keys()):
            self._errors.add((status, is_openai))
            responses[status] = {"$ref": f"#/components/responses/{_component(status, is_openai)}"}
        name = operation.pop("operationId")
        if name in self._operation_ids:
            name = f"{name}_{verb.lower()}_{len(self._operation_ids)}"
        self._operation_ids.add(name)
        self.paths.setdefault(path, {})[verb.lower()] = {
            "operationId": name,
            **{key: value for key, value in operation.items() if value},
            "responses": responses,
        }

    def build(self) -> bytes:
        """Return the document as JSON. Its version is a hash of its content."""
        # A type of the handler may have the first name.
        error = next(name for name in ("Error", "ErrorResponse", "CortexError") if name not in self.schemas)
        shared = {error: _PROBLEM, "OpenAIError": _OPENAI_PROBLEM}
        used = {"OpenAIError" if is_openai else error for _, is_openai in self._errors}
        components: Schema = {
            "schemas": {**self.schemas, **{name: shared[name] for name in sorted(used)}},
            "responses": {
                _component(status, is_openai): _error_response(status, "OpenAIError" if is_openai else error)
                for status, is_openai in sorted(self._errors)
            },
        }
        content: dict[str, Any] = {
            # The path of the document without its last segment: "/" or the prefix that a gateway strips.
            "servers": [{"url": "."}],
            "tags": [{"name": name, "description": text} for name, text in self._tags.items()],
            "paths": self.paths,
            "components": components,
            **self.extensions,
        }
        if self._has_keys:
            components["securitySchemes"] = {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            }
            content["security"] = [{"bearer": []}, {"header": []}]
        digest = hashlib.sha256(dumps([self._info, content])).hexdigest()[:12]
        info = {**self._info, "version": digest}
        return dumps({"openapi": "3.1.0", "info": info, **content})


def _component(status: str, is_openai: bool) -> str:
    """Return the name of an error among the shared responses."""
    return f"{'OpenAI' if is_openai else ''}{_ERRORS[status][0]}"


def _error_response(status: str, schema: str) -> Schema:
    _, description, headers = _ERRORS[status]
    reference = {"schema": {"$ref": f"#/components/schemas/{schema}"}}
    more = {"headers": headers} if headers else {}
    return {"description": description, **more, "content": {"application/json": reference}}


def parameter(name: str, place: str, schema: Schema, description: str = "") -> Schema:
    """Return a parameter object. place: path, query or header; a parameter in the path is required."""
    return {
        "name": name,
        "in": place,
        **({"required": True} if place == "path" else {}),
        **({"description": description} if description else {}),
        "schema": schema,
    }


def media(schema: Schema, examples: Mapping[str, Any] | None = None) -> Schema:
    """Return a media type object. examples: values by name."""
    shown = {name: {"value": value} for name, value in (examples or {}).items()}
    return {"schema": schema, **({"examples": shown} if shown else {})}


def json_of(schema: Schema, description: str, examples: Mapping[str, Any] | None = None) -> Schema:
    """Return a response with JSON."""
    return {"description": description, "content": {"application/json": media(schema, examples)}}
