"""Forms for the operations of an API, from its OpenAPI document. Pure functions.

A payload that is an object of simple values gets a field for each value. Everything else is entered as JSON.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Schema = dict[str, Any]
Kind = Literal["text", "number", "integer", "boolean", "choice", "json"]
METHODS = ("post", "get", "put", "patch", "delete")
_MAX_FIELDS = 40
_MAX_OPERATIONS = 60
_JSON = "application/json"


@dataclass(frozen=True)
class Field:
    """One value of a payload. value: text to start with. choices: of an enum, as JSON."""

    name: str
    kind: Kind
    is_required: bool
    description: str
    value: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Operation:
    """A method and path of an API. example: a payload as JSON, or "". fields: None if the payload has no form."""

    method: str
    path: str
    summary: str
    has_body: bool
    example: str
    fields: tuple[Field, ...] | None

    @property
    def id(self) -> str:
        """Of the operation in URLs."""
        return f"{self.method} {self.path}"


def operations(document: Any) -> list[Operation]:
    """Return the operations with a JSON payload, or without a payload; those of "/" first. Invalid parts are skipped."""
    paths = document.get("paths") if isinstance(document, dict) else None
    found = []
    for path, item in (paths if isinstance(paths, dict) else {}).items():
        for method in METHODS:
            operation = item.get(method) if isinstance(item, dict) else None
            if (
                isinstance(operation, dict)
                and (read := _operation(document, method, path, operation)) is not None
            ):
                found.append(read)
    return sorted(found, key=lambda each: (each.path != "/", METHODS.index(each.method.lower())))[
        :_MAX_OPERATIONS
    ]


def payload(operation: Operation, form: Mapping[str, str]) -> str:
    """Return the payload of a submitted form as JSON. Raises ValueError, which names the field.

    form: text by the name of the field. An empty text of an optional field leaves it out.
    """
    values: dict[str, Any] = {}
    for field in operation.fields or ():
        text = form.get(field.name, "")
        if field.kind == "boolean":
            values[field.name] = text == "true"
        elif text.strip() or (field.kind == "text" and field.is_required):
            values[field.name] = _value(field, text)
        elif field.is_required:
            raise ValueError(f"{field.name} is required")
    return json.dumps(values, indent=2, ensure_ascii=False)


def _operation(document: Schema, method: str, path: str, operation: Schema) -> Operation | None:
    body = _resolve(document, operation.get("requestBody") or {})
    content = body.get("content") or {}
    if content and _JSON not in content:
        return None
    media = content.get(_JSON) or {}
    schema = _resolve(document, media.get("schema") or {})
    example = _example(media, schema)
    fields = _fields(document, schema, example if isinstance(example, dict) else {})
    text = "" if example is None else json.dumps(example, indent=2, ensure_ascii=False)
    return Operation(method.upper(), path, str(operation.get("summary") or ""), bool(content), text, fields)


def _example(media: Schema, schema: Schema) -> Any:
    if "example" in media:
        return media["example"]
    for each in (media.get("examples") or {}).values():
        if isinstance(each, dict) and "value" in each:
            return each["value"]
    return next(iter(schema.get("examples") or ()), schema.get("example"))


def _fields(document: Schema, schema: Schema, example: Schema) -> tuple[Field, ...] | None:
    properties = schema.get("properties")
    if not isinstance(properties, dict) or not properties or len(properties) > _MAX_FIELDS:
        return None
    required = schema.get("required") or ()
    return tuple(
        _field(document, name, _resolve(document, each), name in required, example.get(name))
        for name, each in properties.items()
        if isinstance(each, dict)
    )


def _field(document: Schema, name: str, schema: Schema, is_required: bool, example: Any) -> Field:
    value = schema.get("default") if example is None else example
    description = str(schema.get("description") or "")
    options = [_resolve(document, each) for each in schema.get("anyOf") or schema.get("oneOf") or ()]
    # An optional value: anyOf of a type and null.
    present = [each for each in options if each.get("type") != "null"]
    schema = present[0] if len(present) == 1 else schema
    if isinstance(schema.get("enum"), list):
        choices = tuple(json.dumps(each, ensure_ascii=False) for each in schema["enum"])
        text = "" if value is None else json.dumps(value, ensure_ascii=False)
        return Field(name, "choice", is_required, description, text, choices)
    kinds: dict[str, Kind] = {
        "string": "text",
        "number": "number",
        "integer": "integer",
        "boolean": "boolean",
    }
    kind = kinds.get(str(schema.get("type")), "json")
    if value is None:
        text = ""
    elif kind == "text" and isinstance(value, str):
        text = value
    else:
        text = json.dumps(value, ensure_ascii=False)
    return Field(name, kind, is_required, description, text)


def _value(field: Field, text: str) -> Any:
    try:
        match field.kind:
            case "text":
                return text
            case "integer":
                return int(text)
            case "number":
                # A whole number stays one: 5 and 5.0 differ for some handlers.
                return int(text) if text.strip().lstrip("+-").isdecimal() else float(text)
            case _:
                return json.loads(text)
    except ValueError as error:
        expected = {"integer": "an integer", "number": "a number"}.get(field.kind, "JSON")
        raise ValueError(f"{field.name} must be {expected}; got {text!r}") from error


def _resolve(document: Schema, schema: Any) -> Schema:
    """Follow references within the document. A reference that cannot be followed is an empty schema."""
    for _ in range(10):
        reference = schema.get("$ref") if isinstance(schema, dict) else None
        if reference is None:
            break
        found: Any = document
        for part in str(reference).removeprefix("#/").split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, dict) else None
        schema = found
    return schema if isinstance(schema, dict) else {}
