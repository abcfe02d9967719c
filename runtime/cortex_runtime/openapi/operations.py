"""The methods of a handler as operations: parameters, request body and responses from type hints and docstrings."""

import collections.abc
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from starlette.datastructures import FormData
from starlette.responses import Response

from cortex_runtime.handler.interfaces import Method
from cortex_runtime.openapi import docstrings
from cortex_runtime.openapi.common import (
    ANY_MEDIA_TYPE,
    BODY_ERRORS,
    CALL_ERRORS,
    Frame,
    Schema,
    media,
    parameter,
)
from cortex_runtime.openapi.schemas import Schemas, item_of

JSON, TEXT, BINARY, FORM = "application/json", "text/plain", "application/octet-stream", "multipart/form-data"
LINES, EVENTS = "application/x-ndjson", "text/event-stream"
_PARAMETER = re.compile(r"{([^}:]*)(?::([^}]*))?}")
_CONVERTORS: Mapping[str, Schema] = {
    "int": {"type": "integer", "minimum": 0},
    "float": {"type": "number", "minimum": 0},
    "uuid": {"type": "string", "format": "uuid"},
    "path": {"type": "string", "minLength": 1, "description": "May contain slashes"},
    "str": {"type": "string", "minLength": 1},
}
_BYTES = (bytes, bytearray, memoryview)
_QUERY = {
    "name": "query",
    "in": "query",
    "description": "The handler reads query parameters.",
    "style": "form",
    "explode": True,
    "schema": {"type": "object", "additionalProperties": {"type": "string"}},
}


@dataclass
class Described:
    """What an operation is described from.

    method: how the handler is called. function: the user's function, with the docstring. payload, result: type hints, or schemas
    that are known without them. samples: payloads by name. query: query parameters, in place of those that the handler may read.
    summary: for a function without a docstring.
    """

    method: Method
    function: Callable[..., Any] | None
    payload: Any = None
    result: Any = None
    payload_schema: Schema | None = None
    result_schema: Schema | None = None
    samples: Mapping[str, Any] | None = None
    query: list[Schema] | None = None
    name: str = ""
    tag: str = ""
    summary: str = ""


def add(frame: Frame, schemas: Schemas, path: str, verb: str, described: Described) -> None:
    """Add the operation of a method. path: with its parameters as in `@route`."""
    doc = docstrings.parse(inspect.getdoc(described.function) if described.function is not None else None)
    requests, responses = doc.values("request"), doc.values("response")
    method = described.method
    parameters = [
        parameter(name, "path", dict(_CONVERTORS[convertor or "str"]))
        for name, convertor in _PARAMETER.findall(path)
    ]
    if "query_params" in method.arguments:
        parameters += [_QUERY] if described.query is None else described.query
    operation: Schema = {
        "operationId": described.name,
        "tags": [described.tag] if described.tag else [],
        "summary": doc.summary or described.summary,
        "description": doc.description,
        "parameters": parameters,
        "responses": {"200": _result(schemas, described, responses)},
    }
    # Clients such as browsers cannot send a body with GET.
    has_body = method.takes_payload and verb != "GET"
    if has_body:
        operation["requestBody"] = request_body(schemas, described, requests or described.samples or {})
    errors = (*(BODY_ERRORS if has_body else ()), *CALL_ERRORS)
    frame.add(_PARAMETER.sub(r"{\1}", path), verb, operation, errors)


def request_body(schemas: Schemas, described: Described, examples: Mapping[str, Any]) -> Schema:
    """Return the request body object of a method. It is complete after `Schemas.finish`."""
    content: dict[str, Schema]
    hint = described.payload
    if described.payload_schema is not None:
        content = {JSON: media(described.payload_schema, examples)}
    elif hint is None or hint is Any:
        content = {JSON: media({}, examples)}
        if not examples:
            content |= {TEXT: media({"type": "string"}), BINARY: media({})}
    else:
        content = {}
        rest = []
        for member in _members(hint):
            if member is str:
                texts = {name: value for name, value in examples.items() if isinstance(value, str)}
                content[TEXT] = media({"type": "string"}, texts)
            elif member in _BYTES:
                content[BINARY] = media({})
            elif member is FormData:
                content[FORM] = media({"type": "object"})
            elif member is not type(None):
                rest.append(member)
        if rest:
            content[JSON] = media(schemas.add(_union(rest), is_result=False), examples)
    return {"required": True, "content": content or {JSON: media({}, examples)}}


def _result(schemas: Schemas, described: Described, examples: Mapping[str, Any]) -> Schema:
    hint = described.result
    if described.result_schema is not None:
        content = {JSON: media(described.result_schema, examples)}
    elif hint is None or hint is Any:
        content = {JSON if examples else ANY_MEDIA_TYPE: media({}, examples)}
    else:
        content = {}
        rest = []
        for member in _members(_without_callback(hint)):
            if member is str:
                texts = {name: value for name, value in examples.items() if isinstance(value, str)}
                content[TEXT] = media({"type": "string"}, texts)
            elif member in _BYTES:
                content[BINARY] = media({})
            elif (item := item_of(member)) is not None:
                content |= _stream(schemas, item)
            elif _is_response(member):
                content[ANY_MEDIA_TYPE] = media({})
            else:
                rest.append(member)
        if rest:
            content[JSON] = media(schemas.add(_union(rest), is_result=True), examples)
    return {"description": "The result", "content": content}


def job_result(schemas: Schemas, described: Described) -> Schema:
    """Return the schema of the result of a job, which is always JSON. It is complete after `Schemas.finish`."""
    if described.result_schema is not None:
        return described.result_schema
    hint = _without_callback(described.result)
    unknown = (item_of(each) is not None or _is_response(each) for each in _members(hint))
    return {} if hint is None or any(unknown) else schemas.add(_union(_members(hint)), is_result=True)


def _is_response(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Response)


def _stream(schemas: Schemas, item: Any) -> dict[str, Schema]:
    if item is str or item in _BYTES:
        kind = TEXT if item is str else BINARY
        return {kind: media({"type": "string"} if item is str else {}), EVENTS: media({"type": "string"})}
    value = schemas.add(item, is_result=True)
    each = {"type": "string", "contentMediaType": JSON, "contentSchema": value}
    return {
        LINES: media({**each, "description": "One JSON value on each line"}),
        EVENTS: media({**each, "description": "Server-sent events, if the client accepts them"}),
    }


def _members(hint: Any) -> list[Any]:
    """Return the members of a union; a hint that is not a union as the only one."""
    origin = get_origin(hint)
    if origin is Annotated and get_args(hint)[0] in (str, *_BYTES):
        return [get_args(hint)[0]]
    if origin in (Union, UnionType):
        return [member for each in get_args(hint) for member in _members(each)]
    if origin in (collections.abc.Awaitable, collections.abc.Coroutine):
        return _members(get_args(hint)[-1])
    return [hint]


def _union(members: list[Any]) -> Any:
    return members[0] if len(members) == 1 else Union[tuple(members)]  # noqa: UP007


def _without_callback(hint: Any) -> Any:
    """Return X of `tuple[X, Callable]`, a result with a function that runs after the response was sent."""
    arguments = get_args(hint)
    if get_origin(hint) is tuple and len(arguments) == 2:
        second = get_origin(arguments[1]) or arguments[1]
        if second is collections.abc.Callable:
            return arguments[0]
    return hint
